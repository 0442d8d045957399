//! A follower that is killed leaves nothing that lasts.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ucr_tests::{Need, needs, ucr::FAILED, wait};

use crate::world;

#[test]
fn a_killed_follower_keeps_others_away_for_a_few_seconds_only() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let first = world.ucr.follow(&[]);
    let pid = first.pid();
    let killed = first.signal(Signal::SIGKILL);
    assert_eq!(killed.code, None, "a signal ended it");
    let at = Instant::now();
    // Its lease still runs.
    let _refused = world.ucr.run(&["trace"]).ended(FAILED).complains(&format!("process {pid}"));
    wait::until("the lease to run out", || {
        let status = world.ucr.run(&["status", "--json"]).done().json();
        status["follower"].is_null().then_some(())
    });
    assert!(at.elapsed() < Duration::from_secs(10), "{:?}", at.elapsed());

    // The next one sees what happens from now on, and nothing older.
    let mut victim = world.victim();
    victim.pair("stream");
    let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
    victim.socket("stream");
    assert_eq!(events.event("anything", |_| true)["event"], "socket");
}
