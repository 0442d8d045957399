//! Reading: beside the one who writes and without one, forwards, backwards and within a span of time.

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

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
    let all = closed_sockets(9000);
    for part in all[..6000].chunks(100) {
        store.append(&batch(part.to_vec(), Vec::new())).expect("appended");
    }
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let reader = place.reader();
        let search = reader.gone(Span::ALL, order).expect("a search");
        let mut met = Vec::new();
        for (n, found) in (6000_u64..).zip(search) {
            met.push(found.expect("readable").entry.cookie.expect("numbered"));
            if n % 100 == 0 && n < 9000 {
                let next = vec![closed_socket(n + if order == Order::NewestFirst { 0 } else { 9000 })];
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

/// Runs a story on a file system of its own, which becomes read-only between its two parts. It needs the
/// right to mount.
fn on_a_disk<T: Send>(write: impl FnOnce(&Place) -> T + Send, read: impl FnOnce(&Place, T) + Send) {
    let place = Place::new();
    let path = place.directory.path();
    let none = None::<&str>;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if unshare(CloneFlags::CLONE_NEWNS).is_err() {
                eprintln!("skipped: no right to mount a file system");
                return;
            }
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, "/", none, private, none).expect("a mount namespace of its own");
            mount(Some("none"), path, Some("tmpfs"), MsFlags::empty(), Some("size=16m"))
                .expect("mounted");
            let written = write(&place);
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(none, path, none, flags, none).expect("made read-only");
            read(&place, written);
        });
    });
}

#[test]
fn what_cannot_be_written_to_can_be_read() {
    let all = closed_sockets(5000);
    on_a_disk(
        |place| place.open().append(&batch(all.clone(), Vec::new())).map(drop).expect("appended"),
        |place, ()| assert_eq!(place.gone(), all),
    );
}

#[test]
fn beside_a_writer_also_where_only_he_can_write() {
    let all = closed_sockets(5000);
    on_a_disk(
        |place| {
            let mut store = place.open();
            store.append(&batch(all.clone(), Vec::new())).expect("appended");
            store
        },
        // The writer's files stay open for writing.
        |place, _store| assert_eq!(place.gone(), all),
    );
}

#[test]
fn what_only_the_log_has_is_not_passed_over() {
    on_a_disk(
        |place| {
            let mut store = place.open();
            store.append(&batch(closed_sockets(10), Vec::new())).expect("appended");
            let log = files::beside(&place.path(), files::LOG);
            let copies = [place.path(), log.clone()].map(|path| std::fs::read(path).expect("read"));
            drop(store);
            // As a killed writer leaves it, and without the index into the log.
            std::fs::write(place.path(), &copies[0]).expect("written");
            std::fs::write(log, &copies[1]).expect("written");
        },
        |place, ()| {
            let refused = Reader::open(&place.path()).err();
            assert!(matches!(refused, Some(StoreError::Unrecovered { .. })), "{refused:?}");
        },
    );
}

#[test]
fn a_full_disk_is_told_apart_and_recovers() {
    on_a_disk(
        |place| {
            let mut store = place.open();
            store.append(&batch(closed_sockets(10), Vec::new())).expect("appended");
            let ballast = place.directory.path().join("ballast");
            let mut bytes = 16 << 20;
            // Until not even a page more has room.
            while bytes > 0 {
                let file = std::fs::OpenOptions::new().append(true).create(true).open(&ballast);
                let written = file.and_then(|mut f| std::io::Write::write(&mut f, &vec![1; bytes]));
                bytes = written.map_or(0, |n| if n < bytes { bytes / 2 } else { bytes });
            }
            let many = batch(closed_sockets(4000), Vec::new());
            let refused = (0..50).find_map(|_| store.append(&many).err()).expect("refused");
            assert!(refused.is_passing(), "{refused:?}");
            let before = place.gone().len();
            std::fs::remove_file(ballast).expect("removed");
            store.append(&many).expect("appended");
            assert_eq!(place.gone().len(), before + 4000);
        },
        |_, ()| {},
    );
}
