//! `ucr trace` through the daemon: several follow, and nobody waits for anybody.

use nix::sys::signal::Signal;
use serde_json::Value;
use ucr_tests::{Daemon, Follower, Need, Victim, needs, outside, wait};

use crate::{tracing::inode, world, world_alone};

/// Inodes of sockets in events of a kind.
fn sockets(follower: &Follower, kind: &str) -> Vec<u64> {
    let of_kind = follower.seen().iter().filter(|event| event["event"] == kind);
    of_kind.map(|event| inode(&event["socket"])).collect()
}

/// Waits until it has seen a socket being closed.
fn until_closed(follower: &mut Follower, inode_of: u32) -> Value {
    follower.event("the last close", |event| {
        event["event"] == "close" && inode(&event["socket"]) == u64::from(inode_of)
    })
}

#[test]
fn several_follow_one_daemon_and_each_sees_what_it_wants() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    // It takes over what is attached.
    world.ucr.attach();
    let daemon = Daemon::start(&world);
    daemon.says("takes over");
    let (mut one, mut other) = (world.victim(), world.victim());
    let pids = [one.pid().to_string(), other.pid().to_string()];
    let both = ["--pid", &pids[0], "--pid", &pids[1]];
    let mut all = daemon.follow(&both);
    // Root's own `trace` finds the daemon by itself, since two cannot follow the pins.
    let mut command = world.ucr.command(&["trace", "--json"]);
    command.args(both);
    daemon.pointed(&mut command, "auto");
    let mut by_itself = Follower::by(command);
    let mut of_one = daemon.follow(&["--pid", &pids[0]]);
    let mut binds = daemon.follow(&[
        "--event",
        "bind",
        "--name",
        &format!("{}/[ab]", world.folder().display()),
    ]);
    let mut failed =
        daemon.follow(&["--failed", "--event", "connect", "--type", "dgram", "--pid", &pids[1]]);
    assert_eq!(daemon.status().expect("a status").followers, 5);

    let name = |rest: &str| world.path_name(rest);
    let listener = one.listener("stream", &name("a"), 4);
    let dgram = other.socket("dgram");
    other.bind(dgram, &name("c"));
    other
        .tell(&format!("connect {dgram} {}", ucr_tests::world::hex(&name("no"))))
        .expect_err("none");
    let client = other.client("stream", &name("a"));
    one.accept(listener);
    let last = one.socket("dgram");
    one.bind(last, &name("b"));
    let (last_inode, client_inode) = (one.inode(last), other.inode(client));
    other.close(client);
    one.close(last);

    for follower in [&mut all, &mut by_itself, &mut of_one] {
        until_closed(follower, last_inode);
    }
    // Without the time of day: each works it out from the time since boot.
    let line = |event: &Value| {
        let what = ["time_ns_since_boot", "event", "pid", "fd", "socket", "peer", "name"];
        what.map(|field| event[field].to_string()).join(" ")
    };
    let told = |follower: &Follower| follower.seen().iter().map(line).collect::<Vec<_>>();
    assert_eq!(told(&all), told(&by_itself));
    assert!(sockets(&all, "close").contains(&u64::from(client_inode)));
    let own = all.seen().iter().filter(|event| event["pid"] == one.pid());
    assert_eq!(told(&of_one), own.map(line).collect::<Vec<_>>(), "what the other does is not sent");
    assert_eq!(inode(&binds.next("bind")["socket"]), u64::from(one.inode(listener)));
    assert_eq!(inode(&binds.next("bind")["socket"]), u64::from(last_inode));
    let event = failed.event("any", |_| true);
    assert_eq!(
        (&event["event"], &event["errno"]),
        (&"connect".into(), &"ENOENT".into()),
        "{event:#}"
    );
    let answer = by_itself.signal(Signal::SIGINT).done().complains("following (by the daemon)");
    let _counted = answer.complains(&format!("{} events, 0 lost", told(&all).len()));
    wait::until("it to be forgotten", || (daemon.status().ok()?.followers == 4).then_some(()));
}

#[test]
fn who_is_slow_is_told_what_it_missed_and_the_others_miss_nothing() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let daemon = Daemon::start_with(&world, &[("followers.queue", "1000")]);
    let mut victim = world.victim();
    victim.ask("limit 10000");
    let pid = victim.pid().to_string();
    let mut fast = daemon.follow(&["--pid", &pid]);
    let slow = daemon.follow(&["--pid", &pid]);
    let stop = |signal| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(slow.pid()), signal).expect("signal it");
    };
    stop(Signal::SIGSTOP);
    wait::for_state(slow.pid(), 'T');
    // In pieces that fit into the queue of one who reads.
    let mut made = 0;
    for _ in 0..9 {
        victim.ask("pairs 500");
        made += 500;
        while fast.seen().len() < made {
            fast.next("socketpair");
        }
    }
    assert_eq!(outside::sockets(victim.pid()).len(), 2 * made);
    let missed = daemon.status().expect("a status").missed;
    assert!(missed > 0, "it held more than its queue");
    stop(Signal::SIGCONT);
    let mut slow = slow;
    let mut seen = 0;
    while seen + missed < u64::try_from(made).expect("a count") {
        slow.next("socketpair");
        seen += 1;
    }
    let answer = slow.signal(Signal::SIGTERM).done();
    let answer = answer.complains(&format!("{missed} events were lost: this reader was too slow"));
    let _counted = answer.complains(&format!("{seen} events, {missed} lost"));
    let answer = fast.signal(Signal::SIGTERM).done();
    let _counted = answer.complains(&format!("{made} events, 0 lost"));
    assert_eq!(daemon.status().expect("a status").lost, 0, "the daemon itself has seen all");
}

#[test]
fn without_a_daemon_everybody_can_follow_as_before() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for attached in [false, true] {
        let world = world();
        if attached {
            world.ucr.attach();
        }
        let mut victim = world.victim();
        let no_daemon = world.path("none").display().to_string();
        let pid = victim.pid().to_string();
        let mut follower = world.ucr.follow(&["--pid", &pid, "--control", &no_daemon]);
        let (one, _) = victim.pair("stream");
        let event = follower.next("socketpair");
        assert_eq!(inode(&event["socket"]), u64::from(victim.inode(one)));
        let answer = follower.signal(Signal::SIGINT).done();
        assert!(!answer.stderr.contains("daemon"), "{}", answer.stderr);
    }
    let world = world();
    let mut victim = world.victim();
    // A daemon that follows other pins is none of theirs.
    let other_world = crate::world();
    let daemon = Daemon::start(&other_world);
    let control = daemon.control().display().to_string();
    let pid = victim.pid().to_string();
    world.ucr.attach();
    let mut follower = world.ucr.follow(&["--pid", &pid, "--control", &control]);
    victim.pair("stream");
    follower.next("socketpair");
    let answer = follower.signal(Signal::SIGINT).done();
    assert!(!answer.stderr.contains("by the daemon"), "{}", answer.stderr);
    ended_with_its_daemon(&daemon, &mut victim);
}

/// A follower whose daemon goes says so.
fn ended_with_its_daemon(daemon: &Daemon<'_>, victim: &mut Victim) {
    let mut follower = daemon.follow(&["--pid", &victim.pid().to_string()]);
    victim.pair("stream");
    follower.next("socketpair");
    daemon.signal(Signal::SIGKILL);
    let answer = follower.finish().ended(ucr_tests::ucr::FAILED);
    let _counted = answer.complains("hear the daemon").complains("1 events, 0 lost");
}
