//! Sockets that are older than the tracer are known, and marked as such.

use ucr_common::record::origin;
use ucr_tests::{Need, needs};

use crate::world;

#[test]
fn sockets_older_than_the_tracer_are_known() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let name = world.abstract_name(b"");
    let listener = victim.listener("seqpacket", &name, 9);
    let client = victim.client("seqpacket", &name);
    let accepted = victim.accept(listener);
    world.ucr.attach();

    let record = |fd| world.ucr.record(victim.inode(fd)).expect("a record");
    let seeded = record(listener);
    assert_eq!(seeded.origin, origin::SEED);
    assert_eq!((seeded.state, seeded.backlog, seeded.created_at), (10, 9, 0));
    assert_eq!(seeded.name.as_bytes(), name);
    assert_eq!(record(client).peer.sk, record(accepted).socket.sk);
    assert_eq!(record(accepted).peer.sk, record(client).socket.sk);
}

#[test]
fn also_those_in_another_network_namespace() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    victim.ask("unshare");
    let name = world.abstract_name(b"");
    let listener = victim.listener("stream", &name, 3);
    world.ucr.attach();
    let record = world.ucr.record(victim.inode(listener)).expect("a record");
    assert_eq!(record.origin, origin::SEED);
    assert_eq!(record.name.as_bytes(), name);

    // And live, with the namespace named.
    let later = victim.socket("stream");
    let live = world.ucr.record(victim.inode(later)).expect("a record");
    assert_eq!((live.origin, live.netns), (origin::SOCKET, record.netns));
}
