//! What is written is there, within its bounds, whatever happens in between.

mod bounds;
mod damaged;
mod disk;
mod full;
mod killed;
mod readers;

use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::history::{
    Found, Gap, GapReason, Gone, Order, Past, Reader, Span,
    samples::{closed_sockets, events},
};

/// Stamps of the samples begin near 0; this is what "since the epoch" adds to them.
const OFFSET: i64 = 1_700_000_000_000_000_000;

/// A directory with a history in it, perhaps.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("history.db")
    }

    fn open(&self) -> Store {
        let opened = Store::open(&self.path(), Limits::default()).expect("opened");
        assert!(opened.damaged.is_none(), "{:?}", opened.damaged);
        opened.store
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.path()).expect("opened for reading")
    }

    fn gone(&self) -> Vec<Gone> {
        entries(self.reader().gone(Span::ALL, Order::OldestFirst).expect("a search"))
    }

    fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.directory.path()).expect("listed");
        let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = names.map(|entry| name(entry.expect("an entry"))).collect();
        names.sort();
        names
    }
}

fn entries<T>(search: impl Iterator<Item = Result<Found<T>, StoreError>>) -> Vec<T> {
    search.map(|found| found.expect("readable").entry).collect()
}

fn this_boot() -> Attachment {
    Attachment { boot_id: "this boot".to_owned(), attached_at: 7 }
}

fn batch(gone: Vec<Gone>, events: Vec<Past>) -> Batch {
    Batch { gone, events, ..Batch::new(this_boot(), 1_000_000, OFFSET) }
}

#[test]
fn what_is_written_is_read_again_after_a_restart() {
    let place = Place::new();
    let written = Batch {
        gaps: vec![Gap { from: 5, until: 9, reason: GapReason::Lost, lost: Some(3) }],
        sequences: vec![(0, 17), (3, u64::MAX)],
        ..batch(closed_sockets(100), events(50))
    };
    let appended = place.open().append(&written).expect("appended");
    assert_eq!(appended, Appended { entries: 150, refused: 0, forgotten: 0 });

    let store = place.open();
    assert_eq!(store.sequences(&this_boot()).expect("read"), written.sequences);
    assert_eq!(place.gone(), written.gone);
    let reader = place.reader();
    let search = reader.events(Span::ALL, Order::OldestFirst).expect("a search");
    assert_eq!(entries(search), written.events);
    let gaps = reader.gaps(Span::ALL).expect("read");
    assert_eq!(gaps.iter().map(|gap| gap.entry).collect::<Vec<_>>(), written.gaps);
    assert_eq!((gaps[0].realtime_offset, &*gaps[0].boot), (OFFSET, "this boot"));
}

#[test]
fn sequence_numbers_are_those_of_one_attachment() {
    let place = Place::new();
    let mut store = place.open();
    let first = Batch { sequences: vec![(0, 5), (1, 6)], ..batch(Vec::new(), Vec::new()) };
    store.append(&first).expect("appended");
    let then = Batch { sequences: vec![(1, 9)], ..first.clone() };
    store.append(&then).expect("appended");
    assert_eq!(store.sequences(&this_boot()).expect("read"), [(0, 5), (1, 9)]);
    let again = Attachment { attached_at: 8, ..this_boot() };
    assert_eq!(store.sequences(&again).expect("read"), []);
    let next = Batch { attachment: again.clone(), sequences: vec![(0, 1)], ..first };
    store.append(&next).expect("appended");
    assert_eq!(store.sequences(&again).expect("read"), [(0, 1)]);
    assert_eq!(store.sequences(&this_boot()).expect("read"), [], "nobody goes on with those");
}

#[test]
fn small_batches_share_blocks() {
    let place = Place::new();
    let mut store = place.open();
    let all = closed_sockets(1000);
    for few in all.chunks(2) {
        store.append(&batch(few.to_vec(), Vec::new())).expect("appended");
    }
    assert_eq!(place.gone(), all);
    let figures = store.figures().expect("figures").gone;
    assert_eq!(figures.entries, 1000);
    assert!(figures.blocks < 20, "{figures:?}");
}

#[test]
fn blocks_are_not_shared_between_boots_and_clocks() {
    let place = Place::new();
    let mut store = place.open();
    let one = batch(closed_sockets(1), Vec::new());
    let corrected = Batch { realtime_offset: OFFSET + 900_000, ..one.clone() };
    let set = Batch { realtime_offset: OFFSET + 2_000_000, ..one.clone() };
    let other = Attachment { boot_id: "another boot".to_owned(), ..this_boot() };
    let other = Batch { attachment: other, ..set.clone() };
    for batch in [&one, &corrected, &set, &other] {
        store.append(batch).expect("appended");
    }
    let reader = place.reader();
    let found: Vec<_> = reader.gone(Span::ALL, Order::OldestFirst).expect("a search").collect();
    let found = found.into_iter().map(|found| found.expect("readable"));
    let read: Vec<_> = found.map(|f| (f.boot.to_string(), f.realtime_offset - OFFSET)).collect();
    let expected =
        [("this boot", 0), ("this boot", 0), ("this boot", 2_000_000), ("another boot", 2_000_000)];
    assert_eq!(read, expected.map(|(boot, offset)| (boot.to_owned(), offset)));
    assert_eq!(store.figures().expect("figures").gone.blocks, 3);
}

#[test]
fn entries_that_came_out_of_order_are_put_into_order() {
    let place = Place::new();
    let mut store = place.open();
    let all = closed_sockets(30);
    let mut mixed = all.clone();
    mixed.reverse();
    let (late, early) = mixed.split_at(15);
    store.append(&batch(late.to_vec(), Vec::new())).expect("appended");
    store.append(&batch(early.to_vec(), Vec::new())).expect("appended");
    assert_eq!(place.gone(), all);
}

#[test]
fn what_is_longer_than_anything_from_the_kernel_is_refused_and_counted() {
    let place = Place::new();
    let mut store = place.open();
    let mut sockets = closed_sockets(3);
    sockets[1].name = crate::model::UnixName::Pathname(vec![b'x'; 100_000]);
    let appended = store.append(&batch(sockets.clone(), Vec::new())).expect("appended");
    assert_eq!(appended, Appended { entries: 2, refused: 1, forgotten: 0 });
    sockets.remove(1);
    assert_eq!(place.gone(), sockets);
}

#[test]
fn a_second_writer_is_refused_by_name() {
    let place = Place::new();
    let store = place.open();
    let Err(refused) = Store::open(&place.path(), Limits::default()) else {
        panic!("two write at once");
    };
    assert!(
        matches!(refused, StoreError::InUse { pid: Some(pid), .. } if pid == std::process::id())
    );
    assert!(refused.to_string().ends_with(&format!("process {}", std::process::id())));
    drop(store);
    place.open();
}

#[test]
fn only_its_owner_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    std::fs::write(place.path(), b"").expect("written");
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o644)).expect("set");
    let mut store = place.open();
    store.append(&batch(closed_sockets(1), Vec::new())).expect("appended");
    let names = place.names();
    assert_eq!(names, ["history.db", "history.db-shm", "history.db-wal", "history.db.lock"]);
    for name in names {
        let facts = std::fs::metadata(place.directory.path().join(&name)).expect("there");
        assert_eq!(facts.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_gap_that_goes_on_is_one_gap() {
    let place = Place::new();
    let mut store = place.open();
    let gap = |from, until, reason, lost| Gap { from, until, reason, lost };
    let gaps = vec![
        gap(10, 20, GapReason::Lost, Some(5)),
        gap(20, 30, GapReason::Lost, Some(6)),
        gap(30, 40, GapReason::Unwritten, Some(1)),
        gap(40, 50, GapReason::Unwritten, None),
        gap(60, 70, GapReason::Unwritten, Some(2)),
    ];
    for gap in gaps {
        let batch = Batch { gaps: vec![gap], ..batch(Vec::new(), Vec::new()) };
        store.append(&batch).expect("appended");
    }
    let read = place.reader().gaps(Span::ALL).expect("read");
    assert_eq!(
        read.iter().map(|gap| gap.entry).collect::<Vec<_>>(),
        [
            gap(10, 30, GapReason::Lost, Some(11)),
            gap(30, 50, GapReason::Unwritten, None),
            gap(60, 70, GapReason::Unwritten, Some(2)),
        ]
    );
}
