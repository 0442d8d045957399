//! Times for people and programs.

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

/// Nanoseconds since the epoch, shown as date and time of day in UTC, to the millisecond.
#[derive(Clone, Copy, Debug)]
pub struct UtcMillis(pub u64);

impl fmt::Display for UtcMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = SystemTime::UNIX_EPOCH + time::Duration::from_nanos(self.0);
        humantime::format_rfc3339_millis(when).fmt(f)
    }
}

/// Nanoseconds since the epoch, shown as date and time of day in UTC, all of them: for programs.
#[derive(Clone, Copy, Debug)]
pub struct UtcNanos(pub u64);

impl fmt::Display for UtcNanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = SystemTime::UNIX_EPOCH + time::Duration::from_nanos(self.0);
        humantime::format_rfc3339_nanos(when).fmt(f)
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

/// Nanoseconds, shown in the one or two units that tell most: `3d 4h`, `12.3s`, `850ms`. What is
/// less is left out, not rounded up.
#[derive(Clone, Copy, Debug)]
pub struct Span(pub u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        const DAY: u64 = 24 * HOUR;
        let nanos = self.0;
        let seconds = nanos / NANOS_PER_SECOND;
        let (whole, unit, rest, small) = match seconds {
            0 if nanos < 1_000 => return write!(f, "{nanos}ns"),
            0 if nanos < 1_000_000 => return write!(f, "{}us", nanos / 1_000),
            0 => return write!(f, "{}ms", nanos / 1_000_000),
            1..MINUTE => {
                let tenths = nanos / 100_000_000 % 10;
                return write!(f, "{seconds}.{tenths}s");
            }
            MINUTE..HOUR => (seconds / MINUTE, 'm', seconds % MINUTE, 's'),
            HOUR..DAY => (seconds / HOUR, 'h', seconds % HOUR / MINUTE, 'm'),
            _ => (seconds / DAY, 'd', seconds % DAY / HOUR, 'h'),
        };
        match rest {
            0 => write!(f, "{whole}{unit}"),
            _ => write!(f, "{whole}{unit} {rest}{small}"),
        }
    }
}

/// Reads a moment: RFC 3339 in UTC, of which the time of day, or its fraction, may be missing
/// (`2026-11-23`, `2026-11-23T10:00:00Z`, `2026-11-23 10:00:00.25`). In nanoseconds since the
/// epoch; `None` for anything else, and for what lies before the epoch or after the year 2554.
#[must_use]
pub fn parse_utc(text: &str) -> Option<u64> {
    let of_day = if text.len() == "2026-11-23".len() { "T00:00:00Z" } else { "" };
    let when = humantime::parse_rfc3339_weak(&format!("{text}{of_day}")).ok()?;
    let since = when.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

/// Reads a length of time as [`Span`] shows it: numbers with a unit each (`ns us ms s m h d w`),
/// perhaps with a fraction, perhaps several that are added. In nanoseconds; `None` for anything
/// else, and for more than 64 bits hold (584 years). Without a unit only zero has a meaning.
#[must_use]
pub fn parse_span(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text.trim();
    let mut sum = None;
    while !rest.is_empty() {
        let (number, behind) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, behind) = split(behind, |c| c.is_ascii_alphabetic());
        let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let part = times(number, *nanos)?;
        sum = Some(sum.unwrap_or(0_u64).checked_add(part)?);
        rest = behind.trim_start();
    }
    sum
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The units of [`parse_span`], in nanoseconds.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("h", 3_600 * NANOS_PER_SECOND),
    ("d", 86_400 * NANOS_PER_SECOND),
    ("w", 604_800 * NANOS_PER_SECOND),
];

/// The characters at the front that are such, and what comes behind them.
fn split(text: &str, is_such: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !is_such(c)).unwrap_or(text.len()))
}

/// A number that may have a fraction, times a unit.
fn times(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().ok()?;
    // More digits than these say nothing in nanoseconds, of whatever unit.
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| (1..=15).contains(digits))?;
    let fraction = u128::from(fraction.parse::<u64>().ok()?);
    let part = fraction * u128::from(unit) / 10_u128.pow(digits);
    whole.checked_mul(unit)?.checked_add(u64::try_from(part).ok()?)
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
    #[test]
    fn a_moment_is_shown_and_read_back() {
        let moment = 1_795_428_031_458_510_007;
        assert_eq!(UtcMillis(moment).to_string(), "2026-11-23T10:00:31.458Z");
        assert_eq!(UtcNanos(moment).to_string(), "2026-11-23T10:00:31.458510007Z");
        assert_eq!(parse_utc(&UtcNanos(moment).to_string()), Some(moment));
        assert_eq!(parse_utc("2026-11-23T10:00:31Z"), Some(1_795_428_031_000_000_000));
        assert_eq!(parse_utc("2026-11-23 10:00:31"), Some(1_795_428_031_000_000_000));
        assert_eq!(parse_utc("2026-11-23"), Some(1_795_392_000_000_000_000));
        for nonsense in ["", "10:00", "2026-13-01", "1969-12-31", "9999-01-01", "tomorrow__"] {
            assert_eq!(parse_utc(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_length_of_time_is_shown_in_what_tells_most() {
        const S: u64 = NANOS_PER_SECOND;
        for (nanos, shown) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_999, "1us"),
            (850_000_000, "850ms"),
            (12_399_999_999, "12.3s"),
            (60 * S, "1m"),
            (3_599 * S, "59m 59s"),
            (3_600 * S + 59 * S, "1h"),
            (90_000 * S, "1d 1h"),
            (u64::MAX, "213503d 23h"),
        ] {
            assert_eq!(Span(nanos).to_string(), shown);
        }
    }

    #[test]
    fn a_length_of_time_is_read_as_it_is_shown() {
        const S: u64 = NANOS_PER_SECOND;
        for (text, nanos) in [
            ("500ms", Some(S / 2)),
            ("5s", Some(5 * S)),
            ("12.3s", Some(12_300_000_000)),
            ("2h", Some(7_200 * S)),
            ("3d 4h", Some(273_600 * S)),
            ("3d4h", Some(273_600 * S)),
            ("1w", Some(604_800 * S)),
            ("0", Some(0)),
            ("5", None),
            ("", None),
            ("h", None),
            ("5 h", None),
            ("5x", None),
            ("1.s", None),
            (".5s", None),
            ("1.2.3s", None),
            ("-5s", None),
            ("9999999d", None),
            ("18446744073709551615ns", Some(u64::MAX)),
            ("18446744073709551615ns1ns", None),
            ("1.0000000000000001s", None),
        ] {
            assert_eq!(parse_span(text), nanos, "{text}");
        }
    }
}
