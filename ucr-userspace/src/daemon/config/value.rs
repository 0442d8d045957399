//! Values of the file, read: `None` is what is not allowed. Pure.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use toml::de::DeValue;
use tracing::Level;

use super::OnStop;
use crate::tracer::hooks::Backend;

/// The least and the most that is allowed, written as in the file, since both are shown.
pub(super) type Range = [&'static str; 2];

/// What `backend` may be.
pub(super) const BACKENDS: [(&str, Option<Backend>); 3] = [
    ("auto", None),
    ("trampoline", Some(Backend::Trampoline)),
    ("tracepoint", Some(Backend::Tracepoint)),
];

/// What `on_stop` may be.
pub(super) const ON_STOP: [(&str, OnStop); 2] =
    [("keep", OnStop::Keep), ("detach", OnStop::Detach)];

/// What `level` may be.
pub(super) const LEVELS: [(&str, Level); 5] = [
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];

/// An absolute path.
pub(super) fn path(value: &DeValue<'_>) -> Option<PathBuf> {
    let path = value.as_str().filter(|path| !path.contains('\0') && !path.ends_with('/'))?;
    Some(PathBuf::from(path)).filter(|path| path.is_absolute())
}

/// A group's name or number. Whether there is one is asked when it is needed.
pub(super) fn group(value: &DeValue<'_>) -> Option<Option<String>> {
    let name = value.as_str()?;
    let is_possible = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b',' | b'/');
    let name = Some(name).filter(|name| name.bytes().all(is_possible))?;
    Some(Some(name.to_owned()).filter(|name| !name.is_empty()))
}

/// A whole number.
pub(super) fn count(value: &DeValue<'_>, range: Range) -> Option<u32> {
    let integer = value.as_integer()?;
    let count = u32::from_str_radix(integer.as_str(), integer.radix()).ok()?;
    between(count, range.map(|bound| bound.parse().ok()))
}

/// A number of bytes.
pub(super) fn size(value: &DeValue<'_>, range: Range) -> Option<u64> {
    let bytes = bytes(value.as_str()?)?;
    between(bytes, range.map(self::bytes))
}

/// A number with its unit. Decimal units are none: who writes MB may mean either.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    let power = ["B", "KiB", "MiB", "GiB", "TiB"].iter().position(|known| *known == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(1_u64.checked_shl(u32::try_from(power).ok()? * 10)?)
}

/// A length of time.
pub(super) fn span(value: &DeValue<'_>, range: Range) -> Option<Duration> {
    between(time(value.as_str()?)?, range.map(time))
}

/// A length of time, or zero.
pub(super) fn span_or_never(value: &DeValue<'_>, range: Range) -> Option<Option<Duration>> {
    match time(value.as_str()?)? {
        Duration::ZERO => Some(None),
        given => between(given, range.map(time)).map(Some),
    }
}

fn time(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

fn between<T: PartialOrd>(value: T, [least, most]: [Option<T>; 2]) -> Option<T> {
    let bounds = least?..=most?;
    Some(value).filter(|value| bounds.contains(value))
}

/// An address to listen at, or none. Names are not resolved: the answer could change.
pub(super) fn address(value: &DeValue<'_>) -> Option<Option<SocketAddr>> {
    match value.as_str()? {
        "" => Some(None),
        address => address.parse().ok().map(Some),
    }
}

/// One of several words.
pub(super) fn word<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Option<T> {
    let given = value.as_str()?;
    words.iter().find(|(word, _)| *word == given).map(|(_, meaning)| *meaning)
}

/// The words, as a sentence lists them.
pub(super) fn words<T>(words: &[(&str, T)]) -> String {
    let quoted: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(text: &str, read: impl FnOnce(&DeValue<'_>) -> T) -> T {
        read(DeValue::parse(text).expect("a TOML value").get_ref())
    }

    #[test]
    fn sizes_have_binary_units() {
        let size = |text: &str| read(&format!("\"{text}\""), |v| size(v, ["1KiB", "16TiB"]));
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size("64 KiB"), Some(65_536));
        assert_eq!(size("16TiB"), Some(16 << 40));
        assert_eq!(size("1024B"), Some(1024));
        for wrong in ["1023B", "17TiB", "4096", "64KB", "64k", "-1KiB", "1.5GiB", "", "KiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
        assert_eq!(size("99999999999999TiB"), None);
        assert_eq!(read("4096", |v| super::size(v, ["1B", "1GiB"])), None);
    }

    #[test]
    fn times_have_units() {
        let span = |text: &str| read(&format!("\"{text}\""), |v| span(v, ["1s", "30d"]));
        assert_eq!(span("10s"), Some(Duration::from_secs(10)));
        assert_eq!(span("1m 30s"), Some(Duration::from_secs(90)));
        assert_eq!(span("30d"), Some(Duration::from_secs(30 * 86_400)));
        for wrong in ["999ms", "31d", "10", "", "soon", "-1s"] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
        let never = |text: &str| read(text, |v| span_or_never(v, ["1s", "30d"]));
        assert_eq!(never("\"0s\""), Some(None));
        assert_eq!(never("\"1ms\""), None);
    }

    #[test]
    fn counts_are_whole_and_within_bounds() {
        let count = |text: &str| read(text, |v| count(v, ["1", "10000"]));
        assert_eq!(count("1"), Some(1));
        assert_eq!(count("0x10"), Some(16));
        assert_eq!(count("10_000"), Some(10_000));
        for wrong in ["0", "-1", "10001", "1.0", "\"1\"", "99999999999999999999"] {
            assert_eq!(count(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn paths_are_absolute_and_name_a_file() {
        let path = |text: &str| read(text, path);
        assert_eq!(path("'/run/x'"), Some(PathBuf::from("/run/x")));
        for wrong in ["''", "'x'", "'./x'", "'/'", "'/run/'", r#""/a\u0000b""#, "1"] {
            assert_eq!(path(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn groups_and_addresses_may_be_left_empty() {
        assert_eq!(read("''", group), Some(None));
        assert_eq!(read("'adm'", group), Some(Some("adm".to_owned())));
        assert_eq!(read("'a b'", group), None);
        assert_eq!(read("'a:b'", group), None);
        assert_eq!(read("''", address), Some(None));
        assert_eq!(read("'[::1]:9764'", address), Some(Some("[::1]:9764".parse().expect("one"))));
        assert_eq!(read("'localhost:9764'", address), None);
        assert_eq!(read("'127.0.0.1'", address), None);
    }
}
