//! What happens to TCP and UDP sockets is told in order, and held against the kernel.

use std::{net::TcpListener, os::fd::AsRawFd as _};

use serde_json::Value;
use ucr_common::inet::RawEnds;
use ucr_tests::{Need, Victim, World, needs, ucr::REFUSED};

use super::{bound, world};
use crate::dumping::{count, dump, socket};

/// The kinds of the events of one socket, a change of state with the state that it led to.
fn life(events: &[Value], inode: u32) -> Vec<String> {
    let of = events.iter().filter(|event| event["socket"]["inode"] == inode);
    let told = of.map(|event| match event["event"].as_str().expect("a kind") {
        "state" => event["states"][1].as_str().expect("a state").to_owned(),
        other => other.to_owned(),
    });
    told.collect()
}

#[test]
fn the_life_of_a_tcp_connection_is_told_in_order() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    for kind in ["tcp", "tcp6"] {
        let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string(), "--type", "tcp"]);
        let local = if kind == "tcp" { "127.0.0.1:0" } else { "[::1]:0" };
        let (listener, address) = bound(&mut victim, kind, local);
        victim.ask(&format!("listen {listener} 7"));
        let client = victim.number(&format!("inet {kind}"));
        victim.ask(&format!("iconnect {client} {address}"));
        let own = victim.ask(&format!("iname {client}"));
        let server = victim.accept(listener);
        let inodes = [listener, client, server].map(|fd| victim.inode(fd));
        victim.ask(&format!("shutdown {server} write"));
        let told = events.event("the end of what is sent", |event| {
            event["event"] == "state" && event["states"][1] == "close_wait"
        });
        assert_eq!(told["socket"]["inode"], inodes[1], "the other end notices");
        victim.close(client);
        let _noticed = events
            .event("the end", |event| event["event"] == "state" && event["states"][1] == "closed");
        for fd in [server, listener] {
            victim.close(fd);
            let _closed = events.event("the close", |event| {
                event["event"] == "close" && event["socket"]["inode"] != inodes[1]
            });
        }
        let seen = events.seen();
        assert_eq!(life(seen, inodes[0]), ["socket", "bind", "listening", "listen", "close"]);
        let of_client = ["socket", "syn_sent", "established", "connect", "close_wait", "close"];
        assert_eq!(life(seen, inodes[1]), of_client);
        let of_server = life(seen, inodes[2]);
        assert_eq!(of_server[0], "accept");
        assert!(of_server.iter().any(|what| what == "shutdown"), "{of_server:?}");
        assert_eq!(of_server[of_server.len() - 2..], ["closed", "close"]);

        let of = |what: &str| seen.iter().find(|event| event["event"] == what).expect("told");
        assert_eq!(of("bind")["local"], address.as_str());
        assert_eq!(
            (&of("listen")["argument"], &of("listen")["protocol"]),
            (&7.into(), &"tcp".into())
        );
        let connected = of("connect");
        assert_eq!(
            (&connected["local"], &connected["remote"]),
            (&own.clone().into(), &address.clone().into())
        );
        let accepted = of("accept");
        assert_eq!(
            (&accepted["local"], &accepted["remote"]),
            (&address.clone().into(), &own.clone().into())
        );
        assert_eq!((&accepted["fd"], &accepted["fd2"]), (&listener.into(), &server.into()));
        assert_eq!(accepted["listener"]["inode"], inodes[0]);
        assert!(
            seen.iter()
                .all(|event| event["pid"] == victim.pid() && event["name"]["kind"] == "unnamed")
        );
    }
}

#[test]
fn the_life_of_a_udp_socket_is_told_in_order() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let mut events =
        world.ucr.follow(&["--pid", &victim.pid().to_string(), "--type", "udp", "--failed"]);
    let (receiver, address) = bound(&mut victim, "udp6", "[::1]:0");
    let sender = victim.number("inet udp6");
    victim.ask(&format!("iconnect {sender} {address}"));
    let told = events.next("connect");
    assert_eq!((&told["remote"], &told["family"]), (&address.clone().into(), &"inet6".into()));
    assert_eq!(told["local"], victim.ask(&format!("iname {sender}")));
    let again = victim.number("inet udp6");
    let refused = victim.tell(&format!("ibind {again} {address}"));
    assert!(refused.is_err(), "it is taken");
    let told = events.event("the refusal", |event| event["errno"] == "EADDRINUSE");
    assert_eq!((&told["event"], &told["local"]), (&"bind".into(), &address.into()));
    let inodes = [receiver, sender].map(|fd| victim.inode(fd));
    victim.close(receiver);
    victim.close(sender);
    let _last = events.event("the last close", |event| {
        event["event"] == "close" && event["socket"]["inode"] == inodes[1]
    });
    assert_eq!(life(events.seen(), inodes[0]), ["socket", "bind", "close"]);
    let mut of_sender = life(events.seen(), inodes[1]);
    // Trampolines see the kernel choose a port.
    of_sender.retain(|what| what != "autobind");
    assert_eq!(of_sender, ["socket", "connect", "close"]);
}

/// One socket of each kind; the descriptors.
fn build(victim: &mut Victim) -> Vec<i32> {
    let mut fds = Vec::new();
    for (kind, local) in [("tcp", "127.0.0.1:0"), ("tcp6", "[::]:0")] {
        let (listener, address) = bound(victim, kind, local);
        victim.ask(&format!("listen {listener} 7"));
        let client = victim.number(&format!("inet {kind}"));
        victim.ask(&format!("iconnect {client} {}", address.replace("[::]", "[::ffff:127.0.0.1]")));
        let (only_bound, _) = bound(victim, kind, local);
        fds.extend([listener, client, victim.accept(listener), only_bound]);
        fds.push(victim.number(&format!("inet {kind}")));
    }
    for (kind, local) in [("udp", "127.0.0.1:0"), ("udp6", "[::1]:0"), ("udplite", "127.0.0.1:0")] {
        let (receiver, address) = bound(victim, kind, local);
        let sender = victim.number(&format!("inet {kind}"));
        victim.ask(&format!("iconnect {sender} {address}"));
        fds.extend([receiver, sender, victim.number(&format!("inet {kind}"))]);
    }
    fds
}

/// Dumps; connections of TCP may be in the way, the verdicts are told all the same.
fn verdicts(world: &World, victim: &Victim, fds: &[i32]) -> (Value, Vec<String>) {
    let answer = dump(world, victim, &world.path("image"), &["--verify", "warn"]);
    let report = answer.json();
    let of = |fd: &i32| {
        let verdict = &socket(&report, victim.inode(*fd))["verdict"];
        verdict.as_str().map_or_else(|| verdict.to_string(), str::to_owned)
    };
    let all = fds.iter().map(of).collect();
    (report, all)
}

#[test]
fn what_was_made_after_attach_is_confirmed_and_what_is_older_predates() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let older = build(&mut victim);
    world.ucr.attach();
    let newer = build(&mut victim);
    let (report, found) = verdicts(&world, &victim, &older);
    assert_eq!(found, vec!["predates"; older.len()], "{report:#}");
    let (report, found) = verdicts(&world, &victim, &newer);
    assert_eq!(found, vec!["confirmed"; newer.len()], "{report:#}");
    assert_eq!(count(&report, "confirmed"), newer.len() as u64);
    let [_, client, server, ..] = newer[..] else { panic!("a connection") };
    assert_eq!(socket(&report, victim.inode(client))["peer"], victim.inode(server));
    assert_eq!(socket(&report, victim.inode(server))["peer"], victim.inode(client));
    // Nobody takes them for unix sockets.
    let listed = world.ucr.run(&["ls", "--pid", &victim.pid().to_string(), "--jsonl"]).done();
    assert!(!listed.stdout.contains(&victim.inode(client).to_string()), "{}", listed.stdout);
}

#[test]
fn a_wrong_end_and_a_missing_record_are_named() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    let (udp, address) = bound(&mut victim, "udp", "127.0.0.1:0");
    let (listener, _) = bound(&mut victim, "tcp", "127.0.0.1:0");
    victim.ask(&format!("listen {listener} 7"));
    world.ucr.falsify(victim.inode(udp), |record| {
        let mut ends = RawEnds::of(&record.name).expect("two ends");
        ends.local.port = 1;
        record.name = ends.to_name();
    });
    world.ucr.falsify(victim.inode(listener), |record| record.backlog = 99);
    let image = world.path("image");
    let refused = dump(&world, &victim, &image, &[]).ended(REFUSED);
    assert!(!image.exists(), "nothing is written");
    let report = refused.json();
    let conflict = |fd| socket(&report, victim.inode(fd))["verdict"]["conflict"].clone();
    assert_eq!(conflict(udp)[0]["field"], "local");
    assert_eq!(
        (&conflict(udp)[0]["tracked"], &conflict(udp)[0]["seen"]),
        (&"127.0.0.1:1".into(), &address.into())
    );
    assert_eq!(
        (&conflict(listener)[0]["field"], &conflict(listener)[0]["seen"]),
        (&"backlog".into(), &"7".into())
    );
    assert_eq!(count(&report, "conflict"), 2, "{report:#}");

    let sk = world.ucr.record(victim.inode(udp)).expect("a record").socket.sk;
    world.ucr.ledger().remove(sk).expect("remove a record");
    let report = dump(&world, &victim, &image, &[]).ended(REFUSED).json();
    assert_eq!(socket(&report, victim.inode(udp))["verdict"], "only_snapshot", "{report:#}");
}

#[test]
fn sockets_of_others_are_found_by_a_pass() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let ours = TcpListener::bind("127.0.0.1:0").expect("bind");
    let world = world();
    world.ucr.attach();
    let own = std::process::id().cast_signed();
    let inode = ucr_tests::outside::inode(own, ours.as_raw_fd()).expect("our own listener");
    let record = world.ucr.record(inode).expect("seeded");
    assert_eq!((record.family, record.protocol, record.state), (2, 6, 10));
    world.ucr.ledger().remove(record.socket.sk).expect("remove a record");
    let said = world.ucr.run(&["reconcile"]).done();
    assert!(world.ucr.record(inode).is_some(), "{}", said.stdout);
}
