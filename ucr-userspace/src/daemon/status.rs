//! How the daemon is: what it tells of itself.

use serde::{Deserialize, Serialize};

/// How the daemon is. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since when it runs.
    pub since: u64,
    /// Who follows its events.
    pub followers: u64,
    /// Events that followers were too slow for.
    pub missed: u64,
    /// Clients that are connected.
    pub clients: u64,
    /// Questions that were answered.
    pub requests: u64,
    /// Questions that were refused, by reason.
    pub refused: Vec<(String, u64)>,
    /// Events that it has read.
    pub events: u64,
    /// Events that were lost before it could read them.
    pub lost: u64,
    /// Bytes in the ring buffer that it has not read, and how many there is room for.
    pub ring: (u64, u64),
    /// How often the ledger was held against the kernel, and when last.
    pub reconciliations: u64,
    /// When last.
    pub reconciled_at: Option<u64>,
    /// What went wrong when it was tried last.
    pub reconciliation_failed: Option<String>,
    /// The history, if one is kept.
    pub history: Option<HistoryStatus>,
    /// Resident memory, in bytes.
    pub memory: u64,
    /// Processor time used, in nanoseconds.
    pub cpu: u64,
}

/// How the history is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryStatus {
    /// Where it is.
    pub file: String,
    /// Closed sockets and events in it.
    pub entries: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// When its oldest entry ended.
    pub oldest: Option<u64>,
    /// Entries that were deleted since there was no room, or they were too old.
    pub forgotten: u64,
    /// Stretches of time in which something is missing.
    pub gaps: u64,
    /// What goes wrong at this moment: the disk is full, …
    pub trouble: Option<String>,
    /// Entries that could not be kept because of it.
    pub unkept: u64,
    /// Damaged databases that were moved aside since the daemon began.
    pub damaged: Vec<String>,
}
