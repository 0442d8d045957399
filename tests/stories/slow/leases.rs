//! A follower that is killed leaves nothing that lasts.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ucr_tests::{Need, needs, wait};

use crate::world;

#[test]
fn a_killed_follower_keeps_nobody_away_and_its_lease_runs_out() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let killed = world.ucr.follow(&[]).signal(Signal::SIGKILL);
    assert_eq!(killed.code, None, "a signal ended it");

    // The next one takes over at once. It sees what happens from now on, and nothing older.
    let mut victim = world.victim();
    victim.pair("stream");
    let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
    victim.socket("stream");
    assert_eq!(events.event("anything", |_| true)["event"], "socket");

    // Killed as well, with nobody to follow: no events are written for nobody.
    let at = Instant::now();
    let killed = events.signal(Signal::SIGKILL);
    assert_eq!(killed.code, None, "a signal ended it");
    wait::until("the lease to run out", || {
        let status = world.ucr.run(&["status", "--json"]).done().json();
        status["follower"].is_null().then_some(())
    });
    assert!(at.elapsed() < Duration::from_secs(10), "{:?}", at.elapsed());
}
