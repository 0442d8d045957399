//! A column of a listing: what it is called, what it is about, how it is had.

use serde::{Deserialize, Serialize};

use super::Value;

/// Which side of its column a cell leans to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// The name most like the one that somebody wrote, if one is like it at all.
#[must_use]
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Two slips of the finger; but nothing is like a name that is all slips.
    const SLIPS: usize = 2;
    names
        .into_iter()
        .map(|known| (strsim::osa_distance(name, known), known))
        .filter(|(distance, known)| *distance <= SLIPS && *distance < known.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognized() {
        let known = ["pid", "peer", "name"];
        assert_eq!(nearest("nmae", known), Some("name"));
        assert_eq!(nearest("per", known), Some("peer"));
        assert_eq!(nearest("Pid", known), Some("pid"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
    }
}
