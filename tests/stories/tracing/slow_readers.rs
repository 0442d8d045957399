//! Readers that take nothing for a while, and followers that somebody has taken the place of:
//! nothing is lost in silence.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::NamedTempFile;
use ucr_common::control::Lease;
use ucr_tests::{Need, Victim, World, needs, ucr::FAILED, wait};

use crate::{world, world_alone};

/// `ucr trace --json` into a pipe that is read only when the test reads it.
struct Trace {
    child: Child,
    pipe: BufReader<ChildStdout>,
    said: NamedTempFile,
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Trace {
    fn start(world: &World, victim: &Victim) -> Self {
        let said = NamedTempFile::new().expect("a file");
        let mut command = world.ucr.command(&["trace", "--json", "--pid"]);
        command.arg(victim.pid().to_string()).stdout(Stdio::piped());
        command.stderr(said.reopen().expect("the file"));
        let mut child = command.spawn().expect("start ucr trace");
        let pipe = BufReader::new(child.stdout.take().expect("its output"));
        let trace = Self { child, pipe, said };
        wait::until("it to follow", || trace.said().contains("following").then_some(()));
        trace
    }

    fn said(&self) -> String {
        fs::read_to_string(self.said.path()).expect("what it said")
    }

    fn interrupt(&self) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("interrupt it");
    }

    /// What it counted: shown and lost.
    fn summary(&self) -> (u64, u64) {
        let said = self.said();
        let last = said.lines().last().unwrap_or_default();
        let numbers: Vec<u64> =
            last.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        assert_eq!(numbers.len(), 2, "{said}");
        (numbers[0], numbers[1])
    }
}

#[test]
fn a_reader_that_comes_late_misses_nothing() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    world.ucr.attach();
    let mut victim = world.victim();
    victim.ask("limit 4096");
    let mut trace = Trace::start(&world, &victim);
    // Several times what a pipe holds.
    victim.ask("pairs 500");
    // Meanwhile it keeps its lease, though nobody takes what it writes.
    let ledger = world.ucr.ledger();
    for _ in 0..2 {
        let lease = ledger.lease().expect("the lease").until;
        wait::until("the lease to be renewed", || {
            let now = ledger.lease().expect("the lease").until;
            (now > lease).then_some(())
        });
    }
    victim.ask("pairs 500");

    let mut shown = 0;
    for line in (&mut trace.pipe).lines().take(1000) {
        let event: serde_json::Value =
            serde_json::from_str(&line.expect("a line")).expect("a whole event");
        assert_eq!(event["event"], "socketpair");
        shown += 1;
    }
    assert_eq!(shown, 1000);
    trace.interrupt();
    assert!(wait::for_end(&mut trace.child).success(), "{}", trace.said());
    assert_eq!(trace.summary(), (1000, 0), "{}", trace.said());
}

#[test]
fn what_a_reader_never_took_is_counted_as_lost() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    world.ucr.attach();
    let mut victim = world.victim();
    victim.ask("limit 4096");
    let mut trace = Trace::start(&world, &victim);
    victim.ask("pairs 1000");
    trace.interrupt();
    // It does not wait for ever for a reader that does not come.
    assert!(wait::for_end(&mut trace.child).success(), "{}", trace.said());
    let (shown, lost) = trace.summary();
    assert_eq!(shown + lost, 1000, "{}", trace.said());
    assert!(lost > 0, "{}", trace.said());
    let mut rest = Vec::new();
    trace.pipe.read_to_end(&mut rest).expect("what the pipe held");
    assert!(rest.iter().filter(|byte| **byte == b'\n').count() >= usize::try_from(shown).unwrap());
}

#[test]
fn a_follower_whose_place_was_taken_ends_with_an_error() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut follower = world.ucr.follow(&["--comm", "no-such-program"]);
    let mut ledger = world.ucr.ledger();
    wait::until("the follower's end", || {
        let lease = ledger.lease().expect("the lease");
        // Again, if its renewal came between.
        if lease.follower != 1 {
            ledger.set_lease(Lease { follower: 1, ..lease }).expect("write the lease");
        }
        (!wait::is_alive(follower.pid())).then_some(())
    });
    let answer = follower.finish().ended(FAILED);
    let _named = answer.complains("process 1 follows the events now").complains("0 events");
    assert_eq!(ledger.lease().expect("the lease").follower, 1, "left to the other");
}
