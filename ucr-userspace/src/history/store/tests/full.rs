//! No room: nothing is half done, and what could not be written can be written later.

use super::*;

/// Lets the file become no larger than it is, as a full disk does.
fn fill(store: &Store) {
    let pages: i64 =
        store.connection.query_row("PRAGMA page_count", (), |row| row.get(0)).expect("counted");
    limit(store, pages);
}

fn limit(store: &Store, pages: i64) {
    let query = format!("PRAGMA max_page_count = {pages}");
    store.connection.query_row(&query, (), |_| Ok(())).expect("limited");
}

#[test]
fn a_batch_without_room_is_not_written_at_all_and_can_be_written_later() {
    let place = Place::new();
    let mut store = place.open();
    let all = closed_sockets(20_000);
    let (first, second) = all.split_at(10_000);
    let part = |gone: &[Gone], next| Batch {
        sequences: vec![(0, next)],
        ..batch(gone.to_vec(), events(10))
    };
    store.append(&part(first, 10_000)).expect("appended");
    let before = store.figures().expect("figures");
    fill(&store);
    let late = part(second, 20_000);
    for _ in 0..3 {
        let refused = store.append(&late).expect_err("no room");
        assert!(matches!(refused, StoreError::Full { .. }) && refused.is_passing(), "{refused:?}");
        assert_eq!(place.gone(), first);
        assert_eq!(store.sequences(&this_boot()).expect("read"), [(0, 10_000)]);
        let after = store.figures().expect("figures");
        assert_eq!((after.gone, after.events), (before.gone, before.events));
    }
    limit(&store, 1 << 20);
    store.append(&late).expect("appended");
    assert_eq!(place.gone(), all);
    assert_eq!(store.sequences(&this_boot()).expect("read"), [(0, 20_000)]);
}

#[test]
fn what_has_room_is_not_written_without_what_has_none() {
    let place = Place::new();
    let mut store = place.open();
    let few = Batch { sequences: vec![(0, 2)], ..batch(closed_sockets(2), Vec::new()) };
    store.append(&few).expect("appended");
    fill(&store);
    let much = Batch { sequences: vec![(0, 9)], ..batch(closed_sockets(3), events(50_000)) };
    let refused = store.append(&much).expect_err("no room");
    assert!(matches!(refused, StoreError::Full { .. }), "{refused:?}");
    assert_eq!(place.gone(), few.gone);
    assert_eq!(store.sequences(&this_boot()).expect("read"), few.sequences);
}

#[test]
fn what_was_given_up_is_counted_as_a_gap() {
    let place = Place::new();
    let mut store = place.open();
    store.append(&batch(closed_sockets(10), Vec::new())).expect("appended");
    fill(&store);
    let lost = closed_sockets(10_000);
    store.append(&batch(lost.clone(), Vec::new())).expect_err("no room");
    limit(&store, 1 << 20);
    let gap = Gap {
        from: lost[0].closed_at,
        until: lost[9_999].closed_at,
        reason: GapReason::Unwritten,
        lost: Some(10_000),
    };
    store.append(&Batch { gaps: vec![gap], ..batch(Vec::new(), Vec::new()) }).expect("appended");
    let gaps = place.reader().gaps(Span::ALL).expect("read");
    assert_eq!(gaps.iter().map(|gap| gap.entry).collect::<Vec<_>>(), [gap]);
}

#[test]
fn a_reader_that_does_not_end_does_not_fill_the_disk() {
    let place = Place::new();
    let mut store = place.open();
    store.append(&batch(closed_sockets(10), Vec::new())).expect("appended");
    store.longest_log = 1 << 20;
    let reader = Connection::open(place.path()).expect("opened");
    reader.execute_batch("BEGIN; SELECT count(*) FROM blocks").expect("begun");
    let refused =
        (0..1000).find_map(|_| store.append(&batch(closed_sockets(4000), Vec::new())).err());
    let refused = refused.expect("refused");
    assert!(matches!(refused, StoreError::HeldBack { .. }) && refused.is_passing(), "{refused:?}");
    let log = files::length(&files::beside(&place.path(), files::LOG));
    assert!(log < 2 << 20, "{log}");
    drop(reader);
    store.append(&batch(closed_sockets(4000), Vec::new())).expect("appended");
}
