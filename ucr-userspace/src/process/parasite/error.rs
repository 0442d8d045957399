//! Why a process makes no calls for us.

use std::io;

use nix::sys::signal::Signal;

use super::NoGadgets;
use crate::{
    model::Pid,
    process::{freeze::FreezeError, procfs::ProcError},
};

/// Why a process makes no calls for us.
#[derive(Debug, thiserror::Error)]
pub enum ParasiteError {
    /// It runs 32-bit code.
    #[error("process {0} runs 32-bit code, in which ucr makes no calls")]
    Narrow(Pid),
    /// Its calls are filtered.
    #[error("the system calls of process {0} are filtered (seccomp), and ucr's would be as well")]
    Filtered(Pid),
    /// Returns are checked by the processor.
    #[error(
        "process {0} has a shadow stack, which lets nobody return to where he did not come from"
    )]
    Shadowed(Pid),
    /// Nothing to make calls with.
    #[error("process {pid}: {why}")]
    Gadgets {
        /// Which process.
        pid: Pid,
        /// What is missing.
        #[source]
        why: NoGadgets,
    },
    /// It died.
    #[error("process {0} died while calls were made in it")]
    Died(Pid),
    /// Our code in it is not as it should be.
    #[error("process {pid} was to receive {signal} in the middle of a call")]
    Disturbed {
        /// Which process.
        pid: Pid,
        /// Which signal.
        signal: Signal,
    },
    /// A thread of it could not be had.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    /// `/proc` could not be read.
    #[error(transparent)]
    Proc(#[from] ProcError),
    /// Something of ours.
    #[error("{operation} process {pid}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which process.
        pid: Pid,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses a call that the process makes for us.
    #[error("{call}, made by process {pid}")]
    Refused {
        /// Which call.
        call: &'static str,
        /// By whom.
        pid: Pid,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ParasiteError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Freeze(error) => error.hint(),
            Self::Refused { call: "socketpair", source, .. }
                if source.raw_os_error() == Some(libc::EMFILE) =>
            {
                Some("raise its limit of descriptors first: prlimit --nofile --pid PID")
            }
            _ => None,
        }
    }
}
