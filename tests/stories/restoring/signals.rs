//! Who is told of a socket's events by a signal is told again.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use ucr_tests::{Need, Victim, World, needs, ucr::REFUSED, wait};

use super::{bring_back, take};
use crate::{dumping::dump, world};

/// Two that a process may use as it likes, and one with a queue.
const USR1: i32 = 10;
const USR2: i32 = 12;
const REALTIME: i32 = 40;

/// Something happens on a socket, and its owner hears of it.
fn tells(by: &mut Victim, fd: i32, whom: &mut Victim, signal: i32) {
    whom.ask(&format!("catch {signal}"));
    assert_eq!(whom.ask(&format!("caught {signal}")), "false");
    by.ask(&format!("send {fd} something"));
    is_told(whom, signal);
}

fn is_told(victim: &mut Victim, signal: i32) {
    let caught = || victim.ask(&format!("caught {signal}")) == "true";
    assert!(wait::holds(caught), "no signal {signal}");
}

#[test]
fn a_process_is_told_of_its_own_sockets_again() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let pid = victim.pid();
    let (a, b) = victim.pair("stream");
    // By default it is SIGIO, which ends who does not expect it: it is not switched on.
    let (c, _) = victim.pair("dgram");
    victim.ask(&format!("owner {b} process {pid} {REALTIME}"));
    victim.ask(&format!("async {b}"));
    victim.ask(&format!("owner {c} thread {pid} 0"));
    // Of somebody who is gone nothing is left, but for the signal.
    let mut gone = Command::new("cat").stdin(Stdio::piped()).spawn().expect("start a process");
    let (d, _) = victim.pair("stream");
    victim.ask(&format!("owner {d} process {} {USR2}", gone.id()));
    drop(gone.stdin.take());
    gone.wait().expect("reap");
    let mut victim = bring_back(&world, &take(&world, victim));
    let new = victim.pid();
    assert_ne!(new, pid);
    assert_eq!(victim.ask(&format!("ownerof {b}")), format!("process {new} {REALTIME}"));
    assert_eq!(victim.ask(&format!("ownerof {c}")), format!("thread {new} 0"));
    let left = victim.ask(&format!("ownerof {d}"));
    assert!(left.ends_with(&format!(" 0 {USR2}")), "{left}");
    victim.ask(&format!("catch {REALTIME}"));
    victim.ask(&format!("send {a} something"));
    is_told(&mut victim, REALTIME);
}

#[test]
fn a_tree_tells_each_other_again() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut root = world.victim();
    let (a, b) = root.pair("stream");
    let (c, d) = root.pair("seqpacket");
    let mut child = root.child(&world.control());
    child.ask("lead");
    let saved = [root.pid(), child.pid()];
    root.ask(&format!("owner {a} process {} {USR1}", child.pid()));
    root.ask(&format!("async {a}"));
    root.ask(&format!("owner {c} group {} {USR2}", child.pid()));
    root.ask(&format!("async {c}"));
    let image = take(&world, root);
    let (mut victims, restore) = world.restore(&image, &saved);
    let (mut child, mut root) = (victims.pop().expect("two"), victims.pop().expect("two"));
    let new = child.pid();
    assert_eq!(root.ask(&format!("ownerof {a}")), format!("process {new} {USR1}"));
    assert_eq!(root.ask(&format!("ownerof {c}")), format!("group {new} {USR2}"));
    tells(&mut root, b, &mut child, USR1);
    tells(&mut root, d, &mut child, USR2);
    world.keep(restore);
}

#[test]
fn somebody_outside_is_told_again_if_he_is_there() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (mut victim, mut other) = (world.victim(), world.victim());
    let (a, b) = victim.pair("stream");
    victim.ask(&format!("owner {b} process {} {USR1}", other.pid()));
    victim.ask(&format!("async {b}"));
    let image = take(&world, victim);
    let mut victim = bring_back(&world, &image);
    assert_eq!(victim.ask(&format!("ownerof {b}")), format!("process {} {USR1}", other.pid()));
    tells(&mut victim, a, &mut other, USR1);
    drop(victim);

    let owner = other.pid();
    other.kill();
    refused(&world, &image, &format!("tells process {owner} by a signal, which is gone"));
}

fn refused(world: &World, image: &Path, words: &str) {
    let path = image.display().to_string();
    let answer = world.ucr.run(&["restore", &path, "--", "true"]).ended(REFUSED);
    let _named = answer.complains(words);
}

/// Nobody but those who were in the group hears of it: not the shell that ucr was started from.
#[test]
fn a_group_that_ucr_does_not_lead_is_not_told() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, _) = victim.pair("stream");
    victim.ask("lead");
    victim.ask(&format!("owner {a} group {} 0", victim.pid()));
    let image = take(&world, victim);
    refused(&world, &image, "ucr leads no process group");
}

#[test]
fn a_thread_that_no_other_process_has_is_refused() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let thread = victim.number(&format!("thread recv {a}"));
    victim.ask(&format!("owner {a} thread {thread} 0"));
    let answer = dump(&world, &victim, &world.path("image"), &[]).ended(REFUSED);
    let _named =
        answer.complains(&format!("F_SETOWN_EX: thread {thread} of process {}", victim.pid()));
    victim.ask(&format!("send {b} go-on"));
    assert_eq!(victim.ask(&format!("join {thread}")), "go-on");
}
