//! What is lost is counted, shown and made good: events that nobody reads in time, and sockets for which
//! the ledger has no room.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use ucr_tests::{Need, World, backends, needs, outside, ucr::FAILED, wait};

use super::is_right;
use crate::world_alone;

fn status(world: &World) -> Value {
    world.ucr.run(&["status", "--json"]).done().json()
}

fn counter(status: &Value, name: &str) -> u64 {
    status["counters"][name].as_u64().expect("a count")
}

#[test]
fn events_that_nobody_reads_are_counted_and_cost_the_ledger_nothing() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for backend in backends::chosen() {
        let mut world = world_alone();
        world.ucr.attach_with(backend, &["--ring-bytes", "4096"]);
        let mut victim = world.victim();
        victim.ask("limit 4096");
        let events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
        assert_eq!(counter(&status(&world), "lost"), 0);

        // Its lease runs on for a while, but it takes nothing.
        let follower = Pid::from_raw(events.pid());
        kill(follower, Signal::SIGSTOP).expect("stop the follower");
        victim.ask("pairs 500");
        let name = world.abstract_name(b"");
        let listener = victim.listener("stream", &name, 5);
        victim.client("stream", &name);
        victim.accept(listener);

        let stalled = status(&world);
        let lost = counter(&stalled, "lost");
        // A page holds no more than 15 of them.
        assert!(lost >= 500 - 15, "{stalled:#}");
        let by_cpu = stalled["lost_by_cpu"].as_array().expect("a list");
        assert_eq!(by_cpu.iter().filter_map(Value::as_u64).sum::<u64>(), lost, "{stalled:#}");
        let table = world.ucr.run(&["status"]).done().stdout;
        assert!(table.contains("events lost because the ring buffer was full"), "{table}");
        assert!(table.contains(" on CPU "), "{table}");

        // It learns of it as soon as it runs again.
        kill(follower, Signal::SIGCONT).expect("let the follower go on");
        let answer = events.signal(Signal::SIGINT).done();
        let answer = answer.complains("events were lost: they came faster than they were read");
        let told = answer.stderr.lines().last().unwrap_or_default();
        let numbers: Vec<u64> =
            told.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        assert!(matches!(numbers[..], [_, told] if told >= lost), "{lost}: {}", answer.stderr);

        is_right(&world, victim.pid());
        let report = world.ucr.run(&["reconcile", "--json"]).done().json();
        assert_eq!(report["no_room"], 0, "{report:#}");
        is_right(&world, victim.pid());
    }
}

/// How many more sockets than there are already find room.
const ROOM: usize = 64;

#[test]
fn a_full_ledger_is_counted_and_whole_again_once_there_is_room() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for backend in backends::chosen() {
        let mut world = world_alone();
        let mut victim = world.victim();
        let name = world.abstract_name(b"");
        let before = world_size();
        let most = (before + ROOM).to_string();
        world.ucr.attach_with(backend, &["--max-sockets", &most]);

        victim.ask("pairs 200");
        let full = status(&world);
        assert!(counter(&full, "ledger_full") >= 300, "{full:#}");
        assert!(full["sockets"].as_u64() <= Some((before + ROOM) as u64), "{full:#}");
        let table = world.ucr.run(&["status"]).done().stdout;
        assert!(table.contains("sockets not recorded because the ledger was full"), "{table}");
        let answer = world.ucr.run(&["reconcile", "--json"]).ended(FAILED);
        let answer = answer.complains("did not fit").complains("--max-sockets");
        assert!(answer.json()["no_room"].as_u64() >= Some(300), "{}", answer.stdout);

        // One that was not recorded lives on, while others make room.
        let listener = victim.listener("stream", &name, 5);
        let client = victim.client("stream", &name);
        let accepted = victim.accept(listener);
        let kept = [listener, client, accepted];
        let is_missing = |fd: &i32| world.ucr.record(victim.inode(*fd)).is_none();
        assert!(kept.iter().any(is_missing));
        let others: Vec<i32> =
            outside::sockets(victim.pid()).into_keys().filter(|fd| !kept.contains(fd)).collect();
        for fd in others {
            victim.close(fd);
        }
        // Others of this machine may still take the room for a while.
        wait::until("room", || {
            let answer = world.ucr.run(&["reconcile", "--json"]);
            (answer.code == Some(0)).then(|| assert_eq!(answer.json()["no_room"], 0))
        });
        is_right(&world, victim.pid());
    }
}

/// How many sockets a ledger would hold now: those of all network namespaces, embryos included.
fn world_size() -> usize {
    let mut probe = ucr_tests::Ucr::default();
    probe.attach_as(*backends::attachable().last().expect("a backend"));
    let count = probe.ledger().len();
    probe.run(&["detach"]).done();
    count
}
