//! Ctrl-C in the middle of a restore.

use std::{fs, os::unix::fs::MetadataExt as _};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ucr_tests::{Need, World, needs, outside, ucr::FAILED, wait};

use crate::{dumping::dump, world_alone};

/// Processes whose command line names the test's folder.
fn processes(world: &World) -> Vec<String> {
    let folder = world.folder().to_str().expect("text");
    let all = fs::read_dir("/proc").expect("list processes").flatten();
    all.filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(folder).then(|| format!("{} {line}", entry.path().display()))
    })
    .collect()
}

fn entries(world: &World) -> Vec<String> {
    let left = fs::read_dir(world.folder()).expect("list").flatten();
    let mut left: Vec<_> =
        left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    left.sort();
    left
}

#[test]
fn an_interrupted_restore_leaves_nothing() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let mut victim = world.victim();
    victim.ask("limit 9000");
    victim.listener("stream", &world.path_name("socket"), 3);
    victim.listener("stream", &world.abstract_name(b""), 3);
    victim.ask("pairs 1500");
    let image = world.path("image");
    let child = victim.child(&world.control());
    let saved = [victim.pid(), child.pid()];
    let _written = dump(&world, &victim, &image, &["--tree", "--kill"]).done();
    let _status = victim.ended();
    assert_eq!(processes(&world), Vec::<String>::new());
    let before = entries(&world);
    let inode = fs::metadata(world.path("socket")).expect("the old socket file").ino();

    let ran = world.path("ran").display().to_string();
    let commands = saved.map(|pid| format!("--exec={pid}=touch {ran}"));
    let image = image.display().to_string();
    for (round, signal) in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGINT].iter().enumerate() {
        let restore = world.ucr.start(&["restore", &image, &commands[0], &commands[1]]);
        wait::until("the old socket file to be moved aside", || {
            assert!(wait::is_alive(restore.pid()), "{}", restore.complaint());
            (entries(&world) != before).then_some(())
        });
        // A different moment in every round.
        for _ in 0..round * 200 {
            let _state = outside::state(restore.pid());
        }
        kill(Pid::from_raw(restore.pid()), *signal).expect("interrupt ucr");
        let answer = restore.finish().ended(FAILED);
        let _named = answer.complains("interrupted").complains(signal.as_str());
        wait::until("everything to end", || processes(&world).is_empty().then_some(()));
        assert_eq!(entries(&world), before);
        let now = fs::metadata(world.path("socket")).expect("the old socket file").ino();
        assert_eq!(now, inode, "the very same");
        assert!(!outside::is_name_taken(&world.abstract_name(b"")[1..]));
    }
}
