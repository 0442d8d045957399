//! A full backlog: `connect` waits, with a sock made that is nobody's yet, until there is room, the
//! listener dies, or a signal comes.

use std::{
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::thread::JoinHandleExt as _,
    },
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    poll::{PollTimeout, poll},
    sys::{pthread::pthread_kill, signal::Signal},
};
use rustix::net::{SocketType, listen};
use ucr::sys::addr;

use super::Worker;

/// Longer than any worker lives: only so that a mistake in here ends.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a client waits that nobody helps.
const IMPATIENCE: Duration = Duration::from_millis(30);

/// Lets the signal of [`signal`] interrupt calls instead of killing.
pub(super) fn take_signals() -> Result<()> {
    let came = Arc::new(AtomicBool::new(false));
    let registered = signal_hook::flag::register(Signal::SIGUSR1 as i32, came);
    registered.map(drop).context("take a signal")
}

/// What happens to the client that waits.
enum Relief {
    ListenerDies,
    Signal,
    Accept,
}

/// The listener closes, with its embryos, while a client waits for room.
pub(super) fn listener_dies(worker: &mut Worker) -> Option<()> {
    at_full_door(worker, PATIENCE, &Relief::ListenerDies)
}

/// A signal comes while a client waits: with a time limit the call fails (`EINTR`).
pub(super) fn signal(worker: &mut Worker) -> Option<()> {
    at_full_door(worker, IMPATIENCE, &Relief::Signal)
}

/// There is room after a while.
pub(super) fn opens(worker: &mut Worker) -> Option<()> {
    at_full_door(worker, PATIENCE, &Relief::Accept)
}

fn at_full_door(worker: &mut Worker, patience: Duration, relief: &Relief) -> Option<()> {
    let name = worker.names.own();
    let socket_type = worker.calls.connecting_type();
    let listener = full(worker, socket_type, &name)?;
    let waiting = worker.calls.patient_socket(socket_type, patience)?;
    let client = thread::spawn(move || {
        // Whether it got through is left to the others.
        addr::connect(waiting.as_fd(), &name).ok();
        waiting
    });
    // Long enough to be waiting at times, and not at others.
    let moment = PollTimeout::from(worker.calls.rng.u8(0..3));
    worker.calls.counter.add(1);
    let _interrupted = poll(&mut [], moment);
    match relief {
        Relief::ListenerDies => {}
        Relief::Signal => {
            worker.calls.count(pthread_kill(client.as_pthread_t(), Signal::SIGUSR1));
        }
        Relief::Accept => {
            if let Some(server) = worker.calls.accept(&listener) {
                worker.keep_perhaps(server);
            }
        }
    }
    // After a signal the client has given up, or does so by itself.
    let is_left_open = matches!(relief, Relief::Signal) && worker.calls.rng.bool();
    let kept = if is_left_open {
        Some(listener)
    } else {
        worker.close(listener);
        None
    };
    let fd = client.join().ok()?;
    rustix::io::ioctl_fionbio(&fd, true).ok()?;
    worker.keep_perhaps(fd);
    worker.bag.extend(kept);
    Some(())
}

/// A listener whose backlog of 0 is full with its one connection.
fn full(worker: &mut Worker, socket_type: SocketType, name: &[u8]) -> Option<OwnedFd> {
    let listener = worker.calls.socket(socket_type)?;
    worker.calls.bind(&listener, name)?;
    worker.calls.count(listen(&listener, 0))?;
    let first = worker.calls.client(socket_type, name)?;
    worker.keep_perhaps(first);
    Some(listener)
}
