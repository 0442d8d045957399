//! Who is at the other end of a connection over TCP or UDP: found in what was tracked, wherever on this host.

use std::{fs::File, os::unix::fs::MetadataExt as _};

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;
use ucr_common::inet::RawEnds;
use ucr_tests::{Host, Need, Victim, World, needs};

use super::{bound, world};
use crate::dumping::{dump, socket};

/// A client, which is dumped, and a server, which is not.
struct Pair {
    server: Victim,
    client: Victim,
    fds: [i32; 2],
}

/// What a dump of the client says of its connection.
fn told(world: &World, pair: &Pair) -> (Value, String) {
    let image = world.path("image");
    let report = dump(world, &pair.client, &image, &[]).done().json();
    assert_eq!(report["peers_not_looked_up"], Value::Null);
    let args =
        ["dump", "--pid", &pair.client.pid().to_string(), "-o", &image.display().to_string()];
    let shown = world.ucr.run(&args).done().stdout;
    (socket(&report, pair.client.inode(pair.fds[1])).clone(), shown)
}

fn netns(victim: &Victim) -> u64 {
    let path = format!("/proc/{}/ns/net", victim.pid());
    std::fs::metadata(path).expect("its network namespace").ino()
}

/// Connects two victims; the client at a socket of one kind, the server at one of another.
fn connected(kinds: [&str; 2], to: &str, mut server: Victim, mut client: Victim) -> Pair {
    let [of_server, of_client] = kinds;
    let (listener, address) = bound(&mut server, of_server, "[::]:0");
    server.ask(&format!("listen {listener} 7"));
    let port = address.rsplit_once(':').expect("a port").1;
    let fd = client.number(&format!("inet {of_client}"));
    client.ask(&format!("iconnect {fd} {to}:{port}"));
    let accepted = server.accept(listener);
    Pair { server, client, fds: [accepted, fd] }
}

fn is_told(world: &World, pair: &Pair) {
    let (told, shown) = told(world, pair);
    let inode = pair.server.inode(pair.fds[0]);
    assert_eq!(told["peer"], inode, "{told:#}");
    assert_eq!(told["peer_netns"], netns(&pair.server));
    assert_eq!(told["peer_opener"]["pid"], pair.server.pid());
    assert_eq!(told["peer_opener"]["comm"]["text"], "victim", "{told:#}");
    assert!(shown.contains(&format!("(inode {inode})")), "{shown}");
}

#[test]
fn it_is_another_process() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    for (kind, to) in [("tcp6", "[::1]"), ("tcp", "127.0.0.1"), ("tcp6", "[::ffff:127.0.0.1]")] {
        let pair = connected(["tcp6", kind], to, world.victim(), world.victim());
        is_told(&world, &pair);
    }
}

#[test]
fn two_that_send_to_each_other_alone_are_a_pair_over_udp_as_well() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let (mut server, mut client) = (world.victim(), world.victim());
    let (near, here) = bound(&mut client, "udp", "127.0.0.1:0");
    let (far, there) = bound(&mut server, "udp6", "[::ffff:127.0.0.1]:0");
    client.ask(&format!("iconnect {near} {}", there.replace("[::ffff:127.0.0.1]", "127.0.0.1")));
    let pair = Pair { server, client, fds: [far, near] };
    let (alone, _) = told(&world, &pair);
    assert!(alone["peer"].is_null(), "nobody is connected there: {alone:#}");
    let Pair { mut server, client, .. } = pair;
    server.ask(&format!("iconnect {far} {}", here.replace("127.0.0.1", "[::ffff:127.0.0.1]")));
    is_told(&world, &Pair { server, client, fds: [far, near] });
}

#[test]
fn it_is_in_another_network_namespace() {
    if !needs::met(&[Need::Root, Need::Program("ip")]) {
        return;
    }
    let (near, far) = Host::pair();
    let world = world();
    world.ucr.attach();
    near.enter();
    for (kind, to) in [("tcp6", "[fd99::2]"), ("tcp", "10.99.0.2")] {
        let server = far.within(|| world.victim());
        let pair = connected(["tcp6", kind], to, server, world.victim());
        assert_ne!(netns(&pair.server), netns(&pair.client));
        is_told(&world, &pair);
    }
}

#[test]
fn it_is_nobody_whose_ends_are_others_or_who_has_closed() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut pair = connected(["tcp6", "tcp"], "127.0.0.1", world.victim(), world.victim());
    is_told(&world, &pair);
    world.ucr.falsify(pair.server.inode(pair.fds[0]), |record| {
        let mut ends = RawEnds::of(&record.name).expect("two ends");
        ends.remote.port ^= 1;
        record.name = ends.to_name();
    });
    let (report, shown) = told(&world, &pair);
    assert!(report["peer"].is_null() && report["peer_opener"].is_null(), "{report:#}");
    assert!(!shown.contains("(inode"), "{shown}");
    // The same for what is not there any more.
    pair.fds = {
        let mut other = connected(["tcp6", "tcp"], "127.0.0.1", world.victim(), pair.client);
        other.server.close(other.fds[0]);
        pair.client = other.client;
        other.fds
    };
    let (report, _) = told(&world, &pair);
    assert_eq!((&report["state"], &report["peer"]), (&"close_wait".into(), &Value::Null));
}

#[test]
fn a_dump_is_made_although_somebody_else_asks() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let pair = connected(["tcp6", "tcp"], "127.0.0.1", world.victim(), world.victim());
    let programs = File::open(world.ucr.pins().join("programs")).expect("the pinned programs");
    let _asks = Flock::lock(programs, FlockArg::LockExclusive).expect("nobody else asks");
    let answer = dump(&world, &pair.client, &world.path("image"), &[]).done();
    let report = answer.json();
    assert!(report["peers_not_looked_up"].is_string(), "{report:#}");
    assert!(answer.stderr.contains("note: who is at the other ends"), "{}", answer.stderr);
}
