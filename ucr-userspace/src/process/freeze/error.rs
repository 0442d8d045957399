//! Why processes could not be stopped.

use std::io;

use super::PATIENCE;
use crate::{model::Pid, process::procfs::ProcError};

/// Why a process could not be stopped. Whatever had been stopped by then goes on.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// There is no such process.
    #[error("process {0} does not exist")]
    NoSuchProcess(Pid),
    /// It is a zombie: its descriptors are gone.
    #[error("process {0} has exited and waits to be reaped: it has no descriptors any more")]
    Zombie(Pid),
    /// It was killed after it had been stopped.
    #[error("process {0} died while it was being read")]
    Died(Pid),
    /// Its first thread has exited, and others go on without it.
    #[error("the first thread of process {0} has exited and others go on: that is not supported")]
    WithoutFirstThread(Pid),
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
