//! A damaged file is put aside whole, and another one begun.

use std::{fs, path::Path};

use super::*;
use crate::history::{error::Damage, schema};

/// A history with something in it, closed in order.
fn written() -> (Place, Vec<Gone>) {
    let place = Place::new();
    let all = closed_sockets(5000);
    place.open().append(&batch(all.clone(), Vec::new())).expect("appended");
    (place, all)
}

fn change(place: &Place, at: usize, with: &[u8]) {
    let mut bytes = fs::read(place.path()).expect("read");
    bytes[at..at + with.len()].copy_from_slice(with);
    fs::write(place.path(), bytes).expect("written");
}

/// Opens it, and expects what was there to lie aside, byte for byte, and the new one to work.
fn put_aside(place: &Place) -> Damage {
    let before = fs::read(place.path()).ok();
    let opened = Store::open(&place.path(), Limits::default()).expect("opened");
    let mut store = opened.store;
    let Aside { path, why } = opened.damaged.expect("damaged");
    assert!(path.display().to_string().contains("history.db.damaged-20"), "{}", path.display());
    assert_eq!(fs::read(&path).ok(), before);
    let new = closed_sockets(3);
    store.append(&batch(new.clone(), Vec::new())).expect("appended");
    assert_eq!(place.gone(), new);
    why
}

fn sql(path: &Path, statement: &str) {
    Connection::open(path).and_then(|c| c.execute_batch(statement)).expect("executed");
}

#[test]
fn what_is_no_database_is_put_aside() {
    let place = Place::new();
    fs::write(place.path(), b"Dear diary, ".repeat(1000)).expect("written");
    assert!(matches!(put_aside(&place), Damage::Malformed(_)));
}

#[test]
fn a_file_that_was_cut_is_put_aside() {
    let (place, _) = written();
    let file = fs::OpenOptions::new().write(true).open(place.path()).expect("opened");
    file.set_len(40_000).expect("cut");
    put_aside(&place);
}

#[test]
fn pages_that_make_no_sense_are_put_aside() {
    let (place, _) = written();
    let pages = fs::metadata(place.path()).expect("there").len() / PAGE;
    // The tables' roots, one after the other; a page of numbers has no sums of its own.
    for page in 2..pages.min(12) {
        let (place, _) = written();
        change(&place, usize::try_from(page * PAGE).expect("small"), &[0xa5; 64]);
        put_aside(&place);
    }
}

#[test]
fn another_programs_database_is_put_aside() {
    let place = Place::new();
    sql(&place.path(), "PRAGMA application_id = 7; CREATE TABLE precious (x); ");
    assert!(matches!(put_aside(&place), Damage::OtherApplication { found: 7 }));
    let place = Place::new();
    sql(&place.path(), "CREATE TABLE precious (x)");
    assert!(matches!(put_aside(&place), Damage::OtherApplication { found: 0 }));
}

#[test]
fn what_no_ucr_has_written_is_put_aside() {
    let (place, _) = written();
    sql(&place.path(), "PRAGMA user_version = 0");
    assert!(matches!(put_aside(&place), Damage::Schema { found: 0 }));
}

#[test]
fn a_log_without_its_database_is_put_aside() {
    let place = Place::new();
    let log = files::beside(&place.path(), files::LOG);
    fs::write(&log, b"left alone").expect("written");
    assert!(matches!(put_aside(&place), Damage::Headless));
    let names = place.names();
    assert!(
        names.iter().any(|name| name.contains(".damaged-") && name.ends_with("-wal")),
        "{names:?}"
    );
}

#[test]
fn what_belongs_to_it_goes_with_it() {
    let (place, _) = written();
    change(&place, 0, b"Not a database");
    fs::write(files::beside(&place.path(), files::LOG), b"its log").expect("written");
    let opened = Store::open(&place.path(), Limits::default()).expect("opened");
    let aside = opened.damaged.expect("damaged").path;
    assert_eq!(fs::read(files::beside(&aside, files::LOG)).expect("read"), b"its log");
}

#[test]
fn nothing_that_was_put_aside_is_overwritten() {
    let place = Place::new();
    let mut asides = Vec::new();
    for content in ["one", "two", "three"] {
        for suffix in ["", "-wal", "-shm"] {
            fs::remove_file(files::beside(&place.path(), suffix)).ok();
        }
        fs::write(place.path(), content.repeat(1000)).expect("written");
        let opened = Store::open(&place.path(), Limits::default()).expect("opened");
        asides.push((opened.damaged.expect("damaged").path, content));
    }
    for (path, content) in asides {
        assert_eq!(fs::read_to_string(path).expect("read"), content.repeat(1000));
    }
}

#[test]
fn a_newer_one_is_refused_and_left_alone() {
    let (place, all) = written();
    sql(&place.path(), "PRAGMA user_version = 2");
    let before = fs::read(place.path()).expect("read");
    let refusals =
        [Store::open(&place.path(), Limits::default()).err(), Reader::open(&place.path()).err()];
    for refused in refusals {
        let refused = refused.expect("refused");
        assert!(matches!(refused, StoreError::TooNew { found: 2, supported: schema::VERSION, .. }));
    }
    assert_eq!(fs::read(place.path()).expect("read"), before);
    sql(&place.path(), "PRAGMA user_version = 1");
    drop(place.open());
    assert_eq!(place.gone(), all);
}

#[test]
fn what_is_no_file_is_refused() {
    let place = Place::new();
    fs::create_dir(place.path()).expect("made");
    let refused = Store::open(&place.path(), Limits::default()).err();
    assert!(matches!(refused, Some(StoreError::NotRegular { .. })), "{refused:?}");
    fs::remove_dir(place.path()).expect("removed");
    std::os::unix::fs::symlink("/dev/null", place.path()).expect("linked");
    let refused = Store::open(&place.path(), Limits::default()).err();
    assert!(matches!(refused, Some(StoreError::NotRegular { .. })), "{refused:?}");
}

#[test]
fn a_damaged_block_is_skipped_and_counted() {
    let place = Place::new();
    let mut store = place.open();
    let all = closed_sockets(9000);
    for part in all.chunks(3000) {
        store.append(&batch(part.to_vec(), Vec::new())).expect("appended");
    }
    drop(store);
    let spoil = "UPDATE blocks SET body = zeroblob(length(body)) WHERE id = 2";
    sql(&place.path(), spoil);
    let reader = place.reader();
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let mut search = reader.gone(Span::ALL, order).expect("a search");
        let mut read = entries(&mut search);
        assert_eq!(
            search.unreadable(),
            crate::history::search::Unreadable { blocks: 1, entries: 3000 }
        );
        read.sort_by_key(|gone| gone.closed_at);
        assert_eq!(read, [&all[..3000], &all[6000..]].concat());
    }
}

#[test]
fn a_last_block_that_is_damaged_is_not_written_over() {
    let place = Place::new();
    let mut store = place.open();
    store.append(&batch(closed_sockets(2), Vec::new())).expect("appended");
    sql(&place.path(), "UPDATE blocks SET body = x'00'");
    let appended = store.append(&batch(closed_sockets(3), Vec::new())).expect("appended");
    assert_eq!(appended.entries, 3);
    assert_eq!(place.gone(), closed_sockets(3));
    assert_eq!(store.figures().expect("figures").gone.blocks, 2);
}
