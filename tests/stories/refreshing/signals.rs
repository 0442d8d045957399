//! Signals that come while sockets are replaced, or because of what happens on them.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ucr_tests::{Need, needs, outside, victim::talk_both, wait};

use super::refresh;
use crate::world;

/// `SIGRTMIN + 6`
const REALTIME: i32 = 40;

#[test]
fn signals_on_their_way_arrive() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    for signal in [REALTIME, Signal::SIGUSR2 as i32] {
        victim.ask(&format!("alarms {signal}"));
        for _ in 0..5 {
            refresh(&world, victim.pid());
        }
        let counted = victim.ask("quiet");
        let (raised, missed) = counted.split_once(' ').expect("two numbers");
        assert_eq!(missed, "0", "of {raised}");
    }
    talk_both(&mut victim, a, b);
}

#[test]
fn who_is_told_by_a_signal_is_told_by_the_new_ones() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut root = world.victim();
    let (a, b) = root.pair("stream");
    let (c, d) = root.pair("seqpacket");
    let mut child = root.child(&world.control());
    child.ask("lead");
    let owners = [
        (a, format!("process {} {REALTIME}", root.pid())),
        (c, format!("group {} {}", child.pid(), REALTIME + 1)),
        (d, format!("thread {} {}", child.pid(), REALTIME + 2)),
    ];
    for (fd, owner) in &owners {
        root.ask(&format!("owner {fd} {owner}"));
    }
    for _ in 0..2 {
        refresh(&world, root.pid());
    }
    for (fd, owner) in &owners {
        assert_eq!(root.ask(&format!("ownerof {fd}")), *owner);
        root.ask(&format!("async {fd}"));
    }
    root.ask(&format!("catch {REALTIME}"));
    child.ask(&format!("catch {}", REALTIME + 1));
    child.ask(&format!("catch {}", REALTIME + 2));
    for (signal, by) in [(REALTIME, b), (REALTIME + 1, d), (REALTIME + 2, c)] {
        child.ask(&format!("send {by} something"));
        let whom = if signal == REALTIME { &mut root } else { &mut child };
        assert!(wait::holds(|| whom.ask(&format!("caught {signal}")) == "true"), "{signal}");
    }
}

#[test]
fn nobody_is_told_by_a_signal_that_the_old_ones_close() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let pid = victim.pid();
    let mut sockets = Vec::new();
    for (signal, kind) in (REALTIME..).zip(["stream", "seqpacket", "dgram"]) {
        let (a, b) = victim.pair(kind);
        victim.ask(&format!("catch {signal}"));
        for fd in [a, b] {
            victim.ask(&format!("owner {fd} process {pid} {signal}"));
            victim.ask(&format!("async {fd}"));
        }
        sockets.push((signal, a));
    }
    refresh(&world, pid);
    for (signal, fd) in sockets {
        assert_eq!(victim.ask(&format!("caught {signal}")), "false", "{signal}");
        victim.ask(&format!("send {fd} something"));
        assert_eq!(victim.ask(&format!("caught {signal}")), "true", "{signal}");
    }
}

#[test]
fn who_was_stopped_stays_stopped() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let pid = Pid::from_raw(victim.pid());
    kill(pid, Signal::SIGSTOP).expect("stop a victim");
    wait::for_state(victim.pid(), 'T');
    let before = outside::inode(victim.pid(), a);
    refresh(&world, victim.pid());
    assert_ne!(outside::inode(victim.pid(), a), before);
    wait::for_state(victim.pid(), 'T');
    kill(pid, Signal::SIGCONT).expect("let a victim go on");
    talk_both(&mut victim, a, b);
}
