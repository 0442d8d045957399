//! Times for people.

use std::{
    fmt,
    time::{self, SystemTime},
};

/// Nanoseconds since the epoch, shown as date and time of day in UTC, to the microsecond.
#[derive(Clone, Copy, Debug)]
pub struct Utc(pub u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = SystemTime::UNIX_EPOCH + time::Duration::from_nanos(self.0);
        humantime::format_rfc3339_micros(when).fmt(f)
    }
}

/// Seconds since the epoch, shown as date and time of day in UTC.
#[derive(Clone, Copy, Debug)]
pub struct UtcSeconds(pub u64);

impl fmt::Display for UtcSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An image may claim any second; the calendar ends with the year 9999.
        const LAST: u64 = 253_402_300_799;
        let when = SystemTime::UNIX_EPOCH + time::Duration::from_secs(self.0.min(LAST));
        humantime::format_rfc3339_seconds(when).fmt(f)
    }
}

/// Nanoseconds, shown as days, hours, minutes and seconds.
#[derive(Clone, Copy, Debug)]
pub struct Duration(pub u64);

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(time::Duration::from_secs(self.0 / 1_000_000_000)).fmt(f)
    }
}

/// Nanoseconds since boot, shown in seconds.
#[derive(Clone, Copy, Debug)]
pub struct SinceBoot(pub u64);

impl fmt::Display for SinceBoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0 / 1_000_000;
        write!(f, "{}.{:03} s", millis / 1000, millis % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_that_an_image_may_claim_is_too_late_to_be_shown() {
        assert_eq!(UtcSeconds(951_782_400).to_string(), "2000-02-29T00:00:00Z");
        assert_eq!(UtcSeconds(u64::MAX).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Utc(1_500_000_000).to_string(), "1970-01-01T00:00:01.500000Z");
        assert!(Utc(u64::MAX).to_string().starts_with("2554-"));
    }
}
