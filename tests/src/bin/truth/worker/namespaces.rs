//! Network namespaces: abstract names live in one, paths lead from each into all, and a socket stays
//! in the one it was made in wherever its descriptors go.

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use super::{Task, Worker, calls::Calls, foreign_file, streams};
use crate::tally::Counter;

/// This worker works in a namespace of its own from now on; the others find it by a file.
pub(super) fn leave(task: &Task) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let file = foreign_file(&task.folder, task.number);
    fs::write(file, std::process::id().to_string())
}

/// Makes sockets in the namespace of another worker, by a thread that enters it.
pub(super) fn visit(worker: &mut Worker) -> Option<()> {
    let to = worker.calls.rng.usize(0..worker.task.workers);
    let pid = fs::read_to_string(foreign_file(&worker.task.folder, to)).ok()?;
    let there = File::open(format!("/proc/{pid}/ns/net")).ok()?;
    make(worker, move || setns(there, CloneFlags::CLONE_NEWNET))
}

/// Makes sockets in a namespace that no process is in any more: they keep it alive.
pub(super) fn fresh(worker: &mut Worker) -> Option<()> {
    make(worker, || unshare(CloneFlags::CLONE_NEWNET))
}

/// A thread goes somewhere and makes sockets there: an abstract name that exists elsewhere too, a
/// connection by a path that leads out of there.
fn make(worker: &mut Worker, go: impl FnOnce() -> nix::Result<()> + Send) -> Option<()> {
    let seed = worker.calls.rng.u64(..);
    let (shared, path) = (worker.shared_name(), worker.names.common(1));
    let socket_type = worker.calls.connecting_type();
    let made: Vec<OwnedFd> = thread::scope(|scope| {
        let there = scope.spawn(move || {
            let mut calls = Calls { rng: fastrand::Rng::with_seed(seed), counter: Counter::new() };
            calls.count(go())?;
            let mut made = Vec::new();
            made.extend(calls.listener(socket_type, &shared));
            made.extend(calls.client(socket_type, &shared));
            made.extend(calls.client(rustix::net::SocketType::STREAM, &path));
            if let Some((a, b)) = calls.pair(socket_type) {
                made.extend([a, b]);
            }
            Some(made)
        });
        there.join().ok().flatten()
    })?;
    for fd in made {
        worker.keep_perhaps(fd);
    }
    streams::accept(worker)
}
