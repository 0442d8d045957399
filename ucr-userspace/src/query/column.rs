//! A column of a listing: what it is called, what it is about, how it is had.

use super::Value;

/// Which side of its column a cell leans to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A column over rows of type `T`.
pub struct Column<T: ?Sized> {
    /// As it is chosen, filtered and sorted by, and called in JSON; its header is the same in capitals.
    pub name: &'static str,
    /// What it tells, in a line: for `--columns`, help and the manual.
    pub about: &'static str,
    /// Alignment.
    pub side: Side,
    /// Its cell.
    pub get: fn(&T) -> Value,
}
