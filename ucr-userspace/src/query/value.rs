//! What stands in a cell of a listing.

use serde::{Deserialize, Serialize};

use crate::model::UnixName;

/// A cell. How it is shown, compared and written as JSON follows from its kind alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// Not known, or there is none.
    Absent,
    /// A count, an id.
    Number(u64),
    /// Words of our own (a state, a unit's name), safe to show.
    Text(String),
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
}
