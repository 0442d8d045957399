//! Nothing is lost, nothing is there twice, whatever the clock does.

use ucr_common::{
    event::Event,
    identity::SocketId,
    record::{origin, role},
};
use zerocopy::FromZeros as _;

use super::*;
use crate::history::{Found, Limits, Order, Reader, Span, Store};

const SECOND: u64 = 1_000_000_000;
/// When the machine was booted, since the epoch.
const BOOTED: u64 = 1_800_000_000 * SECOND;

fn attachment() -> Attachment {
    Attachment { boot_id: "a boot".to_owned(), attached_at: 1 }
}

/// A book that expects number 0 on CPU 0.
fn book(limit: usize) -> Book {
    let mut book = Book::new(attachment(), limit);
    book.begin(Known { next: vec![(0, 0)], until: 5 }, Vec::new(), 7);
    book
}

fn closed(number: u64, time: u64) -> TraceEvent {
    let mut raw = Event::new_zeroed();
    (raw.kind, raw.sequence, raw.time) = (kind::CLOSE, number, time);
    raw.socket = SocketId { sk: 1, cookie: number + 1, inode: number + 100 };
    let mut record = Box::new(Record::new_zeroed());
    record.socket = raw.socket;
    (raw.family, record.family) = (1, 1);
    (record.socket_type, record.state) = (1, 1);
    (record.origin, record.role) = (origin::CONNECTION, role::SERVER);
    TraceEvent { raw, directories: None, record: Some(record) }
}

fn at(boottime: u64, realtime: u64) -> Moment {
    Moment { boottime, realtime }
}

#[test]
fn what_is_heard_is_handed_over_once_with_the_numbers_that_it_covers() {
    let mut book = book(usize::MAX);
    for number in 0..3 {
        book.note(&closed(number, number + 10), Kept::Events);
    }
    assert!(book.has_news());
    let batch = book.hand_over(at(20, 30));
    assert_eq!((batch.gone.len(), batch.events.len()), (3, 3));
    assert_eq!((batch.sequences.as_slice(), batch.now), ([(0, 3)].as_slice(), 20));
    assert_eq!((batch.realtime_offset, batch.attachment), (10, attachment()));
    assert!(!book.has_news());
    let empty = book.hand_over(at(21, 31));
    assert!(empty.gone.is_empty() && empty.events.is_empty());
}

#[test]
fn what_could_not_be_taken_is_handed_over_with_what_comes_after_it() {
    let mut book = book(usize::MAX);
    book.note(&closed(0, 10), Kept::Sockets);
    let batch = book.hand_over(at(20, 20));
    book.put_back(batch);
    assert!(book.has_news());
    book.note(&closed(1, 11), Kept::Sockets);
    let batch = book.hand_over(at(21, 21));
    let inodes: Vec<_> = batch.gone.iter().map(|gone| gone.inode).collect();
    assert_eq!(inodes, [Some(100), Some(101)]);
    assert_eq!(batch.sequences, [(0, 2)]);
}

#[test]
fn it_is_full_with_what_it_may_hold() {
    let mut book = book(size_of::<Gone>() * 2);
    book.note(&closed(0, 10), Kept::Nothing);
    book.note(&closed(1, 11), Kept::Sockets);
    assert!(!book.is_full());
    book.note(&closed(2, 12), Kept::Sockets);
    assert!(book.is_full());
    let batch = book.hand_over(at(20, 20));
    assert!(!book.is_full());
    book.put_back(batch);
    assert!(book.is_full(), "what could not be taken is still there");
}

#[test]
fn events_that_are_not_kept_are_news_all_the_same() {
    let mut book = book(usize::MAX);
    let mut event = closed(0, 10);
    event.raw.kind = kind::SOCKET;
    book.note(&event, Kept::Sockets);
    assert!(book.has_news(), "without their numbers they would count as lost after a crash");
    assert!(book.hand_over(at(20, 20)).gone.is_empty());
}

#[test]
fn what_is_missing_becomes_a_gap_between_what_came() {
    let mut book = book(usize::MAX);
    book.note(&closed(0, 10), Kept::Sockets);
    book.note(&closed(4, 14), Kept::Sockets);
    assert_eq!(book.note_missing(), 3);
    book.note(&closed(9, 19), Kept::Sockets);
    assert_eq!(book.note_missing(), 4);
    let gap = Gap { from: 10, until: 19, reason: GapReason::Lost, lost: Some(7) };
    assert_eq!(book.hand_over(at(20, 20)).gaps, [gap], "one goes on where the other ended");
}

#[test]
fn what_was_lost_around_a_restart_lies_between_what_is_known() {
    let mut book = book(usize::MAX);
    book.note(&closed(3, 14), Kept::Sockets);
    assert_eq!(book.note_missing(), 3);
    let gap = Gap { from: 5, until: 14, reason: GapReason::Lost, lost: Some(3) };
    assert_eq!(book.hand_over(at(20, 20)).gaps, [gap]);
}

#[test]
fn of_tracing_that_the_history_does_not_know_all_before_is_missing() {
    let mut book = Book::new(attachment(), usize::MAX);
    book.begin(Known { next: Vec::new(), until: 3 }, vec![(0, 40)], 9);
    book.note(&closed(40, 10), Kept::Sockets);
    assert_eq!(book.note_missing(), 0);
    let gap = Gap { from: 3, until: 9, reason: GapReason::Absent, lost: None };
    assert_eq!(book.hand_over(at(20, 20)).gaps, [gap]);
}

#[test]
fn what_was_lost_last_is_missing_at_the_end() {
    let mut book = book(usize::MAX);
    book.note(&closed(0, 10), Kept::Sockets);
    book.settle(vec![(0, 6)], 30);
    assert_eq!(book.note_missing(), 5);
    let gap = Gap { from: 10, until: 30, reason: GapReason::Lost, lost: Some(5) };
    let batch = book.hand_over(at(31, 31));
    assert_eq!((batch.gaps, batch.sequences), (vec![gap], vec![(0, 6)]));
}

#[test]
fn gaps_that_cannot_be_written_do_not_pile_up() {
    let mut book = book(usize::MAX);
    for round in 0..1_000 {
        let number = 2 * round + 1;
        book.note(&closed(number, 100 * number), Kept::Nothing);
        assert_eq!(book.note_missing(), 1);
        book.absent(100 * number + 1, 100 * number + 2);
        let batch = book.hand_over(at(number, number));
        assert!(batch.gaps.len() <= GAPS, "{}", batch.gaps.len());
        book.put_back(batch);
    }
    let lost = book.hand_over(at(1, 1)).gaps.iter().filter_map(|gap| gap.lost).sum::<u64>();
    assert_eq!(lost, 1_000);
}

#[test]
fn a_socket_that_a_reconciliation_has_found_gone_is_kept() {
    let mut book = book(usize::MAX);
    let record = *closed(0, 0).record.expect("a record");
    book.note_removed(&[record], 12);
    let batch = book.hand_over(at(20, 20));
    let [gone] = batch.gone.as_slice() else { panic!("{batch:?}") };
    assert_eq!((gone.closed_at, gone.how), (12, How::Reconciled));
}

/// A socket that closes each second, while somebody sets the clock.
fn kept_under(clocks: &[u64]) -> (Vec<Found<Gone>>, u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("history.db");
    let opened = Store::open(&path, Limits::default()).expect("a history");
    let (mut store, mut book) = (opened.store, book(usize::MAX));
    for (number, clock) in (0..).zip(clocks) {
        let now = (number + 1) * SECOND;
        book.note(&closed(number, now), Kept::Sockets);
        assert_eq!(book.note_missing(), 0);
        let appended = store.append(&book.hand_over(at(now, *clock))).expect("written");
        assert_eq!((appended.entries, appended.forgotten), (1, 0), "the clock says {clock}");
    }
    let reader = Reader::open(&path).expect("opened for reading");
    let found = reader.gone(Span::ALL, Order::OldestFirst).expect("a search");
    let gaps = reader.gaps(Span::ALL).expect("the gaps").len();
    (found.map(|found| found.expect("an entry")).collect(), gaps as u64)
}

#[test]
fn a_clock_that_is_set_deletes_nothing_and_changes_no_order() {
    const YEAR: u64 = 365 * 86_400 * SECOND;
    let clocks = [BOOTED, BOOTED - 20 * YEAR, BOOTED + 20 * YEAR, 0, BOOTED, u64::MAX / 4];
    let (found, gaps) = kept_under(&clocks);
    assert_eq!(gaps, 0);
    let inodes: Vec<_> = found.iter().filter_map(|found| found.entry.inode).collect();
    assert_eq!(inodes, (100..106).collect::<Vec<_>>(), "in the order in which they closed");
    for (found, clock) in found.iter().zip(clocks) {
        let told = found.realtime(found.entry.closed_at);
        assert_eq!(told, clock, "each is told by the clock as it was then");
    }
}
