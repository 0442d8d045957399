//! The hooks of each backend as a table: which program hangs where, what happens where it cannot,
//! and what nobody sees.

use serde::Serialize;

/// How the ledger is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// `tp_btf` programs on system calls and task ends.
    Tracepoint,
    /// No programs: iterators and sock_diag only, no history.
    Snapshot,
}

impl Backend {
    /// Its name in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Snapshot => "snapshot",
        }
    }

    /// What it cannot see. Shown by `ucr features` and `ucr status`.
    #[must_use]
    pub fn blind_spots(self) -> &'static [&'static str] {
        match self {
            Self::Tracepoint => &[
                "operations made through io_uring",
                "calls by the 32-bit entry (counted as compat)",
                "names that autobind gives outside connect(2)",
                "a close that is the last only because something in flight or a running call let go later",
                "the last close of a socket whose two holders end at the same moment",
                "descriptors closed by execve(2) in a process with threads, or where the kernel has no \
                 sched_prepare_exec",
                "a connection that accept(2) took and then could not return (EFAULT)",
                "SCM_RIGHTS: who passed a descriptor to whom",
            ],
            Self::Snapshot => &["everything that happened before: there is no history"],
        }
    }
}

/// What to do on a kernel that lacks a tracepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Attaching fails.
    Required,
    /// It is left out, and said so.
    Optional,
}

/// One program of the tracepoint backend.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Its name in the object, and of its pinned link.
    pub program: &'static str,
    /// The tracepoint it hangs on.
    pub tracepoint: &'static str,
    /// Whether it can be done without.
    pub need: Need,
}

/// The tracepoint backend's programs. Ends come before beginnings: a socket whose birth is seen
/// shall not be missed when it dies.
pub const TRACEPOINT: &[Hook] = &[
    Hook { program: "sys_enter", tracepoint: "sys_enter", need: Need::Required },
    Hook { program: "sched_process_exit", tracepoint: "sched_process_exit", need: Need::Required },
    Hook { program: "sched_prepare_exec", tracepoint: "sched_prepare_exec", need: Need::Optional },
    Hook { program: "sys_exit", tracepoint: "sys_exit", need: Need::Required },
];
