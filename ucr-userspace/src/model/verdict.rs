//! How tracked state compared with the kernel's, in numbers.

use serde::{Deserialize, Serialize};

/// How many sockets got which verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictCounts {
    /// Seen live from the beginning, and every field agrees with the kernel's report.
    pub confirmed: u32,
    /// Older than the tracer; what the seeding pass recorded agrees.
    pub predates: u32,
    /// In the ledger, but the kernel does not report it.
    pub only_tracked: u32,
    /// Reported by the kernel, not in the ledger.
    pub only_snapshot: u32,
    /// At least one field differs.
    pub conflict: u32,
}
