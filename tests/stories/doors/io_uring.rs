//! Sockets that live through io_uring, whoever does the work: the caller, a worker of the kernel
//! (`IOSQE_ASYNC`) or the thread of the ring (`SQPOLL`).

use serde_json::Value;
use ucr::{kernel::btf::Btf, tracer::hooks::Backend};
use ucr_common::record::{origin, role};
use ucr_tests::{Follower, Need, Uring, World, needs, outside, world::hex};

use super::record;
use crate::{tracing::inode, watched};

/// Who does the work.
const MODES: [&str; 3] = ["plain", "async", "poll"];
/// `EINVAL`: the kernel does not know the operation.
const UNKNOWN: i32 = 22;
/// `TCP_LISTEN`
const LISTENING: u32 = 10;

fn needed(backend: Backend) -> bool {
    needs::met(&[Need::Root, Need::Program("cc"), Need::Backend(backend)])
}

/// A victim in each mode, unless the kernel has no io_uring.
fn rings(world: &World) -> Option<[Uring; 3]> {
    let mut rings = Vec::new();
    for mode in MODES {
        match Uring::start(world, mode) {
            Ok(ring) => rings.push(ring),
            Err(why) => {
                needs::absent(&why);
                return None;
            }
        }
    }
    rings.try_into().ok()
}

/// A listener. `bind` and `listen` go through the ring where the kernel knows them (since 6.11): whether
/// it does.
fn listener(ring: &mut Uring, name: &[u8], backlog: u32) -> (i32, bool) {
    let fd = ring.ask("socket 1");
    let name = hex(name);
    let through_ring = Btf::of_kernel().expect("the kernel's types").prototype("io_bind").is_some();
    if through_ring {
        ring.ask(&format!("bind {fd} {name}"));
        ring.ask(&format!("listen {fd} {backlog}"));
    } else {
        assert_eq!(ring.tell(&format!("bind {fd} {name}")), Err(UNKNOWN));
        ring.ask(&format!("call bind {fd} {name}"));
        ring.ask(&format!("call listen {fd} {backlog}"));
    }
    (fd, through_ring)
}

fn socket_inode(ring: &Uring, fd: i32) -> u64 {
    outside::inode(ring.pid(), fd).expect("a socket").into()
}

/// Who works for a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worker {
    /// The thread that asked.
    Itself,
    /// A thread of the kernel in its process.
    Another,
    /// As it comes.
    Either,
}

/// The next event, which came through this ring.
fn through_ring(events: &mut Follower, ring: &Uring, kind: &str, worker: Worker) -> Value {
    let event = events.event(kind, |_| true);
    assert_eq!((event["event"].as_str(), &event["result"]), (Some(kind), &0.into()), "{event:#}");
    assert_eq!(event["pid"], ring.pid(), "{event:#}");
    let found = if event["tid"] == ring.pid() { Worker::Itself } else { Worker::Another };
    assert!(worker == found || worker == Worker::Either, "{worker:?}: {event:#}");
    assert!(event["fd"].is_null() && event["fd2"].is_null(), "{event:#}");
    event
}

#[test]
pub(crate) fn trampolines_see_every_step_of_it() {
    if !needed(Backend::Trampoline) {
        return;
    }
    let world = watched(Backend::Trampoline);
    let Some(rings) = rings(&world) else { return };
    for (mut ring, mode) in rings.into_iter().zip(MODES) {
        steps(&world, &mut ring, mode);
    }
}

fn worker(mode: &str) -> Worker {
    if mode == "plain" { Worker::Itself } else { Worker::Another }
}

fn steps(world: &World, ring: &mut Uring, mode: &str) {
    let worker = worker(mode);
    let pid = ring.pid();
    let mut events = world.ucr.follow(&["--pid", &pid.to_string()]);
    let name = world.abstract_name(mode.as_bytes());

    let (listening, by_ring) = listener(ring, &name, 9);
    let event = through_ring(&mut events, ring, "socket", worker);
    assert_eq!(inode(&event["socket"]), socket_inode(ring, listening));
    for kind in ["bind", "listen"] {
        // Kernels that do not know these two are told by system calls.
        let event =
            if by_ring { through_ring(&mut events, ring, kind, worker) } else { events.next(kind) };
        assert_eq!(inode(&event["socket"]), socket_inode(ring, listening));
        assert_eq!(event["name"]["hex"], hex(&name[1..]));
    }

    // It waits; when a connection comes, the kernel takes it up behind the back of whatever runs.
    ring.ask(&format!("later accept {listening}"));
    let mut client = world.victim();
    let fd = client.client("stream", &name);
    let accepted = ring.ask("wait");
    // A worker that finds nothing leaves it to the thread, on kernels that poll before they block.
    let waiter = if mode == "async" { Worker::Either } else { worker };
    let event = through_ring(&mut events, ring, "accept", waiter);
    assert_eq!(inode(&event["socket"]), socket_inode(ring, accepted));
    assert_eq!(inode(&event["peer"]), u64::from(client.inode(fd)));
    assert_eq!(inode(&event["listener"]), socket_inode(ring, listening));

    let connecting = ring.ask("socket 1");
    through_ring(&mut events, ring, "socket", worker);
    ring.ask(&format!("connect {connecting} {}", hex(&name)));
    let event = through_ring(&mut events, ring, "connect", worker);
    assert_eq!(inode(&event["socket"]), socket_inode(ring, connecting));
    assert_eq!(inode(&event["listener"]), socket_inode(ring, listening));
    let second = ring.ask(&format!("accept {listening}"));
    through_ring(&mut events, ring, "accept", worker);

    let known = |fd| record(world, pid, fd).expect("a record");
    let (own_pid, client_pid) = (pid.cast_unsigned(), client.pid().cast_unsigned());
    let tracked = known(listening);
    assert_eq!((tracked.origin, tracked.state, tracked.backlog), (origin::SOCKET, LISTENING, 9));
    assert_eq!(tracked.name.as_bytes(), name);
    assert_eq!([tracked.creator, tracked.binder, tracked.opener].map(|who| who.pid), [own_pid; 3]);
    let tracked = known(accepted);
    assert_eq!((tracked.origin, tracked.role), (origin::CONNECTION, role::SERVER));
    assert_eq!((tracked.creator.pid, tracked.opener.pid), (client_pid, own_pid));
    assert_eq!(tracked.listener.inode, socket_inode(ring, listening));
    let (tracked, other) = (known(connecting), known(second));
    assert_eq!((tracked.origin, tracked.role), (origin::SOCKET, role::CLIENT));
    assert_eq!((tracked.peer.inode, other.peer.inode), (other.socket.inode, tracked.socket.inode));

    ring.ask(&format!("shutdown {connecting} 1"));
    // This one always goes to a worker.
    assert_eq!(through_ring(&mut events, ring, "shutdown", Worker::Another)["argument"], 2);
    assert_eq!((known(connecting).shutdown, known(second).shutdown), (2, 1));

    let gone = outside::inode(pid, connecting).expect("a socket");
    ring.ask(&format!("close {connecting}"));
    let event = events.next("close");
    assert_eq!((inode(&event["socket"]), &event["pid"]), (u64::from(gone), &pid.into()));
    assert!(world.ucr.record(gone).is_none());
}

#[test]
fn an_accept_that_waits_is_not_taken_for_the_call_that_it_interrupts() {
    if !needed(Backend::Trampoline) {
        return;
    }
    let world = watched(Backend::Trampoline);
    let Some([mut ring, ..]) = rings(&world) else { return };
    let mut events = world.ucr.follow(&["--pid", &ring.pid().to_string()]);
    let name = world.abstract_name(b"");
    let (listening, _) = listener(&mut ring, &name, 1);
    ring.ask(&format!("later accept {listening}"));
    // Its own client: the work for the ring is done on the way out of connect(2).
    let client = ring.ask("call socket 1");
    ring.ask(&format!("call connect {client} {}", hex(&name)));
    let accepted = ring.ask("wait");
    let event = events.next("connect");
    assert_eq!(
        (&event["fd"], inode(&event["socket"])),
        (&client.into(), socket_inode(&ring, client))
    );
    let event = events.next("accept");
    assert_eq!(inode(&event["socket"]), socket_inode(&ring, accepted));
    assert!(event["fd"].is_null() && event["fd2"].is_null(), "{event:#}");
}

#[test]
pub(crate) fn tracepoints_see_nothing_of_it_until_the_ledger_is_reconciled() {
    if !needed(Backend::Tracepoint) {
        return;
    }
    let world = watched(Backend::Tracepoint);
    let Some(rings) = rings(&world) else { return };
    for (mut ring, mode) in rings.into_iter().zip(MODES) {
        let mut events = world.ucr.follow(&["--pid", &ring.pid().to_string(), "--failed"]);
        let name = world.abstract_name(mode.as_bytes());
        let (listening, by_ring) = listener(&mut ring, &name, 9);
        let client = ring.ask("socket 1");
        ring.ask(&format!("connect {client} {}", hex(&name)));
        let accepted = ring.ask(&format!("accept {listening}"));
        let idle = ring.ask("socket 2");
        let all = [listening, client, accepted, idle];
        // What the system calls tell on kernels whose io_uring does not know bind and listen.
        let told: &[i32] = if by_ring { &[] } else { &[listening] };

        for fd in all {
            let known = record(&world, ring.pid(), fd);
            assert_eq!(known.is_some(), told.contains(&fd), "{mode}: {fd}");
            assert!(known.is_none_or(|known| known.origin == origin::LATE));
        }
        // Events come in order: a call that is seen shows that nothing came before.
        ring.ask("call socket 2");
        let expected: &[&str] = if by_ring { &["socket"] } else { &["bind", "listen", "socket"] };
        for kind in expected {
            assert_eq!(events.event("anything", |_| true)["event"], *kind);
        }

        let report = world.ucr.run(&["reconcile", "--json"]).done().json();
        assert!(report["added"].as_u64() >= Some(3), "{report:#}");
        let known = all.map(|fd| record(&world, ring.pid(), fd).expect("found"));
        let [listening, client, accepted, idle] = known;
        for found in [client, accepted, idle] {
            // Nobody saw who made it, and when.
            assert_eq!((found.origin, found.creator.pid, found.created_at), (origin::FOUND, 0, 0));
        }
        assert_eq!((listening.state, listening.backlog), (LISTENING, 9));
        assert_eq!(listening.name.as_bytes(), name);
        assert_eq!((client.peer.sk, accepted.peer.sk), (accepted.socket.sk, client.socket.sk));
    }
}

#[test]
pub(crate) fn descriptors_go_through_it_too() {
    if !needed(Backend::Trampoline) {
        return;
    }
    let world = watched(Backend::Trampoline);
    let Some(rings) = rings(&world) else { return };
    for (mut ring, mode) in rings.into_iter().zip(MODES) {
        let name = world.abstract_name(mode.as_bytes());
        let (listening, _) = listener(&mut ring, &name, 1);
        let client = ring.ask("socket 1");
        ring.ask(&format!("connect {client} {}", hex(&name)));
        let accepted = ring.ask(&format!("accept {listening}"));
        let carried = ring.ask("socket 2");
        let mut events = world.ucr.follow(&["--pid", &ring.pid().to_string()]);
        ring.ask(&format!("pass {client} {carried}"));
        ring.ask(&format!("take {accepted}"));
        let event = through_ring(&mut events, &ring, "pass", worker(mode));
        assert_eq!(inode(&event["socket"]), socket_inode(&ring, carried));
        assert_eq!(inode(&event["peer"]), socket_inode(&ring, accepted), "into this queue");
        let event = through_ring(&mut events, &ring, "take", worker(mode));
        assert_eq!(inode(&event["socket"]), socket_inode(&ring, carried));
        assert!(event["peer"].is_null(), "from which socket, cannot be told: {event:#}");
    }
}
