//! Targets that die at the wrong moment.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ucr_tests::{
    Need, needs, outside,
    ucr::{DONE, FAILED},
    wait,
};

use crate::world_alone;

/// When the target is killed.
enum Moment {
    /// As soon as ucr has begun.
    Start,
    /// As soon as it stands still, and so many looks later.
    Frozen(u32),
}

#[test]
fn a_target_killed_in_mid_dump_is_an_error_and_leaves_no_half_of_an_image() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    world.ucr.attach();
    let mut outcomes = [0; 2];
    for round in 0..12 {
        let mut victim = world.victim();
        victim.ask("limit 4096");
        victim.ask("pairs 1500");
        let image = world.path("image");
        let pid = victim.pid();
        let arguments =
            ["dump".to_owned(), format!("--pid={pid}"), format!("--output={}", image.display())];
        let dump = world.ucr.start(&arguments);
        let moment = if round == 0 { Moment::Start } else { Moment::Frozen(round * 40) };
        if let Moment::Frozen(looks) = moment {
            let is_over = || dump_is_over(dump.pid());
            wait::until("the target to stand still", || {
                (outside::state(pid) == Some('t') || is_over()).then_some(())
            });
            // Each look is a system call: a different moment in every round.
            for _ in 0..looks {
                let _state = outside::state(pid);
            }
        }
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill the target");
        let answer = dump.finish();
        assert!(!answer.stderr.contains("panicked"), "{}", answer.stderr);
        match answer.code {
            Some(DONE) => {
                // It was fast enough: then the image is whole.
                let name = image.to_str().expect("text");
                let shown = world.ucr.run(&["show", "--json", name]).done().json();
                assert_eq!(shown["sockets"].as_array().map(Vec::len), Some(3000));
                std::fs::remove_file(&image).expect("remove the image");
                outcomes[0] += 1;
            }
            Some(FAILED) => {
                assert!(!image.exists(), "{}", answer.stderr);
                assert!(answer.stderr.contains(&pid.to_string()), "{}", answer.stderr);
                outcomes[1] += 1;
            }
            other => panic!("{other:?}: {}{}", answer.stdout, answer.stderr),
        }
        let _status = victim.ended();
    }
    assert!(outcomes[1] > 0, "the target was never killed in time: {outcomes:?}");
    let left = std::fs::read_dir(world.folder()).expect("list").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().contains("control")), "{left:?}");
}

#[test]
fn a_child_killed_in_mid_dump_is_not_left_out_in_silence() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let mut victim = world.victim();
    victim.ask("limit 9000");
    // They take a while to list: meanwhile the child can die unread.
    victim.ask("pairs 2000");
    let image = world.path("image");
    let name = image.display().to_string();
    let arguments = ["dump", "--tree", "--pid", &victim.pid().to_string(), "-o", &name];
    let mut noticed = 0;
    for round in 0..8 {
        let mut child = victim.child(&world.control());
        let (listener, _) = (child.socket("seqpacket"), child.socket("stream"));
        let inode = child.inode(listener);
        let dump = world.ucr.start(&arguments);
        wait::until("the child to stand still", || {
            (outside::state(child.pid()) == Some('t') || dump_is_over(dump.pid())).then_some(())
        });
        for _ in 0..round * 10 {
            let _state = outside::state(child.pid());
        }
        kill(Pid::from_raw(child.pid()), Signal::SIGKILL).expect("kill the child");
        let answer = dump.finish();
        match answer.code {
            Some(DONE) => {
                let shown = world.ucr.run(&["show", "--json", &name]).done().json();
                let sockets = shown["sockets"].as_array().expect("a list");
                // One that died before all stood still was never there; later, it must be.
                if sockets.len() != 4000 {
                    assert_eq!(sockets.len(), 4002, "{}", answer.stderr);
                    assert!(sockets.iter().any(|socket| socket["inode"] == inode));
                }
                std::fs::remove_file(&image).expect("remove the image");
            }
            Some(FAILED) => {
                let answer = answer.complains(&format!("process {}", child.pid()));
                assert!(!image.exists(), "{}", answer.stderr);
                noticed += 1;
            }
            other => panic!("{other:?}: {}{}", answer.stdout, answer.stderr),
        }
        // The others go on.
        victim.ask("counter");
    }
    assert!(noticed > 0, "the child was never killed in time");
}

fn dump_is_over(pid: i32) -> bool {
    !wait::is_alive(pid)
}

#[test]
fn a_dump_that_is_killed_lets_the_target_go_on() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let mut victim = world.victim();
    victim.ask("limit 9000");
    victim.ask("pairs 3000");
    let pid = format!("--pid={}", victim.pid());
    let image = format!("--output={}", world.path("image").display());
    for signal in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM] {
        let dump = world.ucr.start(&["dump", &pid, &image]);
        wait::until("the target to stand still", || {
            (outside::state(victim.pid()) == Some('t') || !wait::is_alive(dump.pid())).then_some(())
        });
        kill(Pid::from_raw(dump.pid()), signal).expect("signal ucr");
        let _answer = dump.finish();
        // It answers.
        victim.ask("counter");
    }
    let left = std::fs::read_dir(world.folder()).expect("list").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".ucr")), "{left:?}");
}
