//! Listings over a handful of rows.

use super::*;
use crate::model::UnixName;

#[derive(Clone)]
struct Row {
    pid: u64,
    comm: &'static str,
    name: UnixName,
    peer: Option<u64>,
}

fn columns<'a>() -> [Column<&'a Row>; 4] {
    [
        Column { name: "pid", about: "", side: Side::Right, get: |row| Value::Number(row.pid) },
        Column {
            name: "comm",
            about: "",
            side: Side::Left,
            get: |row| Value::Bytes(row.comm.into()),
        },
        Column {
            name: "name",
            about: "",
            side: Side::Left,
            get: |row| Value::Name(row.name.clone()),
        },
        Column {
            name: "peer",
            about: "",
            side: Side::Right,
            get: |row| row.peer.map_or(Value::Absent, Value::Number),
        },
    ]
}

fn rows() -> Vec<Row> {
    let row = |pid, comm, name: &str, peer| Row {
        pid,
        comm,
        name: UnixName::from_sun_path(name.as_bytes()),
        peer,
    };
    vec![
        row(10, "b", "/b", Some(1)),
        row(9, "a", "", None),
        row(100, "b", "/a", Some(2)),
        row(11, "a", "\0x", None),
        row(12, "b", "", Some(1)),
    ]
}

fn ask(request: &Request) -> Result<Listing, RequestError> {
    list(&rows(), &columns(), request, 0)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Each row as one text.
fn shown(request: &Request) -> Vec<String> {
    let row = |row: &Vec<Value>| row.iter().map(Value::to_string).collect::<Vec<_>>().join(" ");
    ask(request).expect("a listing").rows.iter().map(row).collect()
}

#[test]
fn a_listing_has_the_columns_and_rows_that_were_asked_for() {
    let request = Request {
        columns: words(&["comm", "pid", "comm"]),
        filter: Some("peer and pid < 100".into()),
        ..Request::default()
    };
    let listing = ask(&request).expect("a listing");
    let heading = |name: &str, side| Heading { name: name.into(), side };
    assert_eq!(listing.headings, [heading("comm", Side::Left), heading("pid", Side::Right)]);
    assert_eq!(shown(&request), ["b 10", "b 12"]);
    assert_eq!((listing.matched, listing.examined), (2, 5));
}

#[test]
fn no_names_mean_all_columns() {
    assert_eq!(shown(&Request::default())[0], "10 b /b 1");
}

fn sorted(by: &[&str], column: &str) -> Vec<String> {
    let (columns, sort) = (words(&[column]), words(by));
    shown(&Request { columns, sort, ..Request::default() })
}

#[test]
fn rows_are_sorted_by_value_and_what_is_absent_comes_last() {
    assert_eq!(sorted(&["pid"], "pid"), ["9", "10", "11", "12", "100"]);
    assert_eq!(sorted(&["-pid"], "pid"), ["100", "12", "11", "10", "9"]);
    assert_eq!(sorted(&["name"], "name"), ["/a", "/b", "@x", "-", "-"]);
    assert_eq!(sorted(&["-name"], "name"), ["@x", "/b", "/a", "-", "-"]);
    // Those that are equal stay in their order.
    assert_eq!(sorted(&["peer"], "pid"), ["10", "12", "100", "9", "11"]);
    assert_eq!(sorted(&["-peer"], "pid"), ["100", "10", "12", "9", "11"]);
    assert_eq!(sorted(&["comm", "-pid"], "pid"), ["11", "9", "100", "12", "10"]);
    assert_eq!(sorted(&["comm", "-comm"], "comm"), ["a", "a", "b", "b", "b"]);
}

#[test]
fn a_limit_leaves_rows_out_and_says_how_many_there_are() {
    for sort in [words(&[]), words(&["-pid"])] {
        for limit in [0, 2, 5, 9] {
            let request = Request { sort: sort.clone(), limit: Some(limit), ..Request::default() };
            let listing = ask(&request).expect("a listing");
            assert_eq!(listing.rows.len() as u64, limit.min(5));
            assert_eq!((listing.matched, listing.examined), (5, 5));
        }
    }
    let first = Request { limit: Some(1), sort: words(&["-pid"]), ..Request::default() };
    assert_eq!(shown(&first), ["100 b /a 2"]);
}

#[test]
fn rows_are_counted_by_what_they_have_in_common() {
    let mut request = Request { count_by: words(&["comm"]), ..Request::default() };
    assert_eq!(shown(&request), ["b 3", "a 2"]);
    request.count_by = words(&["peer", "comm"]);
    assert_eq!(shown(&request), ["1 b 2", "- a 2", "2 b 1"]);
    request.sort = words(&["count", "-peer"]);
    assert_eq!(shown(&request), ["2 b 1", "1 b 2", "- a 2"]);
    request.limit = Some(1);
    request.filter = Some("pid > 9".into());
    let listing = ask(&request).expect("a listing");
    assert_eq!((listing.rows.len(), listing.matched, listing.examined), (1, 3, 5));
    assert_eq!(listing.headings.last().map(|heading| heading.name.as_str()), Some(COUNT));
    request.sort = words(&["pid"]);
    assert!(matches!(ask(&request), Err(RequestError::UnknownColumn { .. })));
}

#[test]
fn what_makes_no_sense_is_refused_with_a_hint() {
    let said = |request: &Request| {
        let error = ask(request).expect_err("an error");
        (error.to_string(), error.hint())
    };
    let request = Request { columns: words(&["pdi"]), ..Request::default() };
    let hint = Some("did you mean `pid`?".to_owned());
    assert_eq!(said(&request), ("there is no column `pdi` to show".into(), hint));
    let request = Request { sort: words(&["--pid"]), ..Request::default() };
    assert_eq!(said(&request).0, "there is no column `-pid` to sort by");
    let request = Request { count_by: words(&["no\n"]), ..Request::default() };
    assert_eq!(said(&request).0, "there is no column `no\\x0a` to count by");
    let request = Request { filter: Some("pid <".into()), ..Request::default() };
    assert!(said(&request).0.starts_with("the filter makes no sense: a word"));
    let request = Request { filter: Some("comm < 5".into()), limit: Some(0), ..Request::default() };
    assert!(said(&request).0.contains("column `comm` holds text"));
}

#[test]
fn a_plus_means_the_default_columns_and_these() {
    let defaults = ["pid", "comm"];
    for (text, names) in [
        ("", &["pid", "comm"][..]),
        (" , ", &["pid", "comm"]),
        ("name", &["name"]),
        ("name, peer,name", &["name", "peer"]),
        ("+name", &["pid", "comm", "name"]),
        ("name,peer,+pid", &["pid", "comm", "name", "peer"]),
        ("+", &["pid", "comm"]),
    ] {
        assert_eq!(resolve(text, &defaults), names, "{text}");
    }
}

#[test]
fn requests_and_listings_survive_the_way_through_a_socket() {
    let request = Request { count_by: words(&["name"]), limit: Some(3), ..Request::default() };
    let bytes = postcard::to_stdvec(&request).expect("bytes");
    assert_eq!(postcard::from_bytes(&bytes), Ok(request.clone()));
    let listing = ask(&request).expect("a listing");
    let bytes = postcard::to_stdvec(&listing).expect("bytes");
    assert_eq!(postcard::from_bytes(&bytes), Ok(listing));
}
