//! What no tracer sees is no conflict: ends of peers, names that the kernel gives by itself.

use ucr_tests::{Need, needs, outside, ucr::REFUSED, wait};

use super::{count, dump, obstacles::at, socket};
use crate::world;

#[test]
fn a_peer_that_exec_closed_is_no_conflict() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let gone = victim.inode(b);
    let mut child = victim.child(&world.control());
    victim.close(b);
    child.close(a);
    child.ask(&format!("dupcloexec {b} 50"));
    child.close(b);
    // A second thread: as long as it lives, the table is shared.
    child.ask("count");
    child.order("exec");
    child.again();
    assert_eq!(outside::inode(child.pid(), 50), None);
    assert!(outside::sockets(child.pid()).values().all(|inode| *inode != gone));

    let report = dump(&world, &victim, &world.path("image"), &[]).done().json();
    assert_eq!(count(&report, "conflict"), 0, "{report:#}");
    assert_eq!(socket(&report, victim.inode(a))["verdict"], "confirmed");
}

#[test]
fn a_peer_that_held_it_twice_and_exited_is_no_conflict() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    for ending in ["exit", "closed"] {
        let mut victim = world.victim();
        let (a, b) = victim.pair("seqpacket");
        let inode = victim.inode(b);
        let mut child = victim.child(&world.control());
        victim.close(b);
        child.close(a);
        for copy in [60, 61, 700] {
            child.ask(&format!("dup {b} {copy}"));
        }
        assert!(world.ucr.record(inode).is_some());
        if ending == "exit" {
            child.order("exit");
            wait::until("the child's end", || (!wait::is_alive(child.pid())).then_some(()));
        } else {
            for copy in [b, 60, 700, 61] {
                assert!(world.ucr.record(inode).is_some(), "one is left");
                child.close(copy);
            }
        }
        wait::until("the record to go", || world.ucr.record(inode).is_none().then_some(()));
        let report = dump(&world, &victim, &world.path("image"), &[]).done().json();
        assert_eq!(count(&report, "conflict"), 0, "{report:#}");
        assert_eq!(world.ucr.record(victim.inode(a)).expect("a record").peer.sk, 0, "it was seen");
    }
}

#[test]
fn a_datagram_server_with_a_connected_client_is_confirmed() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    let mut other = world.victim();
    let name = world.abstract_name(b"");
    let server = victim.socket("dgram");
    victim.bind(server, &name);
    let within = victim.client("dgram", &name);
    let outside = other.client("dgram", &name);

    let report = dump(&world, &victim, &world.path("image"), &[]).ended(REFUSED).json();
    for fd in [server, within] {
        assert_eq!(socket(&report, victim.inode(fd))["verdict"], "confirmed", "{report:#}");
    }
    // That it is refused is another matter.
    let obstacle = at(&report, server);
    assert_eq!(obstacle["kind"], "external_senders", "{report:#}");
    assert_eq!(obstacle["holders"][0]["pid"], other.pid());
    assert_eq!(report["obstacles"].as_array().expect("a list").len(), 1, "{report:#}");

    // Without its client it is what it was, to the kernel and to the ledger.
    other.close(outside);
    victim.close(within);
    let report = dump(&world, &victim, &world.path("image"), &[]).done().json();
    assert_eq!(socket(&report, victim.inode(server))["verdict"], "confirmed", "{report:#}");

    // A client whose server has gone.
    let left = victim.client("dgram", &name);
    victim.close(server);
    let report = dump(&world, &victim, &world.path("image"), &[]).done().json();
    assert_eq!(socket(&report, victim.inode(left))["verdict"], "confirmed", "{report:#}");
}

#[test]
fn a_name_that_the_kernel_gave_is_no_conflict() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    let (a, b) = victim.pair("seqpacket");
    victim.ask(&format!("passcred {a}"));
    victim.ask(&format!("send {a} hello"));
    assert_eq!(victim.ask(&format!("recv {b}")), "hello");
    let name = victim.name(a);
    assert_eq!((name.len(), name[0]), (6, 0), "a NUL and five digits");
    assert_eq!(world.ucr.record(victim.inode(a)).expect("a record").name.len, 0, "unseen");
    let report = dump(&world, &victim, &world.path("image"), &[]).done().json();
    assert_eq!(count(&report, "confirmed"), 2, "{report:#}");
    assert_eq!(socket(&report, victim.inode(a))["name"]["kind"], "abstract");
}
