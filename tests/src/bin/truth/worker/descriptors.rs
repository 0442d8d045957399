//! Descriptors: several for one socket, one put over another, tables that are copied.

use std::{
    os::{fd::IntoRawFd as _, unix::net::UnixStream},
    thread,
};

use nix::sched::{CloneFlags, unshare};
use rustix::io::{DupFlags, FdFlags, dup, dup2, dup3, fcntl_dupfd_cloexec, fcntl_setfd};

use super::Worker;

/// One more descriptor for a socket.
pub(super) fn duplicate(worker: &mut Worker) -> Option<()> {
    let place = worker.any_place()?;
    let fd = worker.bag.get(place)?;
    let made = if worker.calls.rng.bool() { dup(fd) } else { fcntl_dupfd_cloexec(fd, 3) };
    let made = worker.calls.count(made)?;
    worker.keep(made);
    Some(())
}

/// A socket at another one's number, whose file loses a descriptor.
pub(super) fn replace(worker: &mut Worker) -> Option<()> {
    let mut replaced = {
        let place = worker.any_place()?;
        worker.bag.swap_remove(place)
    };
    if let Some(place) = worker.any_place()
        && let Some(fd) = worker.bag.get(place)
    {
        let done = if worker.calls.rng.bool() {
            dup2(fd, &mut replaced)
        } else {
            dup3(fd, &mut replaced, DupFlags::CLOEXEC)
        };
        worker.calls.count(done);
    }
    worker.keep(replaced);
    Some(())
}

/// Whether a program executed later has it.
pub(super) fn close_on_exec(worker: &mut Worker) -> Option<()> {
    let place = worker.any_place()?;
    let flags = if worker.calls.rng.bool() { FdFlags::CLOEXEC } else { FdFlags::empty() };
    worker.calls.count(fcntl_setfd(worker.bag.get(place)?, flags))
}

/// Fewer descriptors.
pub(super) fn drop_some(worker: &mut Worker) -> Option<()> {
    for _ in 0..worker.calls.rng.u8(1..5) {
        worker.drop_one();
    }
    Some(())
}

/// A thread with a copy of the descriptor table: when it ends, the last descriptor of what was closed
/// in the other table meanwhile goes with it.
pub(super) fn other_table(worker: &mut Worker) -> Option<()> {
    let seed = worker.calls.rng.u64(..);
    thread::scope(|scope| {
        let copy = scope.spawn(move || {
            unshare(CloneFlags::CLONE_FILES).ok()?;
            // Made in the copy, and closed by nobody.
            let (a, b) = UnixStream::pair().ok()?;
            let _numbers = (a.into_raw_fd(), b.into_raw_fd());
            for _ in 0..fastrand::Rng::with_seed(seed).u8(0..50) {
                thread::yield_now();
            }
            Some(())
        });
        drop_some(worker);
        worker.calls.count(copy.join().map_err(drop))?
    })
}
