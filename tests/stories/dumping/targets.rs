//! Processes that cannot be dumped, and processes that must not notice that they were.

use std::{
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    process::Command,
};

use nix::{
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{Pid, gettid},
};
use ucr_tests::{
    Need, needs,
    ucr::{FAILED, REFUSED, USAGE},
    wait,
};

use super::{dump, socket};
use crate::world;

#[test]
fn a_process_that_does_not_exist() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let image = world.path("image").display().to_string();
    for pid in ["2147483647", "4194305"] {
        let answer = world.ucr.run(&["dump", "--pid", pid, "-o", &image]).ended(FAILED);
        let _named = answer.complains(&format!("process {pid} does not exist"));
    }
    for pid in ["0", "-1", "x"] {
        let pid = format!("--pid={pid}");
        let _usage = world.ucr.run(&["dump", &pid, "-o", &image]).ended(USAGE);
    }
    assert!(!world.path("image").exists());
}

#[test]
fn ucr_itself() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let image = world.path("image").display().to_string();
    let program = world.ucr.command(&[] as &[&str]).get_program().display().to_string();
    let scripts = [
        // The shell becomes ucr, with the pid that it has named before.
        format!("exec {program} dump --pid $$ -o {image}"),
        // And as a child of what is to be dumped.
        format!("{program} dump --tree --pid $$ -o {image}; exit $?"),
    ];
    for script in scripts {
        let output = Command::new("sh").args(["-c", &script]).output().expect("run a shell");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(FAILED), "{said}");
        assert!(said.contains("is ucr itself"), "{said}");
    }
}

#[test]
fn a_zombie() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let zombie = victim.ask("zombie");
    let image = world.path("image").display().to_string();
    let answer = world.ucr.run(&["dump", "--pid", &zombie, "-o", &image]).ended(FAILED);
    let _named = answer.complains("has exited");
}

#[test]
fn a_zombie_in_the_tree_is_no_obstacle() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let mut child = victim.child(&world.control());
    let own = child.socket("stream");
    victim.ask("zombie");
    child.ask("zombie");
    let image = world.path("image");
    let report = dump(&world, &victim, &image, &["--tree"]).done().json();
    assert_eq!(report["processes"], 2);
    socket(&report, child.inode(own));
    let _written = dump(&world, &victim, &image, &["--tree", "--kill"]).done();
    assert!(!wait::is_alive(child.pid()) && !wait::is_alive(victim.pid()));
}

#[test]
fn a_process_that_somebody_traces() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let victim = world.victim();
    let pid = Pid::from_raw(victim.pid());
    ptrace::seize(pid, ptrace::Options::empty()).expect("trace the victim");
    let answer = dump(&world, &victim, &world.path("image"), &[]).ended(FAILED);
    // The tracer is a thread, this one.
    let _named = answer.complains(&format!("traced by process {}", gettid()));
    ptrace::interrupt(pid).expect("stop the victim");
    waitpid(pid, None).expect("see it stop");
    ptrace::detach(pid, None).expect("let it go");
}

#[test]
fn nobody_may_not_and_learns_what_it_takes() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let roots = world.victim();
    for pid in [roots.pid(), 1] {
        let pid = pid.to_string();
        let answer = world.ucr.run_as_nobody(&["dump", "--pid", &pid, "-o", "/tmp/never"]);
        let _hinted = answer.ended(FAILED).complains("root");
    }
}

#[test]
fn root_may_dump_what_nobody_has() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let folder = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(world.folder(), folder).expect("let others in");
    let mut own = world.victim_as_nobody();
    let (a, _) = own.pair("stream");
    let report = dump(&world, &own, &world.path("image"), &[]).done().json();
    socket(&report, own.inode(a));
}

#[test]
fn the_target_counts_on() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    victim.ask("count");
    let image = world.path("image");
    for _ in 0..3 {
        let _written = dump(&world, &victim, &image, &["--leave-running"]).done();
        let before: u64 = victim.ask("counter").parse().expect("a number");
        wait::until("the counter to go on", || {
            let now: u64 = victim.ask("counter").parse().expect("a number");
            assert!(now < u64::MAX, "a call was interrupted");
            (now > before).then_some(())
        });
    }
    victim.ask(&format!("send {a} on"));
    assert_eq!(victim.ask(&format!("recv {b}")), "on");
}

#[test]
fn a_stopped_target_stays_stopped() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    victim.pair("stream");
    let pid = Pid::from_raw(victim.pid());
    kill(pid, Signal::SIGSTOP).expect("stop the victim");
    wait::for_state(victim.pid(), 'T');
    let report = dump(&world, &victim, &world.path("image"), &[]).done().json();
    assert_eq!(report["sockets"].as_array().expect("sockets").len(), 2);
    // The kernel wakes it to let it stop again.
    wait::for_state(victim.pid(), 'T');
    kill(pid, Signal::SIGCONT).expect("continue the victim");
    victim.socket("stream");
}

#[test]
fn a_target_without_sockets_gives_an_empty_image() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let victim = world.victim();
    let image = world.path("image");
    let report = dump(&world, &victim, &image, &[]).done().json();
    assert_eq!(report["sockets"].as_array().expect("sockets").len(), 0);
    let shown = world.ucr.run(&["show", "--json", image.to_str().expect("text")]).done();
    assert_eq!(shown.json()["processes"][0]["pid"], victim.pid());
}

#[test]
fn killed_once_the_image_is_written() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let child = victim.child(&world.control());
    victim.pair("stream+cloexec");
    // A second thread: of the first one's end a tracer hears only after all others'.
    victim.ask("count");
    let image = world.path("image");
    let _written = dump(&world, &victim, &image, &["--tree", "--kill"]).done();
    assert!(!wait::is_alive(child.pid()) && !wait::is_alive(victim.pid()));
    assert_eq!(victim.ended().signal(), Some(Signal::SIGKILL as i32));
    assert!(image.exists());
}

#[test]
fn not_killed_if_there_is_no_image() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    victim.pair("stream");
    let nowhere = world.path("no/such/folder/image");
    let _failed = dump(&world, &victim, &nowhere, &["--kill"]).ended(FAILED);
    victim.socket("packet");
    let _refused = dump(&world, &victim, &world.path("image"), &["--kill"]).ended(REFUSED);
    victim.socket("stream");
}
