//! What comes faster than it can be read is counted, in the same way everywhere, and made good.

use std::{
    os::unix::net::UnixStream,
    process::{Command, Stdio},
};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::signal::Signal,
    unistd::Pid,
};
use ucr::history::GapReason;
use ucr_common::control::counter;
use ucr_tests::{Need, daemon::Daemon, needs, wait};

use super::{figure, gaps, metrics, missing, resident, settled, status};
use crate::{backends::is_right, world_alone};

/// Each of so many processes makes a pair of sockets and ends.
const FORK_BOMB: &str = "use Socket; my $left = shift; my $live = 0;
    while ($left > 0 || $live > 0) {
        if ($left > 0 && $live < 64) {
            $left--; $live++;
            unless (fork) { socketpair(A, B, AF_UNIX, SOCK_STREAM, 0); exit }
        } else { wait; $live-- }
    }";

/// An event on each CPU: by its number it is seen what was lost before it.
fn touch_every_cpu() {
    let this = Pid::from_raw(0);
    let all = sched_getaffinity(this).expect("the CPUs of this thread");
    for cpu in (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap_or(false)) {
        let mut one = CpuSet::new();
        one.set(cpu).expect("a CPU");
        sched_setaffinity(this, &one).expect("go to a CPU");
        drop(UnixStream::pair().expect("a pair"));
    }
    sched_setaffinity(this, &all).expect("go back");
}

#[test]
fn losses_are_the_same_everywhere_and_the_ledger_is_checked_after_them() {
    if !needs::met(&[Need::Root, Need::Perl("Socket")]) {
        return;
    }
    let world = world_alone();
    let settings = [("tracing.ring_bytes", "'4KiB'"), ("tracing.reconcile_every", "'0s'")];
    let daemon = Daemon::start_with(&world, &settings);
    let mut victim = world.victim();
    victim.pair("stream");
    // So that something is lost for certain.
    daemon.signal(Signal::SIGSTOP);
    wait::for_state(daemon.pid(), 'T');
    let bomb = |count: &str| {
        let mut perl = Command::new("perl");
        perl.args(["-e", FORK_BOMB, count]).stdin(Stdio::null());
        assert!(perl.status().expect("run perl").success());
    };
    bomb("50");
    daemon.signal(Signal::SIGCONT);
    wait::until("the daemon to answer", || daemon.status().ok());
    let before = resident(daemon.pid());
    bomb("2000");
    let after = resident(daemon.pid());
    assert!(after < before + (32 << 20), "{before} bytes have become {after}");

    let ledger = world.ucr.ledger();
    let mut counts = [0; 4];
    let agree = wait::holds(|| {
        touch_every_cpu();
        let text = metrics(&daemon);
        counts = [
            ledger.counters().expect("the counters").get(counter::LOST),
            status(&daemon).lost,
            figure(&text, "ucr_events_lost_total"),
            missing(&gaps(&daemon.history()), GapReason::Lost),
        ];
        counts.iter().all(|count| *count == counts[0])
    });
    assert!(agree, "the kernel, the status, the figures and the history say {counts:?}");
    assert!(counts[0] > 0);
    settled(&world, &daemon);

    let done = wait::until("a reconciliation", || {
        let status = status(&daemon);
        (status.reconciliations > 0).then_some(status)
    });
    assert_eq!(done.reconciliation_failed, None);
    is_right(&world, victim.pid());
}

#[test]
fn a_ledger_that_was_full_is_made_whole_without_being_told() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let room = world_size() + 64;
    let settings =
        [("tracing.max_sockets", room.to_string()), ("tracing.reconcile_every", "'0s'".to_owned())];
    let settings = settings.each_ref().map(|(key, value)| (*key, value.as_str()));
    let daemon = Daemon::start_with(&world, &settings);
    let mut victim = world.victim();
    let mut others = world.victim();
    others.ask("limit 4096");
    others.ask("pairs 200");
    let (unknown, _) = victim.pair("stream");
    let inode = victim.inode(unknown);
    others.kill();
    wait::until("the ledger to be whole", || world.ucr.record(inode).map(drop));
    wait::until("that to be counted", || (status(&daemon).reconciliations > 0).then_some(()));
    is_right(&world, victim.pid());
}

/// How many sockets a ledger would hold now.
fn world_size() -> usize {
    let probe = ucr_tests::Ucr::default();
    probe.attach();
    probe.ledger().len()
}
