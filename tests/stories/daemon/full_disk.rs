//! A disk without room: the daemon goes on, says what is the matter, and what is missing.

use std::{
    fs::{self, File},
    io::Write as _,
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use ucr::history::GapReason;
use ucr_tests::{
    Need, World,
    daemon::Daemon,
    needs,
    ucr::{DONE, Started},
    wait,
};

use super::{EVENTS_OF_PAIR, Kept, figure, gaps, history, metrics, missing, status};
use crate::world_alone;

/// Lets a test mount what nobody else sees: in a thread with a mount namespace of its own, as has all that it
/// starts.
fn alone(test: fn()) {
    let apart = move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let (nothing, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(nothing, "/", nothing, private, nothing).expect("keep it to ourselves");
        test();
    };
    if let Err(panic) = thread::spawn(apart).join() {
        resume_unwind(panic);
    }
}

/// A small disk at a folder.
struct SmallDisk(PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _gone = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

impl SmallDisk {
    fn at(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("make the folder");
        let size = Some("size=6m,mode=0700");
        mount(Some("none"), folder, Some("tmpfs"), MsFlags::empty(), size).expect("mount a tmpfs");
        Self(folder.to_owned())
    }

    fn of(daemon: &Daemon<'_>) -> Self {
        Self::at(daemon.history().parent().expect("a folder"))
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).expect("make a file");
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).expect("make room");
    }
}

/// Pairs until it is noticed that they cannot be written.
fn make_trouble(world: &World, daemon: &Daemon<'_>) {
    let mut victim = world.victim();
    wait::until("the disk to be full", || {
        victim.pair("stream");
        history(daemon).trouble
    });
}

#[test]
fn a_full_disk_costs_entries_that_are_counted_and_nothing_else() {
    if needs::met(&[Need::Root]) {
        alone(goes_on_without_room);
    }
}

fn goes_on_without_room() {
    let world = world_alone();
    let mut daemon = Daemon::configured(&world, &[]);
    let disk = SmallDisk::of(&daemon);
    daemon.begin();
    disk.fill();
    make_trouble(&world, &daemon);

    // It follows, and answers, and says what is the matter.
    let mut victim = world.victim();
    let pid = victim.pid().to_string();
    let mut follower = daemon.follow(&["--pid", &pid]);
    let events = status(&daemon).events;
    let unkept = history(&daemon).unkept;
    let (closed, _) = victim.pair("stream");
    victim.close(closed);
    follower.next("close");
    assert!(status(&daemon).events >= events + EVENTS_OF_PAIR - 1);
    wait::until("what is not kept to be counted", || {
        (history(&daemon).unkept > unkept).then_some(())
    });
    let mut command = world.ucr.command(&["status", "--json"]);
    daemon.pointed(&mut command, "auto");
    let told = Started::new(command).finish().ended(DONE).json();
    let trouble = told["daemon"]["history"]["trouble"].as_str().unwrap_or_default();
    assert!(trouble.contains("no room"), "{told:#}");
    let text = metrics(&daemon);
    let errors = ["full", "unwritable"].map(|reason| {
        figure(&text, &format!("ucr_history_write_errors_total{{reason=\"{reason}\"}}"))
    });
    assert!(errors.iter().sum::<u64>() > 0, "{text}");
    daemon.says("what happens is not kept");

    disk.make_room();
    wait::until("the history to go on", || history(&daemon).trouble.is_none().then_some(()));
    daemon.says("the history is written again");
    let unkept = history(&daemon).unkept;
    let kept = gaps(&daemon.history());
    assert_eq!(missing(&kept, GapReason::Unwritten), unkept, "{kept:?}");
    assert_eq!(missing(&kept, GapReason::Lost), 0, "{kept:?}");
    // What comes now is there.
    let (closed, _) = victim.pair("stream");
    let inode = victim.inode(closed);
    victim.close(closed);
    wait::until("what happens to be kept again", || {
        let kept = Kept::read(&daemon.history());
        kept.gone.iter().any(|gone| gone.inode == Some(inode)).then_some(())
    });
    assert_eq!(history(&daemon).unkept, unkept);
    daemon.stop().done();
}

#[test]
fn a_daemon_that_finds_the_disk_full_follows_all_the_same() {
    if needs::met(&[Need::Root]) {
        alone(begins_without_room);
    }
}

fn begins_without_room() {
    let world = world_alone();
    let mut daemon = Daemon::configured(&world, &[]);
    let disk = SmallDisk::of(&daemon);
    disk.fill();
    daemon.begin();
    assert!(history(&daemon).trouble.is_some(), "{:?}", history(&daemon));
    make_trouble(&world, &daemon);
    disk.make_room();
    wait::until("the history to go on", || history(&daemon).trouble.is_none().then_some(()));
    let kept = gaps(&daemon.history());
    assert_eq!(missing(&kept, GapReason::Unwritten), history(&daemon).unkept, "{kept:?}");
    assert!(kept.iter().any(|gap| gap.reason == GapReason::Absent), "{kept:?}");
    daemon.stop().done();
}
