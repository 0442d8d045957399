//! What expressions mean, and what is none.

use proptest::prelude::*;

use super::*;
use crate::{
    model::UnixName,
    query::{Side, value::Kind},
};

/// A row is the value of each column.
type Row = [Value; 8];

fn column(name: &'static str, get: fn(&Row) -> Value) -> Column<Row> {
    Column { name, about: "", side: Side::Left, get }
}

fn columns() -> [Column<Row>; 8] {
    [
        column("pid", |row| row[0].clone()),
        column("comm", |row| row[1].clone()),
        column("name", |row| row[2].clone()),
        column("since", |row| row[3].clone()),
        column("age", |row| row[4].clone()),
        column("fds", |row| row[5].clone()),
        column("unit", |row| row[6].clone()),
        column("peer", |row| row[7].clone()),
    ]
}

const SECOND: u64 = 1_000_000_000;
/// 2026-11-23T10:00:00Z
const NOW: u64 = 1_795_428_000 * SECOND;

fn row() -> Row {
    [
        Value::Number(4096),
        Value::Bytes(b"ngi\xff nx".to_vec()),
        Value::Name(UnixName::Abstract(b"bus\0\"1".to_vec())),
        Value::Time(NOW - 3600 * SECOND),
        Value::Span(90 * SECOND),
        Value::List(vec![Value::Number(3), Value::Number(7)]),
        Value::Text("a.service".into()),
        Value::Absent,
    ]
}

fn named(name: UnixName) -> Row {
    let mut row = row();
    row[2] = Value::Name(name);
    row
}

fn path(bytes: &[u8]) -> Row {
    named(UnixName::Pathname(bytes.to_vec()))
}

fn holds(text: &str, row: &Row) -> bool {
    match Expression::parse(text, &columns(), NOW) {
        Ok(mut expression) => expression.holds(row),
        Err(error) => panic!("{error}:\n{}", error.pointed(text)),
    }
}

fn error(text: &str) -> ExpressionError {
    match Expression::parse(text, &columns(), NOW) {
        Ok(mut expression) => {
            expression.holds(&row());
            expression.misfit().expect("an error")
        }
        Err(error) => error,
    }
}

fn check(table: &[(&str, bool)], row: &Row) {
    for (text, expected) in table {
        assert_eq!(holds(text, row), *expected, "{text}");
    }
}

#[test]
fn numbers_are_compared_by_value() {
    let table = [
        ("pid == 4096", true),
        ("pid == 4K", true),
        ("pid != 4K", false),
        ("pid < 4097", true),
        ("pid < 4096", false),
        ("pid <= 4096", true),
        ("pid > 999", true),
        ("pid >= 5M", false),
        ("pid<1G", true),
        ("pid == '4096'", true),
        ("pid =~ 4*6", true),
        ("pid !~ 4*6", false),
        ("pid == 4k", false),
        ("pid == +4096", false),
        ("pid != +4096", true),
        ("pid < 18446744073709551615", true),
        ("pid == 18014398509481984K", false),
    ];
    check(&table, &row());
}

#[test]
fn lengths_of_time_have_units() {
    let table = [
        ("age == 90s", true),
        ("age == 1m30s", true),
        ("age == '1m 30s'", true),
        ("age > 1500ms", true),
        ("age > 0", true),
        ("age < 2h", true),
        ("age >= 3d", false),
    ];
    check(&table, &row());
}

#[test]
fn a_moment_is_a_date_or_how_long_ago_it_was() {
    let table = [
        ("since == 2026-11-23T09:00:00Z", true),
        ("since > 2026-11-23", true),
        ("since < '2026-11-23 09:00:01'", true),
        ("since > 2h", true),
        ("since < 2h", false),
        ("since == 1h", true),
        ("since <= 59m", true),
        ("since =~ 2026-11-*", true),
        ("since > 20000w", true),
    ];
    check(&table, &row());
}

#[test]
fn text_is_compared_as_it_is_shown() {
    let table = [
        (r#"comm == "ngi\xff nx""#, true),
        (r"comm == 'ngi\xff nx'", true),
        (r#"comm == "ngi\xfe nx""#, false),
        (r#"comm =~ "*\xff*""#, true),
        (r"comm =~ *\xff*", true),
        ("comm =~ ngi*", true),
        ("comm =~ ngi", false),
        ("comm !~ x*", true),
        ("unit == a.service", true),
        ("unit =~ *.{service,scope}", true),
        ("unit =~ [a-c].*", true),
        (r#"unit =~ "\x2a.service""#, false),
    ];
    check(&table, &row());
    let mut starred = row();
    starred[6] = Value::Text("*.service".into());
    assert!(holds(r#"unit =~ "\x2a.service""#, &starred));
}

#[test]
fn names_cannot_be_mistaken() {
    let table = [
        (r#"name == "@bus\x00\"1""#, true),
        (r#"name == '@bus\x00"1'"#, true),
        (r#"name == "bus\x00\"1""#, false),
        (r"name =~ @bus\x00*", true),
        ("name =~ @*", true),
        ("name", true),
    ];
    check(&table, &row());

    let looks_abstract = path(b"@bus");
    assert!(!holds("name == @bus", &looks_abstract));
    assert!(holds(r"name == \x40bus", &looks_abstract));
    assert!(holds(r#"name == "\x40bus""#, &looks_abstract));
    assert!(!holds("name =~ @*", &looks_abstract));

    assert!(holds(r"name == '\x2d'", &path(b"-")));
    assert!(!holds("name == -", &path(b"-")));
    assert!(holds("name == -x", &path(b"-x")));
    assert!(holds(r"name == '\x2dx'", &path(b"-x")));
    assert!(holds(r#"name == "a\\b""#, &path(b"a\\b")));
    assert!(holds(r"name =~ a\\b", &path(b"a\\b")));
    assert!(holds("name == /run/é", &path("/run/é".as_bytes())));

    assert!(!holds("name", &named(UnixName::Unnamed)));
    assert!(!holds("name == -", &named(UnixName::Unnamed)));
}

#[test]
fn what_is_absent_equals_nothing() {
    let table = [
        ("peer", false),
        ("not peer", true),
        ("!peer", true),
        ("peer == 5", false),
        ("peer == -", false),
        ("peer != 5", true),
        ("peer < 5", false),
        ("peer =~ *", false),
        ("peer !~ *", true),
        ("unit", true),
    ];
    check(&table, &row());
}

#[test]
fn one_element_of_a_list_is_enough() {
    let table = [
        ("fds == 3", true),
        ("fds == 7", true),
        ("fds == 5", false),
        ("fds != 5", true),
        ("fds != 3", false),
        ("fds > 6", true),
        ("fds > 7", false),
        ("fds =~ 7", true),
        ("fds !~ 7", false),
        ("fds", true),
    ];
    check(&table, &row());
    let mut none = row();
    none[5] = Value::List(Vec::new());
    check(&[("fds", false), ("fds == 3", false), ("fds != 3", true)], &none);
}

#[test]
fn and_binds_closer_than_or_and_not_closest() {
    let table = [
        ("pid and comm", true),
        ("pid && peer", false),
        ("peer or pid", true),
        ("peer || peer", false),
        ("pid or pid and peer", true),
        ("(pid or pid) and peer", false),
        ("not pid or pid", true),
        ("not (pid or pid)", false),
        ("not pid == 5", true),
        ("! pid==5&&comm", true),
        ("not not pid", true),
        ("peer or peer or peer or pid", true),
        ("((pid))", true),
        ("comm == and or pid", true),
        ("unit != not", true),
    ];
    check(&table, &row());
}

#[test]
fn what_makes_no_sense_is_said_with_its_place() {
    let table = [
        ("", 0, "a column is expected here, not the end"),
        ("  ", 0, "a column is expected here, not the end"),
        ("pid ==", 6, "a word or something in quotes is expected here, not the end"),
        ("pid == )", 7, "a word or something in quotes is expected here, not `)`"),
        ("pid pid", 4, "`and`, `or` or the end is expected here, not `pid`"),
        ("pid)", 3, "`and`, `or` or the end is expected here, not `)`"),
        ("(pid", 4, "`)` is expected here, not the end"),
        ("pid and", 7, "a column is expected here, not the end"),
        ("or pid", 0, "a column is expected here, not `or`"),
        ("\"pid\"", 0, "a column is expected here, not `\"pid\"`"),
        ("pid = 5", 4, "`=` is no operator"),
        ("pid & comm", 4, "`&` is no operator"),
        ("comm == 'x", 8, "this quote does not end"),
        ("comm == 'x\\", 8, "this quote does not end"),
        (r"comm == '\n'", 9, "a backslash stands before"),
        (r"comm == '\x+1'", 9, "a backslash stands before"),
        (r"comm == 'a\xf", 10, "a backslash stands before"),
        ("comm == '\\xé'", 9, "a backslash stands before"),
        ("pid and nmae", 8, "there is no column `nmae`"),
        ("pid\u{1b} == 1", 0, "there is no column `pid\\x1b`"),
        ("comm < x", 7, "`x` is neither a number nor a time"),
        ("comm =~ [a", 8, "this is no glob: unclosed character class"),
    ];
    for (text, at, message) in table {
        let error = error(text);
        assert!(error.to_string().starts_with(message), "{text}: {error}");
        assert_eq!(error.at, at, "{text}: {error}");
    }
}

#[test]
fn a_comparison_that_never_had_a_meaning_is_an_error() {
    let kind = |text: &str| match error(text).problem {
        Problem::WrongKind { holds, .. } => holds,
        other => panic!("{text}: {other}"),
    };
    assert_eq!(kind("name < 5"), Kind::Name);
    assert_eq!(kind("comm >= 5s"), Kind::Text);
    assert_eq!(kind("pid == abc"), Kind::Number);
    assert_eq!(kind("pid > 5s"), Kind::Number);
    assert_eq!(kind("fds > 5s"), Kind::Number);
    assert_eq!(kind("age > 5"), Kind::Span);
    assert_eq!(kind("since == yesterday"), Kind::Time);
    assert_eq!(kind("not (peer or age != 5)"), Kind::Span);
    assert_eq!(error("pid and name < 5").at, 8);
    assert_eq!(
        error("name < 5").to_string(),
        "column `name` holds names: it cannot be compared with `5` like this"
    );
}

#[test]
fn one_meaningful_cell_or_none_at_all_is_no_error() {
    let mut expression = Expression::parse("unit == 5 or age > 5", &columns(), NOW).expect("fine");
    let mut other = row();
    other[4] = Value::Absent;
    assert!(!expression.holds(&other));
    assert_eq!(expression.misfit(), None);

    let mut expression = Expression::parse("pid == abc", &columns(), NOW).expect("fine");
    other[0] = Value::Text("abc".into());
    assert!(!expression.holds(&row()));
    assert!(expression.holds(&other));
    assert!(!expression.holds(&row()));
    assert_eq!(expression.misfit(), None);
}

#[test]
fn a_caret_shows_the_place() {
    let text = "pid == 1 and nmae";
    let error = error(text);
    assert_eq!(error.pointed(text), "pid == 1 and nmae\n             ^");
    assert_eq!(error.hint().as_deref(), Some("did you mean `name`?"));

    let text = format!("comm == 'é\u{1b}' and {}nmae", "pid and ".repeat(20));
    let error = Expression::parse(&text, &columns(), NOW).err().expect("an error");
    let pointed = error.pointed(&text);
    let (line, caret) = pointed.split_once('\n').expect("two lines");
    assert_eq!(line.find("nmae"), caret.find('^'));
    assert!(error.pointed("other text").ends_with('^'));
}

#[test]
fn length_and_nesting_are_limited() {
    assert_eq!(error(&"x".repeat(MAX_LENGTH + 1)).problem, Problem::TooLong);
    let nested = |n: usize| format!("{}pid{}", "(".repeat(n), ")".repeat(n));
    assert!(holds(&nested(MAX_DEPTH), &row()));
    assert_eq!(error(&nested(MAX_DEPTH + 1)).problem, Problem::TooDeep);
    assert!(holds(&format!("{}pid", "!".repeat(MAX_DEPTH)), &row()));
    assert_eq!(error(&format!("{}pid", "!".repeat(MAX_DEPTH + 1))).problem, Problem::TooDeep);
    // A chain is no nesting.
    assert!(holds(&format!("pid{}", " or pid".repeat(500)), &row()));
}

#[test]
fn a_glob_that_cannot_be_built_is_an_error() {
    let deep = format!("comm =~ {}a{}", "{".repeat(2000), "}".repeat(2000));
    assert!(matches!(error(&deep).problem, Problem::BadGlob { .. }));
}

/// A tree of conditions, as text and as what it means.
#[derive(Clone, Debug)]
struct Meant {
    text: String,
    holds: bool,
}

fn meant() -> impl Strategy<Value = Meant> {
    let leaf = prop_oneof![
        Just(Meant { text: "pid".into(), holds: true }),
        Just(Meant { text: "peer".into(), holds: false }),
        Just(Meant { text: "fds>6".into(), holds: true }),
        Just(Meant { text: "comm==x".into(), holds: false }),
    ];
    leaf.prop_recursive(6, 40, 4, |inner| {
        let many = || prop::collection::vec(inner.clone(), 1..4);
        let join = |parts: &[Meant], word: &str| {
            let texts: Vec<String> = parts.iter().map(|part| format!("({})", part.text)).collect();
            texts.join(word)
        };
        prop_oneof![
            many().prop_map(move |parts| Meant {
                text: join(&parts, " or "),
                holds: parts.iter().any(|part| part.holds),
            }),
            many().prop_map(move |parts| Meant {
                text: join(&parts, "&&"),
                holds: parts.iter().all(|part| part.holds),
            }),
            inner
                .prop_map(|part| Meant { text: format!("not({})", part.text), holds: !part.holds }),
        ]
    })
}

/// Texts that are nearly expressions.
fn nearly() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "pid",
        "comm",
        "name",
        "fds",
        "peer",
        "and",
        "or",
        "not",
        "(",
        ")",
        "!",
        "&&",
        "||",
        "==",
        "!=",
        "<",
        "<=",
        "=~",
        "!~",
        "=",
        "5",
        "5s",
        "4K",
        "\"",
        "'",
        "\\x",
        "\\x41",
        "\\\\",
        "[",
        "]",
        "{",
        "}",
        "*",
        "?",
        "2026-11-23",
        "é",
        "\0",
        " ",
        ",",
        "@",
        "-",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.join(" "))
}

fn survives(text: &str) {
    match Expression::parse(text, &columns(), NOW) {
        Ok(mut expression) => {
            expression.holds(&row());
            assert!(expression.misfit().is_none_or(|error| error.at <= text.len()));
        }
        Err(error) => {
            assert!(error.at <= text.len());
            assert!(!error.to_string().is_empty() && error.pointed(text).ends_with('^'));
            assert!(error.hint().is_none_or(|hint| !hint.is_empty()));
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_written_is_an_expression_or_an_error(text in any::<String>(), nearly in nearly()) {
        survives(&text);
        survives(&nearly);
        survives(&nearly.replace(' ', ""));
    }

    #[test]
    fn an_expression_means_what_its_parts_mean(meant in meant()) {
        prop_assume!(meant.text.len() <= MAX_LENGTH);
        prop_assert_eq!(holds(&meant.text, &row()), meant.holds, "{}", meant.text);
    }

    #[test]
    fn a_name_that_is_copied_from_a_listing_finds_itself(
        bytes in prop::collection::vec(any::<u8>(), 1..8),
        is_abstract in any::<bool>(),
    ) {
        let name = match is_abstract {
            true => UnixName::Abstract(bytes),
            false => UnixName::Pathname(bytes),
        };
        let shown = name.to_string();
        prop_assume!(!shown.contains(|c: char| c.is_whitespace() || "()!<>=~&|\"'".contains(c)));
        let text = format!("name == {shown}");
        prop_assert!(holds(&text, &named(name)), "{}", text);
    }
}
