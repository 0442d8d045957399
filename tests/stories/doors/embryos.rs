//! Connections between `connect` and `accept`: made, queued, waited for, thrown away.

use serde_json::Value;
use ucr::tracer::hooks::Backend;
use ucr_common::record::{Record, origin, role};
use ucr_tests::{Need, Victim, World, backends, needs, outside, wait, world::hex};

use super::{cookie, record};
use crate::{tracing::inode, watched};

/// System call number of x86-64.
const CONNECT: i64 = 42;

/// What came through this listener and has no inode: what waits for `accept`.
fn embryos(world: &World, listener: u32) -> Vec<Record> {
    let records = world.ucr.ledger().records().expect("read the ledger");
    let waits = |r: &Record| r.listener.inode == u64::from(listener) && r.socket.inode == 0;
    records.into_iter().filter(waits).collect()
}

#[test]
fn a_connection_is_known_before_it_is_accepted() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for backend in backends::attachable() {
        let world = watched(*backend);
        for kind in ["stream", "seqpacket"] {
            let (mut server, mut client) = (world.victim(), world.victim());
            let name = world.abstract_name(kind.as_bytes());
            let listener = server.listener(kind, &name, 4);
            let mut events = world.ucr.follow(&["--pid", &client.pid().to_string()]);
            let fd = client.client(kind, &name);

            let event = events.next("connect");
            assert_eq!(inode(&event["listener"]), u64::from(server.inode(listener)));
            assert!(event["peer"]["inode"].is_null(), "an embryo has none: {event:#}");
            let [embryo] = embryos(&world, server.inode(listener))[..] else { panic!("not one") };
            // Tracepoints cannot ask for a cookie; it is there once anybody on this machine has.
            if *backend == Backend::Trampoline {
                assert_ne!(embryo.socket.cookie, 0);
                assert_eq!(embryo.socket.cookie, cookie(&event["peer"]));
            }
            assert_eq!((embryo.origin, embryo.role), (origin::CONNECTION, role::SERVER));
            assert_eq!(embryo.peer.inode, u64::from(client.inode(fd)));
            assert_eq!(embryo.listener.inode, u64::from(server.inode(listener)));
            assert_eq!(embryo.name.as_bytes(), name, "the listener's name is its own");
            assert_eq!((embryo.creator.pid, embryo.opener.pid), (client.pid().cast_unsigned(), 0));

            let accepted = server.accept(listener);
            let known = record(&world, server.pid(), accepted).expect("a record");
            assert_eq!(known.socket.sk, embryo.socket.sk);
            assert_eq!(known.opener.pid, server.pid().cast_unsigned());
            assert_eq!((known.creator, known.created_at), (embryo.creator, embryo.created_at));
            let own = record(&world, client.pid(), fd).expect("a record");
            assert_eq!(own.peer, known.socket, "the client's, too, has the inode now");
        }
    }
}

/// A client whose `connect` waits for room in the queue.
fn waiting(client: &mut Victim, name: &[u8]) -> (i32, i32) {
    let fd = client.socket("stream");
    let thread = client.number(&format!("thread connect {fd} {}", hex(name)));
    let pid = client.pid();
    wait::until("connect to wait for room", || {
        (outside::blocked_in(pid, thread) == Some(CONNECT)).then_some(())
    });
    (fd, thread)
}

#[test]
fn a_connect_that_waits_for_room_has_made_nothing_yet() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for backend in backends::attachable() {
        let world = watched(*backend);
        let (mut server, mut client) = (world.victim(), world.victim());
        let name = world.abstract_name(b"");
        let listener = server.listener("stream", &name, 0);
        let through = server.inode(listener);
        client.client("stream", &name);
        let mut events = world.ucr.follow(&["--pid", &client.pid().to_string()]);
        let (fd, thread) = waiting(&mut client, &name);
        events.next("socket");

        assert_eq!(embryos(&world, through).len(), 1, "{}", backend.name());
        let own = record(&world, client.pid(), fd).expect("a record");
        assert_eq!((own.role, own.peer.sk, own.opened_at), (role::NONE, 0, 0));
        // Nor does anybody find one who looks: what the kernel has prepared, it may throw away.
        world.ucr.run(&["reconcile"]).done();
        assert_eq!(embryos(&world, through).len(), 1, "{}", backend.name());

        server.accept(listener);
        client.ask(&format!("join {thread}"));
        let event = events.next("connect");
        assert_eq!(
            (inode(&event["socket"]), &event["tid"]),
            (client.inode(fd).into(), &thread.into())
        );
        let [second] = &embryos(&world, through)[..] else { panic!("not one embryo") };
        assert_eq!(second.socket.cookie, cookie(&event["peer"]));
        assert_eq!(second.peer.inode, u64::from(client.inode(fd)));
    }
}

#[test]
fn a_listener_takes_what_waits_with_it() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for backend in backends::attachable() {
        take_what_waits_with_them(&watched(*backend), *backend == Backend::Trampoline);
    }
}

/// Where each sock's release is seen, the end of each is told, and not only that of the listener.
pub(super) fn take_what_waits_with_them(world: &World, is_each_told: bool) {
    for ending in ["close", "exit"] {
        let (mut server, mut client) = (world.victim(), world.victim());
        let name = world.abstract_name(ending.as_bytes());
        let listener = server.listener("stream", &name, 8);
        let through = server.inode(listener);
        let fds = [0, 1, 2].map(|_| client.client("stream", &name));
        let waited: Vec<u64> =
            embryos(world, through).iter().map(|embryo| embryo.socket.cookie).collect();
        assert_eq!(waited.len(), 3);
        let mut events = world.ucr.follow(&["--pid", &server.pid().to_string()]);
        if ending == "close" {
            server.close(listener);
        } else {
            server.order("exit");
        }
        let closed = |event: &Value| event["event"] == "close";
        let event = events.event("close", closed);
        let told = (inode(&event["socket"]), &event["argument"]);
        assert_eq!(told, (through.into(), &0.into()), "{event:#}");
        if is_each_told {
            end(&mut events, waited);
        }
        wait::until("their records to go", || embryos(world, through).is_empty().then_some(()));
        assert!(world.ucr.record(through).is_none());
        for fd in fds {
            let left = record(world, client.pid(), fd).expect("a record");
            assert_eq!((left.peer.sk, left.shutdown), (0, 3), "{ending}");
        }
    }
}

/// The end of each is told.
fn end(events: &mut ucr_tests::Follower, mut waited: Vec<u64>) {
    while !waited.is_empty() {
        let event = events.event("the close of an embryo", |event| event["event"] == "close");
        assert_eq!(event["argument"], 1, "never accepted: {event:#}");
        assert!(event["socket"]["inode"].is_null(), "{event:#}");
        let found = waited.iter().position(|known| *known == cookie(&event["socket"]));
        waited.remove(found.expect("one that waited"));
    }
}
