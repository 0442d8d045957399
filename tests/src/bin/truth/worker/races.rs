//! Two calls at the same moment on sockets that belong together: one changes what the other one reads.

use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicU8, Ordering},
    thread,
};

use rustix::net::{Shutdown, SocketType, listen, shutdown};

use super::{Worker, calls::Calls};
use crate::tally::Counter;

/// Makes sockets and lets two threads at them.
type Race = fn(&mut Worker) -> Option<()>;

const RACES: [Race; 12] = [
    shutdown_shutdown,
    close_shutdown,
    close_close,
    connect_each_other,
    reconnect_disconnect,
    send_reconnect,
    connect_close,
    accept_close,
    accept_shutdown,
    connect_dying,
    listen_listen,
    bind_autobind,
];

/// One of them.
pub(super) fn any(worker: &mut Worker) -> Option<()> {
    let place = worker.calls.rng.usize(0..RACES.len());
    RACES.get(place)?(worker)
}

/// Both at once, as far as that can be had: each waits, busily, until the other one is there.
fn both<A, B: Send>(
    worker: &mut Worker,
    one: impl FnOnce(&mut Calls) -> A,
    other: impl FnOnce(&mut Calls) -> B + Send,
) {
    let seed = worker.calls.rng.u64(..);
    let there = AtomicU8::new(0);
    let meet = || {
        there.fetch_add(1, Ordering::AcqRel);
        while there.load(Ordering::Acquire) < 2 {
            // With one processor it is the other one's turn.
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let rng = fastrand::Rng::with_seed(seed);
            let mut calls = Calls { rng, counter: Counter::new() };
            meet();
            other(&mut calls)
        });
        meet();
        one(&mut worker.calls);
    });
}

fn close(calls: &mut Calls, fd: OwnedFd) {
    calls.counter.add(1);
    drop(fd);
}

fn keep_all<const N: usize>(worker: &mut Worker, fds: [OwnedFd; N]) -> Option<()> {
    for fd in fds {
        worker.keep_perhaps(fd);
    }
    Some(())
}

/// A datagram socket with a name.
fn bound(worker: &mut Worker) -> Option<(OwnedFd, Vec<u8>)> {
    let name = worker.names.own();
    let fd = worker.calls.socket(SocketType::DGRAM)?;
    worker.calls.bind(&fd, &name)?;
    Some((fd, name))
}

/// A connection that is not accepted yet: listener, client.
fn waiting(worker: &mut Worker) -> Option<(OwnedFd, OwnedFd)> {
    let name = worker.names.own();
    let socket_type = worker.calls.connecting_type();
    let listener = worker.calls.listener(socket_type, &name)?;
    let client = worker.calls.client(socket_type, &name)?;
    Some((listener, client))
}

fn shutdown_shutdown(worker: &mut Worker) -> Option<()> {
    let socket_type = worker.calls.any_type();
    let (a, b) = worker.calls.pair(socket_type)?;
    let same = worker.calls.rng.bool();
    let of = if same { &a } else { &b };
    both(
        worker,
        |calls| calls.count(shutdown(&a, Shutdown::Read)),
        |calls| calls.count(shutdown(of, Shutdown::Write)),
    );
    keep_all(worker, [a, b])
}

fn close_shutdown(worker: &mut Worker) -> Option<()> {
    let socket_type = worker.calls.connecting_type();
    let (a, b) = worker.calls.pair(socket_type)?;
    both(worker, |calls| calls.shutdown(&b), |calls| close(calls, a));
    keep_all(worker, [b])
}

fn close_close(worker: &mut Worker) -> Option<()> {
    let socket_type = worker.calls.any_type();
    let (a, b) = worker.calls.pair(socket_type)?;
    both(worker, |calls| close(calls, b), |calls| close(calls, a));
    Some(())
}

fn connect_each_other(worker: &mut Worker) -> Option<()> {
    let (a, name_a) = bound(worker)?;
    let (b, name_b) = bound(worker)?;
    both(worker, |calls| calls.connect(&a, &name_b), |calls| calls.connect(&b, &name_a));
    both(worker, |calls| calls.disconnect(&a), |calls| calls.connect(&b, &name_b));
    keep_all(worker, [a, b])
}

fn reconnect_disconnect(worker: &mut Worker) -> Option<()> {
    let (a, _) = bound(worker)?;
    let (b, name_b) = bound(worker)?;
    let (c, name_c) = bound(worker)?;
    worker.calls.connect(&a, &name_b)?;
    let disconnects = worker.calls.rng.bool();
    both(
        worker,
        |calls| calls.connect(&a, &name_c),
        |calls| if disconnects { calls.disconnect(&a) } else { calls.connect(&a, &name_b) },
    );
    keep_all(worker, [a, b, c])
}

/// A send finds the peer gone, while another call gives the socket a new one.
fn send_reconnect(worker: &mut Worker) -> Option<()> {
    let (a, _) = bound(worker)?;
    let (b, name_b) = bound(worker)?;
    let (c, name_c) = bound(worker)?;
    worker.calls.connect(&a, &name_b)?;
    worker.close(b);
    both(worker, |calls| calls.connect(&a, &name_c), |calls| calls.send(&a));
    keep_all(worker, [a, c])
}

fn connect_close(worker: &mut Worker) -> Option<()> {
    let (a, _) = bound(worker)?;
    let (b, name_b) = bound(worker)?;
    both(worker, |calls| calls.connect(&a, &name_b), |calls| close(calls, b));
    if worker.calls.rng.bool() {
        worker.calls.send(&a);
    }
    keep_all(worker, [a])
}

fn accept_close(worker: &mut Worker) -> Option<()> {
    let (listener, client) = waiting(worker)?;
    let mut accepted = None;
    both(worker, |calls| accepted = calls.accept(&listener), |calls| close(calls, client));
    keep_all(worker, [accepted?, listener])
}

fn accept_shutdown(worker: &mut Worker) -> Option<()> {
    let (listener, client) = waiting(worker)?;
    let mut accepted = None;
    both(worker, |calls| accepted = calls.accept(&listener), |calls| calls.shutdown(&client));
    keep_all(worker, [accepted?, client])
}

/// A client comes while its listener closes.
fn connect_dying(worker: &mut Worker) -> Option<()> {
    let name = worker.names.own();
    let listener = worker.calls.listener(SocketType::STREAM, &name)?;
    let client = worker.calls.socket(SocketType::STREAM)?;
    both(worker, |calls| calls.connect(&client, &name), |calls| close(calls, listener));
    keep_all(worker, [client])
}

fn listen_listen(worker: &mut Worker) -> Option<()> {
    let name = worker.names.own();
    let fd = worker.calls.socket(SocketType::STREAM)?;
    worker.calls.bind(&fd, &name)?;
    both(worker, |calls| calls.count(listen(&fd, 1)), |calls| calls.count(listen(&fd, 2)));
    keep_all(worker, [fd])
}

fn bind_autobind(worker: &mut Worker) -> Option<()> {
    let name = worker.names.own();
    let socket_type = worker.calls.any_type();
    let fd = worker.calls.socket(socket_type)?;
    both(worker, |calls| calls.bind(&fd, &name), |calls| calls.autobind(&fd));
    keep_all(worker, [fd])
}
