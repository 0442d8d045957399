//! Processes: children that inherit sockets and end with them, the worker replacing itself, its end.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{Task, Worker};
use crate::own_program;

/// A child with everything that is not closed on exec. It lives for a while, or is killed at once, and
/// dies with its parent.
pub(super) fn child(worker: &mut Worker) -> Option<()> {
    reap();
    if worker.is_child() {
        return None;
    }
    let acts = worker.calls.rng.u32(1..300);
    let seed = worker.calls.rng.u64(..);
    let task = Task { seed, acts: Some(acts), foreign: false, ..worker.task.clone() };
    let started = command(&task)?.spawn();
    let child = worker.calls.count(started)?;
    if worker.calls.rng.u8(0..4) == 0 {
        let pid = Pid::from_raw(i32::try_from(child.id()).ok()?);
        worker.calls.count(kill(pid, Signal::SIGKILL));
    }
    Some(())
}

/// The worker executes itself anew: what is closed on exec goes, the rest is taken over.
pub(super) fn executes(worker: &mut Worker) -> Option<()> {
    let seed = worker.calls.rng.u64(..);
    worker.calls.counter.add(1);
    worker.calls.counter.report();
    // In its network namespace it is already.
    let task = Task { seed, foreign: false, ..worker.task.clone() };
    let _failed = command(&task)?.exec();
    None
}

/// The process ends, with all that it has.
pub(super) fn ends(worker: &mut Worker) -> Option<()> {
    worker.calls.counter.add(1);
    worker.calls.counter.report();
    std::process::exit(0)
}

fn command(task: &Task) -> Option<Command> {
    let mut command = own_program("work").ok()?;
    command.args(task.arguments()).stdin(Stdio::null());
    Some(command)
}

/// Children of a worker that has executed itself are still its children.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}
