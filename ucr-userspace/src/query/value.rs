//! What stands in a cell of a listing: how it is shown, compared, and written as JSON.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize, Serializer};

use crate::model::{
    UnixName,
    name::{Bytes, Escaped, Exact, OneLine, is_plain, push_escaped},
    time::{Span, UtcMillis, UtcNanos},
};

/// A cell. How it is shown, compared and written as JSON follows from its kind alone.
///
/// Ordered by kind, then numbers by value and text by bytes; what is absent comes last.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Value {
    /// A count, an id.
    Number(u64),
    /// Words of our own (a state, a unit's name), safe to show.
    Text(Cow<'static, str>),
    /// Bytes that somebody else chose (a command, a path): shown escaped.
    Bytes(Vec<u8>),
    /// A socket's name.
    Name(UnixName),
    /// A moment, in nanoseconds since the epoch.
    Time(u64),
    /// A length of time, in nanoseconds.
    Span(u64),
    /// Several.
    List(Vec<Value>),
    /// Not known, or there is none.
    Absent,
}

/// The kind of a [`Value`], by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// [`Value::Number`].
    Number,
    /// [`Value::Text`] and [`Value::Bytes`].
    Text,
    /// [`Value::Name`].
    Name,
    /// [`Value::Time`].
    Time,
    /// [`Value::Span`].
    Span,
    /// [`Value::List`].
    List,
    /// [`Value::Absent`].
    Absent,
}

impl fmt::Display for Kind {
    /// As it is called in an error: in the plural, since it is said of a column.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "numbers",
            Self::Text => "text",
            Self::Name => "names",
            Self::Time => "times",
            Self::Span => "lengths of time",
            Self::List => "lists",
            Self::Absent => "nothing",
        })
    }
}

impl Value {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Number(_) => Kind::Number,
            Self::Text(_) | Self::Bytes(_) => Kind::Text,
            Self::Name(_) => Kind::Name,
            Self::Time(_) => Kind::Time,
            Self::Span(_) => Kind::Span,
            Self::List(_) => Kind::List,
            Self::Absent => Kind::Absent,
        }
    }

    /// Whether there is nothing in the cell: it is absent, the name of a socket that was never
    /// bound, or a list of nothing. All are shown as `-`.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Absent | Self::Name(UnixName::Unnamed) => true,
            Self::List(values) => values.is_empty(),
            _ => false,
        }
    }

    /// Appends what [`Display`](fmt::Display) shows. A listing shows a million cells: what most of
    /// them hold takes a way without formatters.
    pub fn show_into(&self, text: &mut String) {
        let plain = match self {
            Self::Number(number) => return push_number(*number, text),
            Self::Text(words) => Some(&**words),
            Self::Bytes(bytes) => return push_escaped(bytes, text),
            Self::Name(UnixName::Pathname(path)) if path.starts_with(b"/") => {
                str::from_utf8(path).ok()
            }
            Self::Absent => Some("-"),
            _ => None,
        };
        match plain.filter(|plain| plain.bytes().all(is_plain)) {
            Some(plain) => text.push_str(plain),
            // Writing to a string cannot fail.
            None => {
                let _: fmt::Result = fmt::write(text, format_args!("{self}"));
            }
        }
    }
}

/// Appends the decimal digits of a number.
pub fn push_number(number: u64, text: &mut String) {
    text.push_str(itoa::Buffer::new().format(number));
}

impl fmt::Display for Value {
    /// One line, safe for a terminal: `-` for what is absent, bytes escaped, times in UTC to the
    /// millisecond, the elements of a list parted by commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("-"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(words) => write!(f, "{}", OneLine(words)),
            Self::Bytes(bytes) => write!(f, "{}", Escaped(bytes)),
            Self::Name(name) => write!(f, "{name}"),
            Self::Time(nanos) => write!(f, "{}", UtcMillis(*nanos)),
            Self::Span(nanos) => write!(f, "{}", Span(*nanos)),
            Self::List(values) => {
                if values.is_empty() {
                    return f.write_str("-");
                }
                values.iter().enumerate().try_for_each(|(index, value)| {
                    f.write_str(if index == 0 { "" } else { ", " })?;
                    write!(f, "{value}")
                })
            }
        }
    }
}

/// A value that serializes as exact JSON: nothing is rounded, bytes that are no UTF-8 survive.
///
/// What is absent is null; a number and a length of time (in nanoseconds) a number; words a string;
/// a moment a string (RFC 3339, to the nanosecond); bytes and names as [`Bytes`] and [`Exact`].
#[derive(Clone, Copy, Debug)]
pub struct Json<'a>(pub &'a Value);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Absent => serializer.serialize_none(),
            Value::Number(number) | Value::Span(number) => serializer.serialize_u64(*number),
            Value::Text(words) => serializer.serialize_str(words),
            Value::Bytes(bytes) => Bytes(bytes).serialize(serializer),
            Value::Name(name) => Exact(name).serialize(serializer),
            Value::Time(nanos) => serializer.collect_str(&UtcNanos(*nanos)),
            Value::List(values) => serializer.collect_seq(values.iter().map(Json)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Value {
        Value::Name(UnixName::Abstract(text.into()))
    }

    #[test]
    fn a_cell_is_one_safe_line() {
        let list = |values: &[Value]| Value::List(values.to_vec());
        for (value, shown) in [
            (Value::Absent, "-"),
            (Value::Number(0), "0"),
            (Value::Number(u64::MAX), "18446744073709551615"),
            (Value::Text("a.service\n".into()), "a.service\\x0a"),
            (Value::Bytes(b"a\x1b[2J\\".to_vec()), "a\\x1b[2J\\\\"),
            (name("bus"), "@bus"),
            (Value::Name(UnixName::Unnamed), "-"),
            (Value::Time(1_500_000_000), "1970-01-01T00:00:01.500Z"),
            (Value::Span(850_000_000), "850ms"),
            (list(&[Value::Number(1), name("x"), Value::Absent]), "1, @x, -"),
            (list(&[]), "-"),
        ] {
            assert_eq!(value.to_string(), shown);
        }
    }

    #[test]
    fn json_keeps_everything() {
        let list = Value::List(vec![Value::Number(u64::MAX), Value::Absent]);
        for (value, json) in [
            (Value::Absent, "null"),
            (Value::Number(7), "7"),
            (Value::Span(7), "7"),
            (Value::Text("\"x\"".into()), r#""\"x\"""#),
            (Value::Bytes(vec![b'a', 0xff]), "{\"text\":\"a\u{fffd}\",\"hex\":\"61ff\"}"),
            (name("a"), r#"{"kind":"abstract","text":"a","hex":"61"}"#),
            (Value::Time(1_000_000_001), r#""1970-01-01T00:00:01.000000001Z""#),
            (list, "[18446744073709551615,null]"),
        ] {
            assert_eq!(serde_json::to_string(&Json(&value)).expect("JSON"), json);
        }
    }

    #[test]
    fn numbers_are_in_order_by_value_and_what_is_absent_is_last() {
        let mut values =
            [Value::Absent, Value::Text("10".into()), Value::Number(10), Value::Number(9)];
        values.sort();
        assert_eq!(values.map(|value| value.to_string()), ["9", "10", "10", "-"]);
    }

    fn value() -> impl Strategy<Value = Value> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..6);
        let leaf = prop_oneof![
            Just(Value::Absent),
            any::<u64>().prop_map(Value::Number),
            any::<String>().prop_map(|words| Value::Text(words.into())),
            bytes().prop_map(Value::Bytes),
            bytes().prop_map(|path| Value::Name(UnixName::Pathname(path))),
            bytes().prop_map(|rest| Value::Name(UnixName::Pathname([b"/", &*rest].concat()))),
            bytes().prop_map(|name| Value::Name(UnixName::Abstract(name))),
            any::<u64>().prop_map(Value::Time),
            any::<u64>().prop_map(Value::Span),
        ];
        prop_oneof![leaf.clone(), prop::collection::vec(leaf, 0..3).prop_map(Value::List)]
    }

    proptest! {
        #[test]
        fn the_quick_way_shows_what_the_plain_one_shows(value in value()) {
            let mut quick = String::new();
            value.show_into(&mut quick);
            prop_assert_eq!(&quick, &value.to_string());
            prop_assert!(quick.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
    }
}
