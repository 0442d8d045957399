//! Stops the threads of a process or tree, all of them, and lets them go on.
//!
//! `PTRACE_SEIZE` and `PTRACE_INTERRUPT`: they send no signal, keep a job-control stop as it was,
//! and if ucr is killed the kernel lets every thread go on. (A cgroup freezer would leave them
//! frozen then, and takes in whatever else lives in that cgroup.)

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd,
};

use super::procfs::{self, ProcError};
use crate::model::Pid;

/// How long one thread may take to stop. It is at once unless the thread sits in the kernel where
/// it cannot be interrupted.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often `/proc` is looked at again for threads and children that came meanwhile.
const ROUNDS: u32 = 100;

/// What is to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One process.
    Process,
    /// A process and all its descendants.
    Tree,
}

/// Why a process could not be stopped. Whatever had been stopped by then goes on.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// There is no such process.
    #[error("process {0} does not exist")]
    NoSuchProcess(Pid),
    /// It is a zombie: its descriptors are gone.
    #[error("process {0} has exited and waits to be reaped: it has no descriptors any more")]
    Zombie(Pid),
    /// It is a thread.
    #[error("{thread} is a thread of process {process}")]
    Thread {
        /// What was asked for.
        thread: Pid,
        /// What it belongs to.
        process: Pid,
    },
    /// ucr cannot stop itself.
    #[error("process {0} is ucr itself, or one that ucr is a child of in the tree to be stopped")]
    Ourselves(Pid),
    /// Somebody else traces it.
    #[error("thread {thread} of process {pid} is traced by process {tracer}")]
    Traced {
        /// Process.
        pid: Pid,
        /// Thread.
        thread: Pid,
        /// By whom.
        tracer: Pid,
    },
    /// The kernel does not let us.
    #[error("stop thread {thread} of process {pid}")]
    Refused {
        /// Process.
        pid: Pid,
        /// Thread.
        thread: Pid,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not stop.
    #[error(
        "thread {thread} of process {pid} did not stop within {} s (state {state})",
        PATIENCE.as_secs()
    )]
    Unstoppable {
        /// Process.
        pid: Pid,
        /// Thread.
        thread: Pid,
        /// As `ps` shows it.
        state: char,
    },
    /// It made threads or children faster than they could be stopped.
    #[error("process {0} makes threads or children faster than they can be stopped")]
    Growing(Pid),
    /// `/proc` could not be read.
    #[error("look at process {pid}")]
    Proc {
        /// Process.
        pid: Pid,
        /// Why.
        #[source]
        source: ProcError,
    },
}

impl FreezeError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run it as root, or with CAP_SYS_PTRACE")
            }
            Self::Traced { .. } => Some("end the debugger or tracer first"),
            Self::Thread { .. } => Some("name the process instead"),
            Self::Ourselves(_) => Some("run ucr from outside of the tree"),
            _ => None,
        }
    }
}

/// Stopped processes. They go on when this is dropped.
#[derive(Debug)]
pub struct Frozen {
    pids: Vec<Pid>,
    /// Each stopped thread, with its process and the signal that it was about to receive.
    threads: BTreeMap<Pid, (Pid, Option<Signal>)>,
}

/// Stops a process or tree.
///
/// # Errors
/// See [`FreezeError`].
pub fn freeze(root: Pid, scope: Scope) -> Result<Frozen, FreezeError> {
    let look = |source: ProcError| match source.is_gone() {
        true => FreezeError::NoSuchProcess(root),
        false => FreezeError::Proc { pid: root, source },
    };
    let status = procfs::status(root).map_err(look)?;
    if status.process != root {
        return Err(FreezeError::Thread { thread: root, process: status.process });
    }
    let mut frozen = Frozen { pids: Vec::new(), threads: BTreeMap::new() };
    for _ in 0..ROUNDS {
        let pids = match scope {
            Scope::Process => vec![root],
            Scope::Tree => procfs::tree(root).map_err(look)?,
        };
        if let Some(pid) = pids.iter().find(|pid| pid.0 == unistd::getpid().as_raw()) {
            return Err(FreezeError::Ourselves(*pid));
        }
        let before = frozen.threads.len();
        for pid in &pids {
            frozen.stop_process(*pid, root)?;
        }
        frozen.pids = pids.into_iter().filter(|pid| frozen.threads.contains_key(pid)).collect();
        if frozen.threads.len() == before {
            // A whole round found nothing new, while everything known stood still.
            return Ok(frozen);
        }
    }
    Err(FreezeError::Growing(root))
}

impl Frozen {
    /// The stopped processes, parents before children.
    #[must_use]
    pub fn pids(&self) -> &[Pid] {
        &self.pids
    }

    /// Ends every stopped process by SIGKILL and returns when all are dead and their descriptors
    /// closed.
    ///
    /// # Errors
    /// The kernel's; what could not be killed goes on.
    pub fn kill(mut self) -> io::Result<()> {
        for pid in &self.pids {
            match kill(unistd::Pid::from_raw(pid.0), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        // As its tracer we hear of each thread's end before its parent does; of a process's first
        // thread only after we have heard of all others (`delay_group_leader`).
        let threads = std::mem::take(&mut self.threads);
        let is_first = |(thread, (pid, _)): &(&Pid, &(Pid, Option<Signal>))| *thread == pid;
        let (first, others): (Vec<_>, Vec<_>) = threads.iter().partition(is_first);
        for (thread, _) in others.into_iter().chain(first) {
            wait_for_end(*thread)?;
        }
        Ok(())
    }

    fn stop_process(&mut self, pid: Pid, root: Pid) -> Result<(), FreezeError> {
        let threads = match procfs::threads(pid) {
            Ok(threads) => threads,
            // A child that went meanwhile; the root must stay.
            Err(error) if error.is_gone() && pid != root => return Ok(()),
            Err(error) if error.is_gone() => return Err(FreezeError::NoSuchProcess(pid)),
            Err(source) => return Err(FreezeError::Proc { pid, source }),
        };
        for thread in threads {
            if self.threads.contains_key(&thread) {
                continue;
            }
            match stop_thread(pid, thread)? {
                Stop::Stopped(signal) => {
                    self.threads.insert(thread, (pid, signal));
                }
                Stop::Gone if thread == root => return Err(FreezeError::NoSuchProcess(root)),
                Stop::Gone => {}
            }
        }
        Ok(())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for (thread, (_, signal)) in &self.threads {
            // It may have been killed meanwhile; nothing is left to be done for it then.
            let _ = ptrace::detach(unistd::Pid::from_raw(thread.0), *signal);
        }
    }
}

enum Stop {
    /// It stands, perhaps on the way to receiving a signal.
    Stopped(Option<Signal>),
    /// It ended.
    Gone,
}

fn stop_thread(pid: Pid, thread: Pid) -> Result<Stop, FreezeError> {
    let raw = unistd::Pid::from_raw(thread.0);
    let refused = |errno: Errno| FreezeError::Refused { pid, thread, source: errno.into() };
    match ptrace::seize(raw, ptrace::Options::empty()) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Ok(Stop::Gone),
        Err(errno) => {
            let Ok(status) = procfs::status(thread) else { return Ok(Stop::Gone) };
            return Err(match status {
                procfs::Status { tracer, .. } if tracer != Pid(0) => {
                    FreezeError::Traced { pid, thread, tracer }
                }
                procfs::Status { state: 'Z' | 'X', .. } if thread == pid => {
                    FreezeError::Zombie(pid)
                }
                procfs::Status { state: 'Z' | 'X', .. } => return Ok(Stop::Gone),
                _ => refused(errno),
            });
        }
    }
    let stopped = match ptrace::interrupt(raw) {
        Ok(()) => wait_for_stop(pid, thread),
        Err(Errno::ESRCH) => Ok(Stop::Gone),
        Err(errno) => Err(refused(errno)),
    };
    if stopped.is_err() {
        // Seized, but not stopped: it cannot be detached before it stops. Our own end, which
        // comes soon after this error, lets it go.
        let _ = ptrace::detach(raw, None);
    }
    stopped
}

fn wait_for_stop(pid: Pid, thread: Pid) -> Result<Stop, FreezeError> {
    let raw = unistd::Pid::from_raw(thread.0);
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(20);
    loop {
        match waitpid(raw, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            // The stop that we asked for, or one of job control that was there.
            Ok(WaitStatus::PtraceEvent(..)) => return Ok(Stop::Stopped(None)),
            // A signal was faster. It is delivered when the thread goes on.
            Ok(WaitStatus::Stopped(_, signal)) => return Ok(Stop::Stopped(Some(signal))),
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => {
                return Ok(Stop::Gone);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(FreezeError::Refused { pid, thread, source: errno.into() });
            }
        }
        if Instant::now() > deadline {
            let state = procfs::status(thread).map_or('?', |status| status.state);
            return Err(FreezeError::Unstoppable { pid, thread, state });
        }
        // There is no descriptor to wait on for a tracee's stop.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

fn wait_for_end(thread: Pid) -> io::Result<()> {
    loop {
        match waitpid(unistd::Pid::from_raw(thread.0), Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => {
                return Ok(());
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("spawn")
    }

    fn pid_of(child: &Child) -> Pid {
        Pid(i32::try_from(child.id()).expect("a pid"))
    }

    #[test]
    fn a_process_stands_still_and_goes_on() {
        let mut child = sleeper();
        let pid = pid_of(&child);
        let frozen = freeze(pid, Scope::Process).expect("freeze");
        assert_eq!(frozen.pids(), [pid]);
        assert_eq!(procfs::status(pid).expect("status").state, 't');
        drop(frozen);
        assert_eq!(procfs::status(pid).expect("status").tracer, Pid(0));
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    #[test]
    fn a_frozen_process_can_be_ended() {
        let mut child = sleeper();
        let pid = pid_of(&child);
        freeze(pid, Scope::Tree).expect("freeze").kill().expect("kill");
        // Its parent is its tracer here, so its end has been heard of and it is no zombie.
        assert!(procfs::status(pid).expect_err("no such process").is_gone());
        assert!(child.wait().is_err(), "nothing is left to wait for");
    }

    #[test]
    fn what_cannot_be_frozen_is_named() {
        let shown = |pid| freeze(pid, Scope::Process).expect_err("refused").to_string();
        assert_eq!(shown(Pid(i32::MAX)), format!("process {} does not exist", i32::MAX));
        let own = Pid(unistd::getpid().as_raw());
        assert!(shown(own).contains("is ucr itself"));
        let mut zombie = Command::new("true").spawn().expect("spawn");
        let pid = pid_of(&zombie);
        while procfs::status(pid).expect("not reaped yet").state != 'Z' {
            std::thread::yield_now();
        }
        assert!(shown(pid).contains("has exited"), "{}", shown(pid));
        zombie.wait().expect("reap");
    }
}
