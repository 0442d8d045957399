//! Disks that are full, or cannot be written to. These stories need the right to mount.

use std::{env, fs::OpenOptions, io::Write as _};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::*;

const NOTHING: Option<&str> = None;

/// Tells a story in a mount namespace of its own, where there may be one. Where not, that is said as the
/// stories of the integration tests say it.
fn privately(place: &Place, story: impl FnOnce(&Place) + Send) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let told = std::thread::scope(|scope| {
        let teller = scope.spawn(|| {
            if unshare(CloneFlags::CLONE_NEWNS).is_err() {
                return false;
            }
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(NOTHING, "/", NOTHING, private, NOTHING).expect("told apart");
            story(place);
            true
        });
        teller.join().expect("told to its end")
    });
    if told {
        return;
    }
    assert!(env::var_os("UCR_NO_SKIP").is_none(), "{test} cannot run here: needs root");
    if let Some(path) = env::var_os("UCR_SKIPPED") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let line = format!("{test}\tneeds root\n");
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("noted");
    }
}

/// Puts the place on a disk of 16 MiB, for this story only.
fn shrink_disk(place: &Place) {
    let size = Some("size=16m");
    let path = place.directory.path();
    mount(Some("none"), path, Some("tmpfs"), MsFlags::empty(), size).expect("mounted");
}

/// From now on nothing can be written there, but by who has it open.
fn protect(place: &Place) {
    let path = place.directory.path();
    mount(Some(path), path, NOTHING, MsFlags::MS_BIND, NOTHING).expect("mounted once more");
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(NOTHING, path, NOTHING, flags, NOTHING).expect("made read-only");
}

#[test]
fn what_cannot_be_written_to_can_be_read() {
    let all = closed_sockets(5000);
    privately(&Place::new(), |place| {
        shrink_disk(place);
        place.open().append(&batch(all.clone(), Vec::new())).expect("appended");
        protect(place);
        assert_eq!(place.gone(), all);
        let refused = Store::open(&place.path(), Limits::default()).err();
        assert!(matches!(refused, Some(StoreError::Io { .. })), "{refused:?}");
    });
}

#[test]
fn a_history_is_read_beside_its_writer_also_by_who_cannot_write() {
    let place = Place::new();
    let writer = killed::Victim::new(&place);
    privately(&place, |place| {
        protect(place);
        let (gone, events) = killed::numbers(place);
        assert!(gone.len() > 300, "{}", gone.len());
        let count = u64::try_from(gone.len()).expect("not that many");
        assert_eq!(gone, (0..count).collect::<Vec<_>>());
        assert!(events.starts_with(&gone), "events were read later");
    });
    drop(writer);
}

#[test]
fn what_only_the_log_has_is_not_passed_over() {
    privately(&Place::new(), |place| {
        shrink_disk(place);
        let mut store = place.open();
        store.append(&batch(closed_sockets(10), Vec::new())).expect("appended");
        let log = files::beside(&place.path(), files::LOG);
        let copies = [place.path(), log.clone()].map(|path| std::fs::read(path).expect("read"));
        drop(store);
        // As a killed writer leaves it, and without the index into the log.
        std::fs::write(place.path(), &copies[0]).expect("written");
        std::fs::write(log, &copies[1]).expect("written");
        protect(place);
        let refused = Reader::open(&place.path()).err();
        assert!(matches!(refused, Some(StoreError::Unrecovered { .. })), "{refused:?}");
    });
}

#[test]
fn a_full_disk_is_told_apart_and_recovers() {
    privately(&Place::new(), |place| {
        shrink_disk(place);
        let mut store = place.open();
        store.append(&batch(closed_sockets(10), Vec::new())).expect("appended");
        let ballast = place.directory.path().join("ballast");
        let mut bytes = 16 << 20;
        // Until not even a page more has room.
        while bytes > 0 {
            let file = OpenOptions::new().append(true).create(true).open(&ballast);
            let written = file.and_then(|mut f| f.write(&vec![1; bytes]));
            bytes = written.map_or(0, |n| if n < bytes { bytes / 2 } else { bytes });
        }
        let many = batch(closed_sockets(4000), Vec::new());
        let refused = (0..50).find_map(|_| store.append(&many).err()).expect("refused");
        assert!(refused.is_passing(), "{refused:?}");
        let before = place.gone().len();
        std::fs::remove_file(ballast).expect("removed");
        store.append(&many).expect("appended");
        assert_eq!(place.gone().len(), before + 4000);
    });
}
