//! Processes of many threads, blocked, exiting, or being sent signals meanwhile.

use std::{fs, process::Stdio};

use ucr_tests::{
    Need, Perl, Program, Victim, needs, outside,
    program::{PYTHON, python},
    ucr::FAILED,
    wait,
};

use super::{count, dump};
use crate::world;

/// System call numbers of x86-64.
const RECVFROM: i64 = 45;
const ACCEPT4: i64 = 288;

/// Starts a thread that blocks in a call on a descriptor; its id.
fn blocked(victim: &mut Victim, call: &str, fd: i32, number: i64) -> i32 {
    let thread = victim.ask(&format!("thread {call} {fd}")).parse().expect("a thread id");
    wait::until("the thread to block", || {
        (outside::blocked_in(victim.pid(), thread) == Some(number)).then_some(())
    });
    thread
}

#[test]
fn threads_that_wait_at_a_socket_wait_on() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    let name = world.abstract_name(b"");
    let listener = victim.listener("stream", &name, 5);
    let (a, b) = victim.pair("seqpacket");
    let (c, d) = victim.pair("stream");
    let accepting = blocked(&mut victim, "accept", listener, ACCEPT4);
    let also_accepting = blocked(&mut victim, "accept", listener, ACCEPT4);
    let receiving = blocked(&mut victim, "recv", b, RECVFROM);
    let also_receiving = blocked(&mut victim, "recv", d, RECVFROM);

    // A call in the kernel holds the socket's file, too: no reason to refuse.
    for options in [&[][..], &["--tree"]] {
        let report = dump(&world, &victim, &world.path("image"), options).done().json();
        assert_eq!(count(&report, "confirmed"), 5, "{report:#}");
    }

    victim.ask(&format!("send {a} first"));
    assert_eq!(victim.ask(&format!("join {receiving}")), "first");
    victim.ask(&format!("send {c} second"));
    assert_eq!(victim.ask(&format!("join {also_receiving}")), "second");
    // Either may be the first to be served.
    victim.client("stream", &name);
    victim.client("stream", &name);
    for thread in [accepting, also_accepting] {
        let accepted = victim.ask(&format!("join {thread}")).parse().expect("a descriptor");
        assert_eq!(victim.name(accepted), name);
    }
}

#[test]
fn threads_that_wait_at_a_socket_end_with_it() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let listener = victim.listener("stream", &world.abstract_name(b""), 5);
    blocked(&mut victim, "accept", listener, ACCEPT4);
    let pid = victim.pid();
    let image = world.path("image");
    let _written = dump(&world, &victim, &image, &["--kill"]).done();
    assert!(!wait::is_alive(pid));
    let _status = victim.ended();
    assert!(image.exists());
}

#[test]
fn a_process_whose_first_thread_has_exited_is_refused() {
    if !needs::met(&[Need::Root, Need::Perl("threads")]) {
        return;
    }
    let world = world();
    let mut perl = Perl::start();
    perl.pair();
    perl.ask("use threads; threads->create(sub { sleep 600 })->detach; 1");
    perl.tell("syscall(60, 0)");
    wait::for_state(perl.pid(), 'Z');
    let image = world.path("image").display().to_string();
    let pid = perl.pid().to_string();
    for tree in [&[][..], &["--tree"]] {
        let arguments = [&["dump", "--pid", &pid, "-o", &image], tree].concat();
        let answer = world.ucr.run(&arguments).ended(FAILED);
        let _named = answer.complains(&format!("first thread of process {pid} has exited"));
    }
    assert!(!world.path("image").exists());
}

#[test]
fn signals_on_their_way_arrive() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    victim.pair("stream");
    // SIGRTMIN+1, of which the standard library and most wrappers know nothing, and a usual one.
    for (signal, dumps) in [(35, 20), (12, 3)] {
        victim.ask(&format!("alarms {signal}"));
        for _ in 0..dumps {
            let _written = dump(&world, &victim, &world.path("image"), &[]).done();
        }
        let counted = victim.ask("quiet");
        let (raised, missed) = counted.split_once(' ').expect("two numbers");
        assert_eq!(missed, "0", "of {raised}");
        assert_ne!(raised, "0");
    }
}

/// A process that is in `vfork` until its child, which it has made by now, is told to go on, and becomes another program.
const VFORK: &str = r#"
import ctypes, os, socket, sys
kept = socket.socketpair()
CLONE, CLONE_VFORK, SIGCHLD = 56, 0x4000, 17
if ctypes.CDLL(None).syscall(CLONE, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0) == 0:
    print("made", flush=True)
    sys.stdin.read()
    os.execvp("sleep", ["sleep", "600"])
os.wait()
"#;

/// Nothing interrupts whoever is in `vfork`: his child must not be stopped before he is.
#[test]
fn who_waits_for_its_child_in_vfork_is_stopped_when_that_goes_on() {
    if !needs::met(&[Need::Root, Need::Program(PYTHON)]) {
        return;
    }
    let world = world();
    let mut parent = Program::start_group(python(VFORK, &[]).stdin(Stdio::piped()));
    parent.says("made");
    let pid = parent.pid();
    let (own, image) = (pid.to_string(), world.path("image").display().to_string());
    let arguments = ["dump", "--tree", "--pid", &own, "-o", &image];
    let mut dump = Program::start(world.ucr.command(&arguments).stderr(Stdio::null()));
    wait::until("ucr to ask it to stop", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        (!status.contains("TracerPid:\t0\n")).then_some(())
    });
    parent.end_input();
    assert!(dump.ends().success());
    assert!(parent.is_alive());
}
