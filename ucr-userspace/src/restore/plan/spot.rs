//! Where a socket file is to be in the end, and by which way it gets there. Pure.

use std::fmt;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::model::name::{Bytes, Escaped};

/// A place in the file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spot {
    /// Directories that it is looked up beneath, so that neither `..` nor a link leads out: each beneath
    /// the one before.
    pub roots: Vec<Vec<u8>>,
    /// An absolute path, without `.` and empty components.
    pub path: Vec<u8>,
}

impl Spot {
    /// By an absolute path as we see it.
    #[must_use]
    pub fn here(path: Vec<u8>) -> Self {
        Self { roots: Vec::new(), path }
    }

    /// Its last component.
    #[must_use]
    pub fn file_name(&self) -> &[u8] {
        self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// Another entry of the same directory.
    #[must_use]
    pub fn beside(&self, name: &[u8]) -> Self {
        let end = self.path.len() - self.file_name().len();
        let path = [self.path.get(..end).unwrap_or_default(), name].concat();
        Self { roots: self.roots.clone(), path }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.path).fmt(f)?;
        self.roots.iter().rev().try_for_each(|root| write!(f, " beneath {}", Escaped(root)))
    }
}

impl Serialize for Spot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let roots: Vec<_> = self.roots.iter().map(|root| Bytes(root)).collect();
        let mut fields = serializer.serialize_struct("Spot", 2)?;
        fields.serialize_field("roots", &roots)?;
        fields.serialize_field("path", &Bytes(&self.path))?;
        fields.end()
    }
}

/// What becomes of the file that `bind` makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Landing {
    /// It is made under the name. (An abstract name has no file.)
    ByName,
    /// It is made where nobody else comes, beneath a root directory of its own, and removed at once: the
    /// socket had no file under its name any more.
    Nowhere,
    /// It is made beneath a root directory of its own in the directory where it is to be, and renamed.
    At(Spot),
    /// The same, but it waits there until it takes the place of the file that is there now, whose socket
    /// still lives.
    Over(Spot),
}

/// A path without `.` and empty components; from several, one behind the other.
pub(super) fn normal(parts: &[&[u8]]) -> Vec<u8> {
    let mut path = Vec::new();
    for part in parts.iter().flat_map(|part| part.split(|byte| *byte == b'/')) {
        if !part.is_empty() && part != b"." {
            path.push(b'/');
            path.extend_from_slice(part);
        }
    }
    path
}
