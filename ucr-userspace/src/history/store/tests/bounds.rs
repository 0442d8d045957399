//! The file stays within its size and age, and the clock's jumps cost nothing.

use super::*;
use crate::history::{limits::MIN_BYTES, samples::closed_socket};

const HOUR: u64 = 3_600_000_000_000;

/// Sockets that compress badly, so that the file fills fast.
fn bulky(first: u64, count: u64) -> Vec<Gone> {
    let mut random = first | 1;
    let mut byte = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_le_bytes()[0]
    };
    let socket = |number| {
        let name = crate::model::UnixName::Abstract((0..107).map(|_| byte()).collect());
        Gone { name, ..closed_socket(number) }
    };
    (first..first + count).map(socket).collect()
}

fn small() -> Limits {
    Limits { max_bytes: MIN_BYTES, events_bytes: MIN_BYTES / 4, ..Limits::default() }
}

/// The cookies of what is there, which are its numbers.
fn numbers(place: &Place) -> Vec<u64> {
    place.gone().into_iter().filter_map(|gone| gone.cookie).collect()
}

#[test]
fn the_oldest_go_when_the_file_is_full() {
    let place = Place::new();
    let mut store = Store::open(&place.path(), small()).expect("opened").store;
    let mut forgotten = 0;
    for round in 0..60 {
        let appended = store.append(&batch(bulky(round * 1000, 1000), Vec::new()));
        forgotten += appended.expect("appended").forgotten;
        let length = std::fs::metadata(place.path()).expect("there").len();
        assert!(length <= MIN_BYTES, "{length} in round {round}");
    }
    let left = numbers(&place);
    assert!(left.len() > 15_000, "{} left", left.len());
    assert_eq!(left, (forgotten..60_000).collect::<Vec<_>>(), "the newest, without a hole");
    let figures = store.figures().expect("figures");
    assert_eq!((figures.gone.forgotten, figures.gone.entries), (forgotten, 60_000 - forgotten));
    assert!(figures.gone.bytes <= MIN_BYTES);
    let log = MIN_BYTES * 2;
    assert!(figures.file_bytes <= MIN_BYTES + log, "{figures:?}");
}

#[test]
fn events_have_what_is_free_and_their_share_when_it_is_needed() {
    let place = Place::new();
    let mut store = Store::open(&place.path(), small()).expect("opened").store;
    let noisy = |first: u64| {
        let names = bulky(first, 1000).into_iter().map(|gone| gone.name);
        let numbered = names.zip(first..);
        numbered.map(|(name, n)| Past { name, ..crate::history::samples::event(n) }).collect()
    };
    for round in 0..60 {
        store.append(&batch(Vec::new(), noisy(round * 1000))).expect("appended");
    }
    let alone = store.figures().expect("figures").events;
    assert!(alone.bytes > MIN_BYTES / 2 && alone.forgotten > 0, "{alone:?}");
    for round in 0..60 {
        store.append(&batch(bulky(round * 1000, 1000), noisy(round * 1000))).expect("appended");
    }
    let both = store.figures().expect("figures");
    let share = MIN_BYTES / 4;
    assert!((share / 2..share * 5 / 4).contains(&both.events.bytes), "{both:?}");
    assert!(both.gone.bytes > MIN_BYTES / 2, "{both:?}");
}

#[test]
fn a_limit_that_was_lowered_shrinks_the_file() {
    let place = Place::new();
    let mut store = place.open();
    for round in 0..80 {
        store.append(&batch(bulky(round * 1000, 1000), Vec::new())).expect("appended");
    }
    drop(store);
    assert!(std::fs::metadata(place.path()).expect("there").len() > MIN_BYTES * 2);
    let mut store = Store::open(&place.path(), small()).expect("opened").store;
    assert!(std::fs::metadata(place.path()).expect("there").len() <= MIN_BYTES);
    store.append(&batch(bulky(80_000, 1000), Vec::new())).expect("appended");
    let left = numbers(&place);
    assert_eq!(left.last(), Some(&80_999));
    assert_eq!(left.len() as u64, 81_000 - store.figures().expect("figures").gone.forgotten);
}

/// One socket that closed at an hour of boot time, written then.
fn closed_at(hour: u64, attachment: &Attachment, offset: i64) -> Batch {
    let gone = Gone { closed_at: hour * HOUR, cookie: Some(hour), ..closed_socket(0) };
    let now = hour * HOUR;
    Batch { gone: vec![gone], ..Batch::new(attachment.clone(), now, offset) }
}

fn hours(n: u64) -> i64 {
    i64::try_from(n * HOUR).expect("few")
}

fn a_day() -> Limits {
    Limits { max_age: Duration::from_hours(24), ..Limits::default() }
}

#[test]
fn what_is_too_old_goes_and_is_counted() {
    let place = Place::new();
    let mut store = Store::open(&place.path(), a_day()).expect("opened").store;
    // Apart enough in clock for each to have a block of its own.
    let offset = |hour: u64| OFFSET + i64::try_from(hour).expect("few") * 2_000_000;
    let mut forgotten = 0;
    for hour in 1..=40 {
        let batch = closed_at(hour, &this_boot(), offset(hour));
        forgotten += store.append(&batch).expect("appended").forgotten;
    }
    assert_eq!(numbers(&place), (16..=40).collect::<Vec<_>>());
    assert_eq!(forgotten, 15);
    assert_eq!(store.figures().expect("figures").gone.forgotten, 15);
}

#[test]
fn a_clock_that_is_set_costs_nothing_of_this_boot() {
    let place = Place::new();
    let mut store = Store::open(&place.path(), a_day()).expect("opened").store;
    let years = hours(24 * 365 * 9);
    for (hour, offset) in [(1, OFFSET), (2, OFFSET + years), (3, OFFSET - years), (4, -hours(9))] {
        let appended = store.append(&closed_at(hour, &this_boot(), offset)).expect("appended");
        assert_eq!(appended.forgotten, 0, "at hour {hour}");
    }
    assert_eq!(numbers(&place), [1, 2, 3, 4]);
}

#[test]
fn earlier_boots_age_by_the_clock_and_a_clock_set_back_makes_nothing_older() {
    let place = Place::new();
    let mut store = Store::open(&place.path(), a_day()).expect("opened").store;
    let boot = |name: &str| Attachment { boot_id: name.to_owned(), attached_at: 0 };
    // Boots of one hour each, half a day apart; boot time begins again with each.
    for (n, name) in (0..).zip(["first", "second", "third"]) {
        store.append(&closed_at(1, &boot(name), OFFSET + hours(n * 12))).expect("appended");
    }
    let boots = || {
        let reader = place.reader();
        let search = reader.gone(Span::ALL, Order::OldestFirst).expect("a search");
        search.map(|found| found.expect("readable").boot.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(boots(), ["first", "second", "third"]);
    for offset in [OFFSET - hours(24 * 365), 0, -hours(1)] {
        let set_back = closed_at(2, &boot("fourth"), offset);
        assert_eq!(store.append(&set_back).expect("appended").forgotten, 0, "{offset}");
    }
    let right = closed_at(3, &boot("fourth"), OFFSET + hours(30));
    assert_eq!(store.append(&right).expect("appended").forgotten, 1);
    assert_eq!(boots(), ["second", "third", "fourth", "fourth", "fourth", "fourth"]);
}

#[test]
fn gaps_age_too_and_there_are_only_so_many() {
    let place = Place::new();
    let mut store = Store::open(&place.path(), a_day()).expect("opened").store;
    let gap = |n: u64| Gap { from: n * 3, until: n * 3 + 1, reason: GapReason::Lost, lost: None };
    let many = Batch { gaps: (0..10_050).map(gap).collect(), ..batch(Vec::new(), Vec::new()) };
    store.append(&many).expect("appended");
    let figures = store.figures().expect("figures");
    assert_eq!((figures.gaps, figures.forgotten_gaps), (10_000, 50));
    store.append(&closed_at(30, &this_boot(), OFFSET)).expect("appended");
    let figures = store.figures().expect("figures");
    assert_eq!((figures.gaps, figures.forgotten_gaps), (0, 10_050));
}
