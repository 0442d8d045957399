//! Threads: they share the descriptor table, work on the same sockets at once, and leave theirs open.

use std::thread;

use rustix::net::{Shutdown, SocketType, shutdown};

use super::{Worker, calls::Calls};
use crate::tally::Counter;

/// A few threads make sockets and end; another one closes or shuts down what they connect to.
pub(super) fn threads(worker: &mut Worker) -> Option<()> {
    let name = worker.names.own();
    let listener = worker.calls.listener(SocketType::STREAM, &name)?;
    let seeds: Vec<u64> = (0..3).map(|_| worker.calls.rng.u64(..)).collect();
    let made = thread::scope(|scope| {
        let listener = &listener;
        let name = name.as_slice();
        let threads: Vec<_> =
            seeds.into_iter().map(|seed| scope.spawn(move || one(seed, name, listener))).collect();
        if worker.calls.rng.u8(0..3) == 0 {
            worker.calls.count(shutdown(listener, Shutdown::Both));
        }
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect::<Vec<_>>()
    });
    for fd in made {
        worker.keep_perhaps(fd);
    }
    worker.keep_perhaps(listener);
    Some(())
}

fn one(seed: u64, name: &[u8], listener: &std::os::fd::OwnedFd) -> Vec<std::os::fd::OwnedFd> {
    let rng = fastrand::Rng::with_seed(seed);
    let mut calls = Calls { rng, counter: Counter::new() };
    let mut made = Vec::new();
    for _ in 0..6 {
        let fd = if calls.rng.bool() {
            calls.client(SocketType::STREAM, name)
        } else {
            calls.accept(listener)
        };
        made.extend(fd);
    }
    made
}
