//! How much is kept, and for how long. Pure.

use std::time::Duration;

/// Bounds of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The file gets no larger, in bytes; its log beside it has a few MiB more. Less than
    /// [`MIN_BYTES`] is taken for that.
    pub max_bytes: u64,
    /// Nothing older is kept.
    pub max_age: Duration,
    /// What of `max_bytes` is left to events when the room is needed for closed sockets. As long as it is
    /// not, they may have more.
    pub events_bytes: u64,
}

/// Room for a few blocks of any size.
pub const MIN_BYTES: u64 = 4 << 20;

/// Of the file's size. `SQLite`'s default.
pub(super) const PAGE: u64 = 4096;

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 256 << 20, max_age: Duration::from_hours(7 * 24), events_bytes: 64 << 20 }
    }
}

impl Limits {
    /// The file's hard limit, in pages.
    pub(super) fn max_pages(&self) -> u64 {
        self.max_bytes.max(MIN_BYTES) / PAGE
    }

    /// What all blocks together may cost: an eighth less than the file may have, for what stands between
    /// them.
    pub(super) fn budget(&self) -> u64 {
        let max = self.max_bytes.max(MIN_BYTES);
        max - max / 8
    }

    /// In nanoseconds.
    pub(super) fn max_age_ns(&self) -> u64 {
        u64::try_from(self.max_age.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What a block of so many bytes takes of the file, with its row and its part of the indices.
pub(super) fn cost(bytes: usize) -> u64 {
    const BESIDE: u64 = 160;
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    // A longer one goes on in pages of its own, of which the last one is not full.
    if bytes < PAGE / 2 { bytes + BESIDE } else { bytes.div_ceil(PAGE - 4) * PAGE + BESIDE }
}
