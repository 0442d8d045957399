//! Why a plan could not be executed.

use std::fmt;
use std::io;

use nix::sys::signal::Signal;

use crate::lock::LockError;
use crate::model::Pid;
use crate::model::name::Escaped;
use crate::restore::plan::step::Holder;
use crate::restore::reserve::ReserveError;
use crate::restore::undo::UndoProblem;

/// Why one step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The system refuses a call.
    #[error("{call}")]
    Call {
        /// Which call.
        call: &'static str,
        /// What it says.
        #[source]
        source: io::Error,
    },
    /// TCP connections cannot be locked.
    #[error(transparent)]
    Lock(Box<LockError>),
    /// Somebody else connected first.
    #[error("a stranger connected to the listener first: pid {0}")]
    Stranger(Pid),
    /// The directory is not the one that the path led to a moment before.
    #[error("the file was made in another directory, as {}", Escaped(landed))]
    Astray {
        /// What the kernel called the file right after.
        landed: Vec<u8>,
    },
    /// A step that needs something that no earlier step made.
    #[error("{0} is not there")]
    Missing(Holder),
    /// As asked for.
    #[error("fails on purpose")]
    OnPurpose,
    /// Somebody wants us to end.
    #[error("interrupted by {0}")]
    Interrupted(Signal),
}

impl From<LockError> for StepError {
    fn from(error: LockError) -> Self {
        Self::Lock(Box::new(error))
    }
}

/// Why a restore failed. What was made is undone by then.
#[derive(Debug)]
pub struct RestoreError {
    /// What could not be done.
    pub failed: Failed,
    /// What could not be undone.
    pub left: Vec<UndoProblem>,
}

/// The part of a restore that failed.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Before the first step.
    #[error("failed to reserve the descriptor numbers")]
    Reserve(#[source] ReserveError),
    /// The same.
    #[error("failed to duplicate a socket that was made before")]
    Adopt(#[source] io::Error),
    /// A step, counted from 1.
    #[error("step {number} ({step})")]
    Step {
        /// Its number.
        number: usize,
        /// As the plan shows it.
        step: String,
        /// Why.
        #[source]
        source: StepError,
    },
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failed.fmt(f)?;
        self.left.iter().try_for_each(|problem| write!(f, "; left behind: {problem}"))
    }
}

impl std::error::Error for RestoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failed.source()
    }
}
