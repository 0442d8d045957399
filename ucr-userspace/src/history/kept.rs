//! The kinds of entries that blocks are made of. Pure.

use serde::{Serialize, de::DeserializeOwned};

use super::entry::{Gone, Past};
use crate::model::Directories;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Closed sockets.
    Gone,
    /// Events.
    Past,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Gone, Self::Past];

    /// As it stands in blocks and tables. Never renumbered.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Gone => 1,
            Self::Past => 2,
        }
    }
}

/// An entry that blocks are made of.
pub trait Kept: Serialize + DeserializeOwned {
    /// Which.
    const KIND: Kind;

    /// The moment that it is found and forgotten by.
    fn stamp(&self) -> u64;

    /// Length of what has no fixed length: names, paths, commands; in bytes.
    fn variable_len(&self) -> usize;
}

impl Kept for Gone {
    const KIND: Kind = Kind::Gone;

    fn stamp(&self) -> u64 {
        self.closed_at
    }

    fn variable_len(&self) -> usize {
        let actors = [&self.creator, &self.binder, &self.opener, &self.closer];
        let partner = self.peer.as_ref().and_then(|peer| peer.owner.as_ref());
        actors.into_iter().flatten().map(|who| who.comm.len()).sum::<usize>()
            + partner.map_or(0, |partner| partner.comm.len())
            + self.name.as_bytes().len()
            + self.directories.as_ref().map_or(0, directories_len)
    }
}

impl Kept for Past {
    const KIND: Kind = Kind::Past;

    fn stamp(&self) -> u64 {
        self.time
    }

    fn variable_len(&self) -> usize {
        self.actor.comm.len()
            + self.name.as_bytes().len()
            + self.directories.as_ref().map_or(0, directories_len)
    }
}

fn directories_len(both: &Directories) -> usize {
    both.cwd.path.len() + both.root.path.len()
}
