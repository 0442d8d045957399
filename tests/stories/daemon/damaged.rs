//! A damaged database is put aside and another one begun; never is it the end of the daemon.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
};

use ucr::history::GapReason;
use ucr_tests::{Need, daemon::Daemon, needs, wait};

use super::{Kept, Storm, figure, gaps, history, metrics};
use crate::world_alone;

const DAMAGED: &str = "ucr_history_damaged_databases_total";

fn is_aside(daemon: &Daemon<'_>) -> bool {
    let folder = daemon.history();
    let names = fs::read_dir(folder.parent().expect("a folder")).expect("list the folder");
    let mut names = names.map(|entry| entry.expect("an entry").file_name());
    names.any(|name| name.to_string_lossy().starts_with("history.db.damaged-"))
}

/// That all of it is told, and what comes next is kept.
fn is_begun_anew(world: &ucr_tests::World, daemon: &Daemon<'_>) {
    let [damaged] = history(daemon).damaged.try_into().expect("one");
    assert!(fs::exists(&damaged).expect("look for it"), "{damaged}");
    assert!(is_aside(daemon));
    assert_eq!(figure(&metrics(daemon), DAMAGED), 1);
    daemon.says("the history was damaged");
    let mut victim = world.victim();
    let (closed, _) = victim.pair("stream");
    let inode = victim.inode(closed);
    victim.close(closed);
    wait::until("what happens to be kept", || {
        let kept = Kept::read(&daemon.history());
        kept.gone.iter().any(|gone| gone.inode == Some(inode)).then_some(())
    });
    let gaps = gaps(&daemon.history());
    assert!(gaps.iter().any(|gap| gap.reason == GapReason::Damaged), "{gaps:?}");
    assert_eq!(history(daemon).trouble, None);
}

#[test]
fn garbage_in_place_of_the_database_is_put_aside() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let mut daemon = Daemon::configured(&world, &[]);
    let path = daemon.history();
    fs::create_dir_all(path.parent().expect("a folder")).expect("make the folder");
    fs::write(&path, b"no database at all, ".repeat(1_000)).expect("write garbage");
    daemon.begin();
    is_begun_anew(&world, &daemon);
    let [damaged] = history(&daemon).damaged.try_into().expect("one");
    assert!(fs::read(damaged).expect("read it").starts_with(b"no database"), "as it was");
    daemon.stop().done();
}

#[test]
fn pages_that_are_overwritten_while_it_runs_are_noticed_and_put_aside() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let mut daemon = Daemon::start_with(&world, &[("history.max_size", "'4MiB'")]);
    let storm = Storm::start(4_000);
    let path = daemon.history();
    wait::until("some pages", || {
        (fs::metadata(&path).is_ok_and(|facts| facts.len() > 1 << 20)).then_some(())
    });
    let file = OpenOptions::new().write(true).open(&path).expect("open the database");
    let length = file.metadata().expect("its length").len();
    for page in 1..length / 4096 {
        file.write_all_at(&[0xa5; 4096], page * 4096).expect("overwrite a page");
    }
    wait::until("the damage to be noticed", || history(&daemon).damaged.first().cloned());
    storm.calm();
    is_begun_anew(&world, &daemon);
    daemon.restart();
    assert_eq!(history(&daemon).damaged, [""; 0], "the new one is sound");
}
