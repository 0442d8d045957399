//! Descriptors that go from process to process: in messages (`SCM_RIGHTS`), and out of a process that
//! is not asked (`pidfd_getfd`).

use ucr::{kernel::btf::Btf, tracer::hooks::Backend};
use ucr_tests::{Need, World, needs, outside, wait, world::hex};

use super::cookie;
use crate::{tracing::inode, watched};

#[test]
pub(crate) fn who_passed_which_socket_to_whom_is_told() {
    if !needs::met(&[Need::Root, Need::Backend(Backend::Trampoline)]) {
        return;
    }
    pass_and_take(&watched(Backend::Trampoline));
}

pub(super) fn pass_and_take(world: &World) {
    for kind in ["stream", "seqpacket"] {
        let (mut sender, mut receiver) = (world.victim(), world.victim());
        let name = world.abstract_name(kind.as_bytes());
        let listener = receiver.listener(kind, &name, 1);
        let fd = sender.client(kind, &name);
        let accepted = receiver.accept(listener);
        let carried = sender.socket("dgram");
        let carried_inode = sender.inode(carried);

        let pids = [sender.pid().to_string(), receiver.pid().to_string()];
        let mut events = world.ucr.follow(&["--pid", &pids[0], "--pid", &pids[1]]);
        sender.ask(&format!("pass {carried} {fd}"));
        let event = events.event("anything", |_| true);
        assert_eq!((&event["event"], &event["pid"]), (&"pass".into(), &sender.pid().into()));
        assert_eq!(event["fd"], fd, "over this descriptor: {event:#}");
        assert_eq!(
            (inode(&event["socket"]), &event["type"]),
            (carried_inode.into(), &"dgram".into())
        );
        assert_eq!(inode(&event["peer"]), u64::from(receiver.inode(accepted)), "into this queue");

        let taken = receiver.ask(&format!("take {accepted}")).parse().expect("a number");
        let event = events.event("anything", |_| true);
        assert_eq!((&event["event"], &event["pid"]), (&"take".into(), &receiver.pid().into()));
        assert_eq!(event["fd"], accepted, "read from this descriptor: {event:#}");
        assert_eq!(inode(&event["socket"]), u64::from(carried_inode));
        assert_eq!(inode(&event["peer"]), u64::from(receiver.inode(accepted)));
        assert_eq!(receiver.inode(taken), carried_inode);
    }
}

#[test]
pub(crate) fn what_is_sent_to_an_address_goes_into_that_queue() {
    if !needs::met(&[Need::Root, Need::Backend(Backend::Trampoline)]) {
        return;
    }
    // Where a message is seen on its way into the queue, and not before.
    let types = Btf::of_kernel().expect("the kernel's types");
    let is_seen_queued = types.prototype("unix_add_edges").is_some();
    send_to_an_address(&watched(Backend::Trampoline), is_seen_queued);
}

pub(super) fn send_to_an_address(world: &World, is_seen_queued: bool) {
    let mut victim = world.victim();
    let (name, other) = (world.abstract_name(b"receiver"), world.abstract_name(b"peer"));
    let receivers = [&name, &other].map(|name| {
        let fd = victim.socket("dgram");
        victim.bind(fd, name);
        fd
    });
    let sender = victim.socket("dgram");
    victim.connect(sender, &other);
    let carried = victim.socket("stream");
    let pid = victim.pid();
    let mut events = world.ucr.follow(&["--pid", &pid.to_string()]);
    victim.ask(&format!("pass {carried} {sender} {}", hex(&name)));
    let event = events.next("pass");
    assert_eq!(inode(&event["socket"]), u64::from(victim.inode(carried)));
    if is_seen_queued {
        assert_eq!(inode(&event["peer"]), u64::from(victim.inode(receivers[0])));
    } else {
        assert!(event["peer"].is_null(), "not the peer: {event:#}");
    }
}

#[test]
fn a_socket_that_lives_only_in_a_message_stays_in_the_ledger() {
    if !needs::met(&[Need::Root, Need::Backend(Backend::Trampoline)]) {
        return;
    }
    let world = watched(Backend::Trampoline);
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let carried = victim.socket("seqpacket");
    let inode_of_it = victim.inode(carried);
    let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
    victim.ask(&format!("pass {carried} {a}"));
    victim.close(carried);
    assert!(outside::sockets(victim.pid()).values().all(|inode| *inode != inode_of_it));
    assert!(world.ucr.record(inode_of_it).is_some(), "in flight, and alive");
    let taken: i32 = victim.ask(&format!("take {b}")).parse().expect("a number");
    assert_eq!(victim.inode(taken), inode_of_it);

    // Again, but nobody takes it: it goes with the queue.
    victim.ask(&format!("pass {taken} {a}"));
    victim.close(taken);
    assert!(world.ucr.record(inode_of_it).is_some());
    victim.close(a);
    victim.close(b);
    wait::until("its end", || world.ucr.record(inode_of_it).is_none().then_some(()));
    let kinds = ["pass", "take", "pass", "close", "close", "close"];
    let seen = kinds.map(|_| events.event("anything", |_| true));
    assert_eq!(seen.each_ref().map(|event| event["event"].as_str().unwrap_or_default()), kinds);
    let closed: Vec<u64> = seen[3..].iter().map(|event| inode(&event["socket"])).collect();
    assert!(closed.contains(&inode_of_it.into()), "{closed:?}");
}

#[test]
fn a_descriptor_taken_out_of_a_process_comes_from_no_queue() {
    if !needs::met(&[Need::Root, Need::Backend(Backend::Trampoline)]) {
        return;
    }
    let world = watched(Backend::Trampoline);
    let (mut owner, mut taker) = (world.victim(), world.victim());
    let fd = owner.socket("stream");
    let mut events = world.ucr.follow(&["--pid", &taker.pid().to_string()]);
    let taken = taker.ask(&format!("getfd {} {fd}", owner.pid())).parse().expect("a number");
    let event = events.event("anything", |_| true);
    assert_eq!((&event["event"], &event["pid"]), (&"take".into(), &taker.pid().into()));
    assert_eq!(inode(&event["socket"]), u64::from(owner.inode(fd)));
    assert_eq!(taker.inode(taken), owner.inode(fd));
    assert!(event["peer"].is_null() && event["fd"].is_null(), "{event:#}");
    assert!(cookie(&event["socket"]) != 0);

    // Two holders: the first close is none.
    owner.close(fd);
    assert!(world.ucr.record(taker.inode(taken)).is_some());
}

#[test]
pub(crate) fn tracepoints_tell_nothing_of_it() {
    if !needs::met(&[Need::Root, Need::Backend(Backend::Tracepoint)]) {
        return;
    }
    let world = watched(Backend::Tracepoint);
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let carried = victim.socket("dgram");
    let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
    victim.ask(&format!("pass {carried} {a}"));
    let taken = victim.ask(&format!("take {b}"));
    victim.ask(&format!("getfd {} {carried}", victim.pid()));
    // Events come in order: the first one that is seen shows that none came before.
    victim.ask(&format!("shutdown {a} write"));
    assert_eq!(events.event("anything", |_| true)["event"], "shutdown");
    // What it is about, it knows all the same: a second descriptor is no second socket.
    victim.close(carried);
    let carried_inode = victim.inode(taken.parse().expect("a number"));
    assert!(world.ucr.record(carried_inode).is_some());
}
