//! Reading: beside the one who writes and without one, forwards, backwards and within a span of time.

use super::*;
use crate::history::samples::closed_socket;

#[test]
fn what_is_written_is_seen_at_once() {
    let place = Place::new();
    let mut store = place.open();
    let reader = place.reader();
    let all = closed_sockets(100);
    for upto in 1..=100 {
        store.append(&batch(vec![all[upto - 1].clone()], Vec::new())).expect("appended");
        let read = entries(reader.gone(Span::ALL, Order::OldestFirst).expect("a search"));
        assert_eq!(read, all[..upto]);
    }
}

#[test]
fn a_search_meets_each_entry_once_while_more_are_written() {
    let place = Place::new();
    let mut store = place.open();
    for part in closed_sockets(6000).chunks(100) {
        store.append(&batch(part.to_vec(), Vec::new())).expect("appended");
    }
    let mut fresh = 6000..;
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let reader = place.reader();
        let search = reader.gone(Span::ALL, order).expect("a search");
        let mut met = Vec::new();
        for (n, found) in (0_u64..).zip(search) {
            assert!(n < 20_000, "it meets the same again and again");
            met.push(found.expect("readable").entry.cookie.expect("numbered"));
            // Also while the last block is being read, which then becomes longer. The search catches up.
            if n % 10 == 0 {
                let next = vec![closed_socket(fresh.next().expect("endless"))];
                store.append(&batch(next, Vec::new())).expect("appended");
            }
        }
        met.sort_unstable();
        let count = met.len();
        met.dedup();
        assert_eq!(met.len(), count, "{order:?}");
        assert!((0..6000).all(|n| met.binary_search(&n).is_ok()), "{order:?}");
    }
}

#[test]
fn what_is_written_when_all_else_is_forgotten_is_not_taken_for_older() {
    let place = Place::new();
    let mut store = place.open();
    for part in closed_sockets(8000).chunks(4000) {
        store.append(&batch(part.to_vec(), Vec::new())).expect("appended");
    }
    let reader = place.reader();
    let mut search = reader.gone(Span::ALL, Order::NewestFirst).expect("a search");
    let newest = search.next().expect("one").expect("readable").entry;
    assert_eq!(newest.cookie, Some(7999));
    let age = u64::try_from(Limits::default().max_age.as_nanos()).expect("not that long");
    let new = Gone { closed_at: age * 2, cookie: Some(9999), ..closed_socket(0) };
    let later = Batch { now: age * 2, ..batch(vec![new], Vec::new()) };
    assert_eq!(store.append(&later).expect("appended").forgotten, 8000);
    let rest = entries(search);
    assert_eq!(rest.len(), 3999, "the block that was being read, and nothing else");
    assert!(rest.iter().all(|gone| gone.cookie < Some(8000)));
}

#[test]
fn searching_holds_up_nobody() {
    let place = Place::new();
    let mut store = place.open();
    store.append(&batch(closed_sockets(9000), Vec::new())).expect("appended");
    let reader = place.reader();
    let mut search = reader.gone(Span::ALL, Order::NewestFirst).expect("a search");
    search.next().expect("one").expect("readable");
    let empty = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    let busy =
        store.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), empty).expect("asked");
    assert_eq!(busy, 0, "the log can be emptied in the middle of a search");
}

#[test]
fn newest_first_is_oldest_first_backwards() {
    let place = Place::new();
    let mut store = place.open();
    for part in closed_sockets(10_000).chunks(3333) {
        store.append(&batch(part.to_vec(), Vec::new())).expect("appended");
    }
    let reader = place.reader();
    let mut newest = entries(reader.gone(Span::ALL, Order::NewestFirst).expect("a search"));
    newest.reverse();
    assert_eq!(newest, closed_sockets(10_000));
}

#[test]
fn a_span_of_time_is_kept_to_the_nanosecond() {
    let place = Place::new();
    let mut store = place.open();
    for part in closed_sockets(10_000).chunks(1000) {
        store.append(&batch(part.to_vec(), Vec::new())).expect("appended");
    }
    let reader = place.reader();
    let moment = |number: u64| OFFSET.cast_unsigned() + closed_socket(number).closed_at;
    let within = |since, until| {
        let span = Span { since, until };
        let gone = entries(reader.gone(span, Order::OldestFirst).expect("a search"));
        gone.iter().filter_map(|gone| gone.cookie).collect::<Vec<_>>()
    };
    let between = within(Some(moment(2500)), Some(moment(4500)));
    assert_eq!(between, (2500..=4500).collect::<Vec<_>>());
    let inside = within(Some(moment(2500) + 1), Some(moment(4500) - 1));
    assert_eq!(inside, (2501..=4499).collect::<Vec<_>>());
    assert_eq!(within(None, Some(moment(2))), [0, 1, 2]);
    assert_eq!(within(None, Some(moment(0))), [0]);
    assert_eq!(within(Some(moment(9999)), None), [9999]);
    assert_eq!(within(None, Some(moment(0) - 1)), Vec::<u64>::new());
    assert_eq!(within(Some(moment(9998)), None), [9998, 9999]);
    assert_eq!(within(Some(moment(9999) + 1), None), Vec::<u64>::new());
    assert_eq!(within(Some(u64::MAX), Some(u64::MAX)), Vec::<u64>::new());
}

#[test]
fn gaps_are_told_if_they_touch_the_span() {
    let place = Place::new();
    let mut store = place.open();
    let gap = |from, until| Gap { from, until, reason: GapReason::Absent, lost: None };
    let gaps = vec![gap(10, 20), gap(30, 40)];
    store.append(&Batch { gaps, ..batch(Vec::new(), Vec::new()) }).expect("appended");
    let base = OFFSET.cast_unsigned();
    let from = |since, until| {
        let span = Span { since: Some(base + since), until: Some(base + until) };
        let gaps = place.reader().gaps(span).expect("read");
        gaps.iter().map(|gap| gap.entry.from).collect::<Vec<_>>()
    };
    assert_eq!(from(20, 30), [10, 30]);
    assert_eq!(from(21, 29), Vec::<u64>::new());
    assert_eq!(from(15, 16), [10]);
}

#[test]
fn nothing_is_made_where_there_is_nothing() {
    let place = Place::new();
    let refused = Reader::open(&place.path()).err();
    assert!(matches!(refused, Some(StoreError::Missing { .. })), "{refused:?}");
    std::fs::write(place.path(), b"").expect("written");
    let refused = Reader::open(&place.path()).err();
    assert!(matches!(refused, Some(StoreError::Missing { .. })), "{refused:?}");
    std::fs::write(place.path(), b"Dear diary, ".repeat(1000)).expect("written");
    let refused = Reader::open(&place.path()).err();
    assert!(matches!(refused, Some(StoreError::Damaged { .. })), "{refused:?}");
    assert_eq!(place.names(), ["history.db"], "a reader moves nothing");
}
