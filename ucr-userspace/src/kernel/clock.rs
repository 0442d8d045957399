//! The clock that events are stamped with.

use nix::time::{ClockId, clock_gettime};

/// Now, in nanoseconds of `CLOCK_BOOTTIME` (which counts suspended time too).
#[must_use]
pub fn boottime() -> u64 {
    now(ClockId::CLOCK_BOOTTIME)
}

/// Now, in nanoseconds since the epoch.
#[must_use]
pub fn realtime() -> u64 {
    now(ClockId::CLOCK_REALTIME)
}

/// Turns a boot-time stamp into nanoseconds since the epoch, by the clocks as they stand now.
#[must_use]
pub fn to_realtime(stamp: u64) -> u64 {
    realtime().saturating_sub(boottime()).saturating_add(stamp)
}

fn now(clock: ClockId) -> u64 {
    // Neither clock can fail on Linux; a clock before its epoch would be a broken machine.
    clock_gettime(clock).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
    })
}
