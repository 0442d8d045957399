//! Thousands of sockets.

use ucr_tests::{Need, needs, outside};

use crate::{dumping::dump, world_alone};

#[test]
fn sixteen_thousand_sockets_go_and_come_back() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    world.ucr.attach();
    let mut victim = world.victim();
    victim.ask("limit 17000");
    victim.ask("pairs 8000");
    let before = outside::sockets(victim.pid());
    assert_eq!(before.len(), 16_000);
    let image = world.path("image");
    let report = dump(&world, &victim, &image, &["--kill"]).done().json();
    assert_eq!(report["counts"]["confirmed"], 16_000);
    let _killed = victim.ended();

    let (mut victims, restore) = world.restore(&image, &[0]);
    let mut back = victims.pop().expect("one victim");
    let after = outside::sockets(back.pid());
    assert!(after.keys().eq(before.keys()));
    let ends: Vec<i32> = after.keys().copied().collect();
    for pair in ends.chunks(2).step_by(500) {
        back.ask(&format!("send {} hello-{}", pair[0], pair[0]));
        assert_eq!(back.ask(&format!("recv {}", pair[1])), format!("hello-{}", pair[0]));
    }
    let again = dump(&world, &back, &world.path("again"), &[]).done().json();
    assert_eq!(again["counts"]["confirmed"], 16_000);
    world.keep(restore);
}

#[test]
fn a_flood_is_counted_where_it_is_not_shown() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    // One page: far too small.
    world.ucr.run(&["attach", "--ring-bytes", "4096"]).done();
    let mut victim = world.victim();
    victim.ask("limit 9000");
    let events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(events.pid()),
        nix::sys::signal::Signal::SIGSTOP,
    )
    .expect("stop the follower");
    victim.ask("pairs 200");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(events.pid()),
        nix::sys::signal::Signal::SIGCONT,
    )
    .expect("continue the follower");
    let answer = events.signal(nix::sys::signal::Signal::SIGINT).done();
    assert!(answer.stderr.contains("events were lost"), "{}", answer.stderr);
    let status = world.ucr.run(&["status", "--json"]).done().json();
    assert!(status["counters"]["lost"].as_u64().is_some_and(|lost| lost > 0), "{status}");
    // The ledger did not lose anything.
    let report = dump(&world, &victim, &world.path("image"), &[]).done().json();
    assert_eq!(report["counts"]["confirmed"], 400);
}
