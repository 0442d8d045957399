//! What a key's value may be, and into which field it goes. Pure.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use toml::de::DeValue;
use tracing::Level;

use super::{
    Config, OnStop,
    value::{self, BACKENDS, LEVELS, ON_STOP, Range},
};
use crate::{model::name::SUN_PATH_MAX, tracer::hooks::Backend};

/// Where a value is kept.
type Field<T> = fn(&mut Config) -> &mut T;

/// The rule of one key, whatever its value is.
pub(super) trait Rule: fmt::Debug + Sync {
    /// Takes a value over; `None` if it is not allowed.
    fn set(&self, config: &mut Config, value: &DeValue<'_>) -> Option<()>;

    /// What is allowed, as words that follow "it must be".
    fn allowed(&self) -> String;

    /// Whether two configurations have different values.
    fn differs(&self, one: &mut Config, other: &mut Config) -> bool;

    /// Gives one configuration another one's value.
    fn copy(&self, from: &mut Config, to: &mut Config);
}

/// A rule for values of one type.
#[derive(Debug)]
pub(super) struct Of<T> {
    read: fn(&DeValue<'_>, Range) -> Option<T>,
    allowed: fn(Range) -> String,
    /// The bounds, if there are any, as they are written in the file.
    range: Range,
    field: Field<T>,
}

impl<T: Clone + PartialEq + fmt::Debug> Rule for Of<T> {
    fn set(&self, config: &mut Config, value: &DeValue<'_>) -> Option<()> {
        *(self.field)(config) = (self.read)(value, self.range)?;
        Some(())
    }

    fn allowed(&self) -> String {
        (self.allowed)(self.range)
    }

    fn differs(&self, one: &mut Config, other: &mut Config) -> bool {
        *(self.field)(one) != *(self.field)(other)
    }

    fn copy(&self, from: &mut Config, to: &mut Config) {
        (self.field)(to).clone_from((self.field)(from));
    }
}

const UNBOUNDED: Range = ["", ""];

/// An absolute path.
pub(super) const fn path(field: Field<PathBuf>) -> Of<PathBuf> {
    let allowed = |_: Range| "an absolute path, in quotes".to_owned();
    Of { read: |value, _| value::path(value), allowed, range: UNBOUNDED, field }
}

/// A path that a socket can be bound to.
pub(super) const fn socket_path(field: Field<PathBuf>) -> Of<PathBuf> {
    Of {
        read: |value, _| value::path(value).filter(|path| path.as_os_str().len() < SUN_PATH_MAX),
        allowed: |_| format!("an absolute path of at most {} bytes, in quotes", SUN_PATH_MAX - 1),
        range: UNBOUNDED,
        field,
    }
}

/// A group's name or number; empty for none.
pub(super) const fn group(field: Field<Option<String>>) -> Of<Option<String>> {
    let allowed = |_: Range| "a group's name or number, in quotes, or \"\"".to_owned();
    Of { read: |value, _| value::group(value), allowed, range: UNBOUNDED, field }
}

/// A whole number.
pub(super) const fn count(range: Range, field: Field<u32>) -> Of<u32> {
    let allowed = |[least, most]: Range| format!("a whole number from {least} to {most}");
    Of { read: value::count, allowed, range, field }
}

/// A number of bytes.
pub(super) const fn size(range: Range, field: Field<u64>) -> Of<u64> {
    Of { read: value::size, allowed: size_between, range, field }
}

/// A number of bytes that is a power of two.
pub(super) const fn power_of_two(range: Range, field: Field<u32>) -> Of<u32> {
    Of {
        read: |value, range| {
            let bytes = value::size(value, range).filter(|bytes| bytes.is_power_of_two());
            u32::try_from(bytes?).ok()
        },
        allowed: |range| format!("{}, and a power of two", size_between(range)),
        range,
        field,
    }
}

fn size_between([least, most]: Range) -> String {
    format!("a size from \"{least}\" to \"{most}\", with B, KiB, MiB, GiB or TiB")
}

/// A length of time.
pub(super) const fn span(range: Range, field: Field<Duration>) -> Of<Duration> {
    Of { read: value::span, allowed: span_between, range, field }
}

/// A length of time; zero for never.
pub(super) const fn span_or_never(
    range: Range,
    field: Field<Option<Duration>>,
) -> Of<Option<Duration>> {
    Of {
        read: value::span_or_never,
        allowed: |range| format!("{}, or \"0s\"", span_between(range)),
        range,
        field,
    }
}

fn span_between([least, most]: Range) -> String {
    format!("a time from \"{least}\" to \"{most}\", with ms, s, m, h or d")
}

/// Yes or no.
pub(super) const fn switch(field: Field<bool>) -> Of<bool> {
    let allowed = |_: Range| "true or false".to_owned();
    Of { read: |value, _| value.as_bool(), allowed, range: UNBOUNDED, field }
}

/// An address to listen at; empty for nowhere.
pub(super) const fn address(field: Field<Option<SocketAddr>>) -> Of<Option<SocketAddr>> {
    let allowed = |_: Range| {
        "an IP address and a port, such as \"127.0.0.1:9764\" or \"[::1]:9764\", or \"\"".to_owned()
    };
    Of { read: |value, _| value::address(value), allowed, range: UNBOUNDED, field }
}

/// How to trace.
pub(super) const fn backend(field: Field<Option<Backend>>) -> Of<Option<Backend>> {
    Of {
        read: |value, _| value::word(value, &BACKENDS),
        allowed: |_| value::words(&BACKENDS),
        range: UNBOUNDED,
        field,
    }
}

/// What becomes of tracing.
pub(super) const fn on_stop(field: Field<OnStop>) -> Of<OnStop> {
    Of {
        read: |value, _| value::word(value, &ON_STOP),
        allowed: |_| value::words(&ON_STOP),
        range: UNBOUNDED,
        field,
    }
}

/// How much is said.
pub(super) const fn level(field: Field<Level>) -> Of<Level> {
    Of {
        read: |value, _| value::word(value, &LEVELS),
        allowed: |_| value::words(&LEVELS),
        range: UNBOUNDED,
        field,
    }
}
