//! The same story of sockets gives the same ledger, whichever backend has watched it.

use std::collections::BTreeMap;

use ucr_common::{identity::Actor, record::Record};
use ucr_tests::{Need, Victim, World, backends, needs};

use super::is_right;
use crate::watched;

/// What the ledger holds at the end of the story, without what differs from run to run:
/// type/state/shutdown, origin/role/flags/backlog, its name, its peer, the listener that it came through,
/// and who created, bound and opened it; a `-` is nobody, or nothing. Numbers are those of
/// `ucr_common::record` and of the kernel (a state of 1 is established, 7 closed, 10 listening).
const EXPECTED: &str = "\
accepted: 1/1/2 3/2/0/0 @-listener, peer used, through listener, by client - server
accepted-by-path: 5/1/0 3/2/0/0 /listener, peer bound-first, through by-path, by client - server
bound-first: 5/1/0 1/1/0/0 @-client, peer accepted-by-path, through -, by client client client
by-path: 5/10/0 1/0/0/3 /listener, peer -, through -, by server server server
embryo: 1/1/0 3/2/0/0 @-listener, peer waiting, through listener, by client - -
freed: 2/7/0 1/0/0/0 -, peer -, through -, by client - client
fresh: 1/7/0 1/0/0/0 -, peer -, through -, by client - -
half: 1/1/3 2/3/1/0 -, peer -, through -, by client - -
listener: 1/10/0 1/0/0/5 @-listener, peer -, through -, by server server server
moved: 2/1/0 1/0/0/0 -, peer second, through -, by client - client
other: 2/1/0 2/3/0/0 -, peer pair, through -, by client - -
pair: 2/1/0 2/3/0/0 -, peer other, through -, by client - -
receiver: 2/7/0 1/0/0/0 /receiver, peer -, through -, by server server -
second: 2/1/0 1/0/0/0 /second, peer -, through -, by server server -
sender: 2/1/0 1/0/0/0 @-sender, peer receiver, through -, by client client client
survivor: 1/1/3 3/2/1/0 @-listener, peer -, through listener, by client - server
used: 1/1/1 1/1/0/0 -, peer accepted, through -, by client - client
waiting: 1/1/0 1/1/0/0 -, peer embryo, through -, by client - client";

/// Sockets by what the story calls them.
type Cast = BTreeMap<&'static str, Record>;

#[test]
fn every_backend_has_the_same_ledger_at_the_end_of_the_same_story() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for backend in backends::attachable() {
        let world = watched(*backend);
        let (mut server, mut client) = (world.victim(), world.victim());
        let cast = story(&world, &mut server, &mut client);
        for victim in [&server, &client] {
            is_right(&world, victim.pid());
        }
        let people = [(server.pid(), "server"), (client.pid(), "client")];
        assert_eq!(portraits(&world, &cast, &people), EXPECTED, "{}", backend.name());
    }
}

/// Each step that a ledger can show, with both ends in it.
fn story(world: &World, server: &mut Victim, client: &mut Victim) -> Cast {
    let name = world.abstract_name(b"-listener");
    let listener = server.listener("stream", &name, 5);
    let used = client.client("stream", &name);
    let accepted = server.accept(listener);
    server.ask(&format!("shutdown {accepted} write"));
    let leaving = client.client("stream", &name);
    let survivor = server.accept(listener);
    client.close(leaving);
    let waiting = client.client("stream", &name);
    let through = u64::from(server.inode(listener));

    let path = world.path_name("listener");
    let by_path = server.listener("seqpacket", &path, 3);
    let bound_first = client.socket("seqpacket");
    client.bind(bound_first, &world.abstract_name(b"-client"));
    client.connect(bound_first, &path);
    let accepted_by_path = server.accept(by_path);

    let (pair, other) = client.pair("dgram");
    let (half, gone) = client.pair("stream");
    client.close(gone);

    let receiver = server.socket("dgram");
    server.bind(receiver, &world.path_name("receiver"));
    let sender = client.socket("dgram");
    client.bind(sender, &world.abstract_name(b"-sender"));
    client.connect(sender, &world.path_name("receiver"));
    let second = server.socket("dgram");
    server.bind(second, &world.path_name("second"));
    let moved = client.socket("dgram");
    client.connect(moved, &world.path_name("receiver"));
    client.connect(moved, &world.path_name("second"));
    let freed = client.socket("dgram");
    client.connect(freed, &world.path_name("receiver"));
    client.ask(&format!("disconnect {freed}"));
    let fresh = client.socket("stream");

    let records = world.ucr.ledger().records().expect("read the ledger");
    let of = |victim: &Victim, fd| world.ucr.record(victim.inode(fd)).expect("a record");
    let embryo = records.iter().find(|r| r.listener.inode == through && r.socket.inode == 0);
    Cast::from([
        ("listener", of(server, listener)),
        ("used", of(client, used)),
        ("accepted", of(server, accepted)),
        ("survivor", of(server, survivor)),
        ("waiting", of(client, waiting)),
        ("embryo", *embryo.expect("the embryo")),
        ("by-path", of(server, by_path)),
        ("bound-first", of(client, bound_first)),
        ("accepted-by-path", of(server, accepted_by_path)),
        ("pair", of(client, pair)),
        ("other", of(client, other)),
        ("half", of(client, half)),
        ("receiver", of(server, receiver)),
        ("sender", of(client, sender)),
        ("second", of(server, second)),
        ("moved", of(client, moved)),
        ("freed", of(client, freed)),
        ("fresh", of(client, fresh)),
    ])
}

fn portraits(world: &World, cast: &Cast, people: &[(i32, &str)]) -> String {
    let called = |sk| {
        let found = cast.iter().find(|(_, record)| sk != 0 && record.socket.sk == sk);
        found.map_or("-", |(name, _)| *name)
    };
    let who = |actor: &Actor, time: u64| {
        let found = people.iter().find(|(pid, _)| pid.cast_unsigned() == actor.pid);
        // When it was stands beside who it was.
        assert_eq!(found.is_some(), time > 0);
        found.map_or("-", |(_, name)| *name)
    };
    let portrait = |(name, r): (&&str, &Record)| {
        format!(
            "{name}: {}/{}/{} {}/{}/{}/{} {}, peer {}, through {}, by {} {} {}",
            r.socket_type,
            r.state,
            r.shutdown,
            r.origin,
            r.role,
            r.flags,
            r.backlog,
            shown(world, r.name.as_bytes()),
            called(r.peer.sk),
            called(r.listener.sk),
            who(&r.creator, r.created_at),
            who(&r.binder, r.bound_at),
            who(&r.opener, r.opened_at),
        )
    };
    cast.iter().map(portrait).collect::<Vec<_>>().join("\n")
}

/// A name without what is this test's own.
fn shown(world: &World, name: &[u8]) -> String {
    let own = [(world.abstract_name(b""), "@"), (world.path_name(""), "/")];
    let found = own.iter().find_map(|(own, mark)| Some((name.strip_prefix(&own[..])?, mark)));
    found.map_or("-".to_owned(), |(rest, mark)| format!("{mark}{}", String::from_utf8_lossy(rest)))
}
