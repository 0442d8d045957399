//! A daemon that ends in order, and the next one; and tracing that somebody takes away.

use nix::sys::signal::Signal;
use ucr::history::GapReason;
use ucr_tests::{Need, daemon::Daemon, needs, ucr::FAILED, wait};

use super::{EVENTS_OF_PAIR, Kept, Storm, gaps, missing, settled, status};
use crate::{backends::is_right, world_alone};

#[test]
fn the_next_daemon_finds_what_happened_while_there_was_none() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let mut daemon = Daemon::start(&world);
    let mut victim = world.victim();
    let pid = u32::try_from(victim.pid()).expect("a pid");
    let mut lived = Vec::new();
    for time in ["before", "between", "after"] {
        if time == "between" {
            daemon.stop().done();
        }
        let (a, b) = victim.pair("stream");
        lived.extend([victim.inode(a), victim.inode(b)]);
        victim.close(a);
        victim.close(b);
        if time == "between" {
            daemon.begin();
        }
    }
    let (stays, _) = victim.pair("dgram");
    settled(&world, &daemon);

    let kept = Kept::read(&daemon.history());
    kept.has_nothing_twice();
    let is_its = |gone: &&ucr::history::Gone| gone.creator.as_ref().is_some_and(|c| c.pid == pid);
    let inodes: Vec<u32> = kept.gone.iter().filter(is_its).filter_map(|gone| gone.inode).collect();
    assert_eq!(inodes, lived);
    assert_eq!(kept.events_of(pid), 3 * EVENTS_OF_PAIR + 1);
    let reasons: Vec<GapReason> = kept.gaps.iter().map(|gap| gap.reason).collect();
    assert_eq!(reasons, [GapReason::Absent], "nothing is missing but what was before it all");
    assert_eq!(status(&daemon).lost, 0);
    is_right(&world, victim.pid());
    assert!(world.ucr.record(victim.inode(stays)).is_some());
}

#[test]
fn a_daemon_that_detaches_leaves_nothing_and_the_next_one_says_what_it_does_not_know() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let mut daemon = Daemon::start_with(&world, &[("tracing.on_stop", "'detach'")]);
    let mut victim = world.victim();
    let pid = u32::try_from(victim.pid()).expect("a pid");
    let (closed, _) = victim.pair("stream");
    victim.close(closed);
    daemon.stop().done();
    assert!(!world.ucr.pins().exists());
    let before = Kept::read(&daemon.history());
    assert_eq!(before.events_of(pid), 2, "all that there was is written before the end");

    victim.pair("stream");
    daemon.begin();
    let last = before.events.last().expect("an event").time;
    let kept = wait::until("the next daemon's gap", || {
        let kept = Kept::read(&daemon.history());
        (kept.gaps.len() > 1).then_some(kept)
    });
    let [_, gap] = kept.gaps.as_slice() else { panic!("{:?}", kept.gaps) };
    assert_eq!((gap.reason, gap.lost), (GapReason::Absent, None));
    assert!(gap.from >= last, "what was before is known: {gap:?}, {last}");
    assert_eq!(kept.events_of(pid), 2, "nobody saw it");
    is_right(&world, victim.pid());
}

#[test]
fn a_daemon_ends_in_a_storm_and_the_next_one_goes_on_where_it_was() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let mut daemon = Daemon::start(&world);
    let storms: Vec<Storm> = (0..3).map(|_| Storm::start(0)).collect();
    for events in [2_000, 5_000] {
        wait::until("the storm", || (status(&daemon).events >= events).then_some(()));
        daemon.restart();
    }
    for storm in storms {
        storm.calm();
    }
    settled(&world, &daemon);
    Kept::read(&daemon.history()).has_nothing_twice();
}

#[test]
fn the_last_events_that_were_lost_are_told_of_even_if_none_comes_after_them() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let daemon = Daemon::start_with(&world, &[("tracing.ring_bytes", "'4KiB'")]);
    let mut victim = world.victim();
    victim.ask("limit 4096");
    daemon.signal(Signal::SIGSTOP);
    wait::for_state(daemon.pid(), 'T');
    victim.ask("pairs 500");
    daemon.signal(Signal::SIGCONT);
    settled(&world, &daemon);
    assert!(missing(&gaps(&daemon.history()), GapReason::Lost) > 0, "no room for so many");
}

#[test]
fn the_last_events_that_were_lost_are_told_of_before_tracing_ends() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let settings = [("tracing.on_stop", "'detach'"), ("tracing.ring_bytes", "'4KiB'")];
    let mut daemon = Daemon::start_with(&world, &settings);
    let mut victim = world.victim();
    victim.ask("limit 4096");
    daemon.signal(Signal::SIGSTOP);
    wait::for_state(daemon.pid(), 'T');
    victim.ask("pairs 500");
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGCONT);
    daemon.ended().done();
    let kept = Kept::read(&daemon.history());
    let pid = u32::try_from(victim.pid()).expect("a pid");
    let (there, lost) = (kept.events_of(pid), missing(&kept.gaps, GapReason::Lost));
    assert!(there < 500, "the ring buffer has no room for so many");
    assert!(there + lost >= 500, "{there} are there, {lost} said to be lost");
}

#[test]
fn a_daemon_whose_tracing_is_taken_away_says_so_and_ends() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let mut daemon = Daemon::start_with(&world, &[("tracing.on_stop", "'detach'")]);
    world.ucr.run(&["detach"]).done();
    // It may be that somebody else attaches at once.
    world.ucr.attach();
    daemon.ended().ended(FAILED).complains("tracing was taken away");
    assert!(world.ucr.pins().exists(), "what others have attached is not the daemon's to detach");
    assert!(!daemon.control().exists());
    daemon.begin();
    assert_eq!(gaps(&daemon.history()).len(), 2);
}

#[test]
fn that_somebody_else_followed_and_was_killed_is_a_gap() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let mut daemon = Daemon::start(&world);
    settled(&world, &daemon);
    daemon.stop().done();
    let follower = world.ucr.follow(&[]);
    drop(follower);
    let ledger = world.ucr.ledger();
    wait::until("its lease to end", || {
        (ledger.lease().expect("the lease").until < ucr::kernel::clock::boottime()).then_some(())
    });
    let mut victim = world.victim();
    victim.pair("stream");
    daemon.begin();
    let absent = |gap: &ucr::history::Gap| gap.reason == GapReason::Absent && gap.from > 0;
    wait::until("a gap", || gaps(&daemon.history()).iter().any(absent).then_some(()));
}
