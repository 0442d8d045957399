//! What happens to the peers and names of datagram sockets, also behind their owner's back.

use ucr::tracer::hooks::Backend;
use ucr_common::record::FLAG_AUTOBOUND;
use ucr_tests::{Need, Victim, World, backends, needs, world::hex};

use super::record;
use crate::{
    tracing::{inode, text},
    watched,
};

/// A bound datagram socket.
fn bound(world: &World, victim: &mut Victim, rest: &[u8]) -> (i32, Vec<u8>) {
    let name = world.abstract_name(rest);
    let fd = victim.socket("dgram");
    victim.bind(fd, &name);
    (fd, name)
}

#[test]
fn connecting_anew_names_the_peer_before() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for backend in backends::attachable() {
        let world = watched(*backend);
        let mut victim = world.victim();
        let (first, first_name) = bound(&world, &mut victim, b"-first");
        let (second, second_name) = bound(&world, &mut victim, b"-second");
        let fd = victim.socket("dgram");
        let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);

        victim.connect(fd, &first_name);
        let event = events.next("connect");
        assert_eq!(inode(&event["peer"]), u64::from(victim.inode(first)));
        assert!(event["listener"].is_null(), "{}: {event:#}", backend.name());
        assert_eq!(event["name"]["hex"], hex(&first_name[1..]));

        victim.connect(fd, &second_name);
        let event = events.next("connect");
        assert_eq!(inode(&event["peer"]), u64::from(victim.inode(second)));
        assert_eq!(inode(&event["listener"]), u64::from(victim.inode(first)), "the one before");
        let tracked = record(&world, victim.pid(), fd).expect("a record");
        assert_eq!(tracked.peer.inode, u64::from(victim.inode(second)));
        assert_eq!(tracked.state, 1, "established");

        // AF_UNSPEC: to nobody.
        victim.ask(&format!("disconnect {fd}"));
        let event = events.next("connect");
        assert!(event["peer"].is_null(), "{}: {event:#}", backend.name());
        assert_eq!(inode(&event["listener"]), u64::from(victim.inode(second)));
        let tracked = record(&world, victim.pid(), fd).expect("a record");
        assert_eq!((tracked.peer.sk, tracked.peer.inode), (0, 0));
        assert_eq!(tracked.state, 7, "closed");
    }
}

#[test]
pub(crate) fn a_send_that_finds_the_peer_gone_ends_the_connection() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for backend in backends::attachable() {
        loses_its_peer(&watched(*backend), *backend);
    }
}

pub(super) fn loses_its_peer(world: &World, backend: Backend) {
    let mut victim = world.victim();
    let (peer, name) = bound(world, &mut victim, b"");
    let fd = victim.client("dgram", &name);
    let gone = victim.inode(peer);
    victim.close(peer);
    let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
    assert_eq!(victim.tell(&format!("send {fd} x")), Err("ECONNREFUSED".to_owned()));
    let tracked = || record(world, victim.pid(), fd).expect("a record");
    if backend == Backend::Trampoline {
        let event = events.event("anything", |_| true);
        assert_eq!(event["event"], "disconnect", "{event:#}");
        assert_eq!(inode(&event["socket"]), u64::from(victim.inode(fd)));
        assert_eq!(inode(&event["peer"]), u64::from(gone));
        assert_eq!((tracked().peer.sk, tracked().peer.inode, tracked().state), (0, 0, 7));
    } else {
        // A blind spot: it goes on as if the peer were there, or had closed.
        assert_eq!((tracked().peer.inode, tracked().state), (gone.into(), 1));
        world.ucr.run(&["reconcile"]).done();
        assert_eq!((tracked().peer.sk, tracked().state), (0, 7));
    }
    // Again is no second time.
    assert_eq!(victim.tell(&format!("send {fd} x")), Err("ENOTCONN".to_owned()));
    victim.ask(&format!("shutdown {fd} read"));
    assert_eq!(events.event("anything", |_| true)["event"], "shutdown");
}

/// Ways to be given a name by the kernel.
const WAYS: [&str; 3] = ["bind", "connect", "send"];

#[test]
pub(crate) fn a_name_that_the_kernel_gives_is_told_as_such() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for backend in backends::attachable() {
        let world = watched(*backend);
        for way in WAYS {
            named_by_the_kernel(&world, *backend, way);
        }
    }
}

fn named_by_the_kernel(world: &World, backend: Backend, way: &str) {
    let mut victim = world.victim();
    let (_, peer) = bound(world, &mut victim, way.as_bytes());
    let fd = victim.socket("dgram");
    if way == "send" {
        victim.connect(fd, &peer);
    }
    let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
    match way {
        "bind" => {
            victim.ask(&format!("autobind {fd}"));
        }
        "connect" => {
            victim.ask(&format!("passcred {fd}"));
            victim.connect(fd, &peer);
        }
        _ => {
            victim.ask(&format!("passcred {fd}"));
            victim.ask(&format!("send {fd} x"));
        }
    }
    let name = victim.name(fd);
    assert_eq!((name.first(), name.len()), (Some(&0), 6), "{name:?}");
    let tracked = || record(world, victim.pid(), fd).expect("a record");
    if backend == Backend::Trampoline {
        let event = events.event("anything", |_| true);
        assert_eq!(
            (text(&event["event"]), &event["fd"]),
            ("autobind", &fd.into()),
            "{way}: {event:#}"
        );
        assert_eq!(inode(&event["socket"]), u64::from(victim.inode(fd)));
        assert_eq!(event["name"]["hex"], hex(&name[1..]));
    } else if way == "send" {
        assert_eq!(tracked().name.len, 0, "a blind spot, until somebody looks");
        world.ucr.run(&["reconcile"]).done();
        assert_eq!(tracked().name.as_bytes(), name);
        return;
    }
    assert_eq!(tracked().name.as_bytes(), name, "{} {way}", backend.name());
    let is_marked = tracked().flags & FLAG_AUTOBOUND != 0;
    assert!(is_marked, "{way}");
    assert_eq!(tracked().binder.pid, victim.pid().cast_unsigned());
    assert!(tracked().bound_at > 0);
}
