//! A daemon that is killed loses what was in its memory, says how much that was, and the next one goes on.

use ucr::history::GapReason;
use ucr_common::control::counter;
use ucr_tests::{Need, daemon::Daemon, needs, wait};

use super::{EVENTS_OF_PAIR, Kept, Storm, missing, settled, status};
use crate::{backends::is_right, world_alone};

/// The default size of the ring buffer: as much may be in memory.
const RING: u64 = 4 << 20;
/// What the shortest event takes of it.
const SHORTEST: u64 = 280;

/// Storms of so many pairs a second, while the daemon is killed again and again.
fn survives(rate: u32, moments: &[u64]) {
    let world = world_alone();
    let mut daemon = Daemon::start(&world);
    let mut victim = world.victim();
    victim.pair("stream");
    let storms: Vec<Storm> = (0..3).map(|_| Storm::start(rate)).collect();
    for events in moments {
        wait::until("the storm", || (status(&daemon).events >= *events).then_some(()));
        daemon.kill();
        daemon.begin();
    }
    let made: Vec<_> = storms.into_iter().map(|storm| (storm.pid(), storm.calm())).collect();
    let (closed, _) = victim.pair("stream");
    victim.close(closed);
    settled(&world, &daemon);

    let kept = Kept::read(&daemon.history());
    kept.has_nothing_twice();
    let lost = missing(&kept.gaps, GapReason::Lost);
    let not_kept = made.iter().map(|(pid, pairs)| {
        let (all, there) = (pairs * EVENTS_OF_PAIR, kept.events_of(*pid));
        assert!(there <= all, "{there} events of {pid}, which made {all}");
        assert!(there > 0, "nothing of {pid}");
        all - there
    });
    let not_kept: u64 = not_kept.sum();
    assert!(not_kept <= lost, "{not_kept} are not there, and {lost} said to be lost");
    for (pid, pairs) in &made {
        let gone = kept.gone_of(*pid);
        assert!(gone <= 2 * pairs && gone + lost >= 2 * pairs, "{gone} of {pairs}, {lost} lost");
    }
    // What found the ring buffer full is the kernel's count; the rest was in memory.
    let full = world.ucr.ledger().counters().expect("the counters").get(counter::LOST);
    let in_memory = lost.saturating_sub(full);
    let most = moments.len() as u64 * RING / SHORTEST;
    assert!(in_memory <= most, "{lost} lost, {full} of them by the kernel");

    // The ledger does not depend on who follows.
    let records = world.ucr.ledger().records().expect("read the ledger");
    let is_of_storm = |pid: u32| made.iter().any(|(storm, _)| *storm == pid);
    assert!(!records.iter().any(|record| is_of_storm(record.creator.pid)));
    is_right(&world, victim.pid());
    assert_eq!(status(&daemon).history.expect("a history").damaged, [""; 0]);
}

#[test]
fn what_a_killed_daemon_had_in_memory_is_all_that_is_lost() {
    if needs::met(&[Need::Root]) {
        survives(1_000, &[1, 500, 2_000, 4_000, 8_000]);
    }
}

#[test]
fn a_storm_that_nobody_can_follow_is_counted_to_the_last_event() {
    if needs::met(&[Need::Root]) {
        survives(0, &[1, 5_000, 20_000]);
    }
}
