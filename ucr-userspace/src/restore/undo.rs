//! What a restore has made outside of descriptors, and how it is taken back.

use std::collections::{BTreeMap, HashMap};
use std::io;

use super::files::Entry;
use super::plan::spot::Spot;
use super::plan::step::Aside;
use crate::image::FileId;
use crate::model::name::Escaped;
use crate::sys::janitor::Doomed;

/// How the name of a file that was moved aside begins; our pid and a number follow.
pub(super) const HIDDEN: &str = ".ucr-aside-";

/// Something that a restore did to the file system.
#[derive(Debug)]
enum Deed {
    /// `bind` made this file.
    Made { spot: Spot, entry: Entry, id: FileId },
    /// `bind` made a file elsewhere than under its path, and nobody knows for sure where.
    Astray { path: Vec<u8> },
    /// A file was renamed; `hidden` is where it is now.
    Moved { aside: Aside, hidden: Entry, name: Vec<u8> },
    /// A file that was made has taken the place of another one, which is where the first was now.
    Exchanged { spot: Spot, entry: Entry, id: FileId, hidden: Entry },
}

/// Something that could not be taken back.
#[derive(Debug, thiserror::Error)]
pub enum UndoProblem {
    /// A file that was made is still there.
    #[error("remove the socket file {spot}: {source}")]
    Made {
        /// Where.
        spot: Spot,
        /// Why.
        source: io::Error,
    },
    /// A file that was made lies somewhere.
    #[error(
        "a socket file that was bound in another directory than expected, last seen as {}",
        Escaped(path)
    )]
    Astray {
        /// What the kernel called it right after.
        path: Vec<u8>,
    },
    /// A file that was moved aside is still there.
    #[error("{spot} is now {hidden}: {source}")]
    Moved {
        /// Where it was.
        spot: Spot,
        /// Where it is.
        hidden: Spot,
        /// Why it cannot be moved back.
        source: io::Error,
    },
    /// A file that was to be replaced is not where it was.
    #[error("put back the socket file {spot}: {source}")]
    Exchanged {
        /// Where it was.
        spot: Spot,
        /// Why it is not there.
        source: io::Error,
    },
    /// The directory in which sockets were bound is still there.
    #[error("remove the private directory {}: {source}", Escaped(path))]
    Private {
        /// Where it is.
        path: Vec<u8>,
        /// Why it cannot be removed.
        source: io::Error,
    },
}

/// The deeds in their order. They are taken back in reverse when it is dropped, unless they were
/// made final.
#[derive(Debug, Default)]
pub struct Undo {
    /// By their number in order.
    deeds: BTreeMap<usize, Deed>,
    count: usize,
    /// Which deed made a file.
    made: HashMap<FileId, usize>,
    /// Which deed moved away what lay at a path.
    moved: HashMap<Spot, usize>,
}

impl Undo {
    fn remember(&mut self, deed: Deed) {
        match &deed {
            Deed::Made { id, .. } | Deed::Exchanged { id, .. } => self.made.insert(*id, self.count),
            Deed::Moved { aside, .. } => self.moved.insert(aside.spot.clone(), self.count),
            Deed::Astray { .. } => None,
        };
        self.deeds.insert(self.count, deed);
        self.count += 1;
    }

    /// Remembers a file that was made.
    pub(super) fn made(&mut self, spot: Spot, entry: Entry, id: FileId) {
        self.remember(Deed::Made { spot, entry, id });
    }

    /// Remembers that a file which was made has taken the place of the one that is at `hidden` now.
    pub(super) fn exchanged(&mut self, spot: Spot, entry: Entry, id: FileId, hidden: Entry) {
        self.remember(Deed::Exchanged { spot, entry, id, hidden });
    }

    /// Where a file was made.
    pub(super) fn entry(&self, id: FileId) -> Option<&Entry> {
        match self.deeds.get(self.made.get(&id)?)? {
            Deed::Made { entry, .. } | Deed::Exchanged { entry, .. } => Some(entry),
            Deed::Astray { .. } | Deed::Moved { .. } => None,
        }
    }

    /// Remembers a file that was made in another directory than it should have been: `path` is what
    /// the kernel calls it.
    pub(super) fn made_astray(&mut self, path: Vec<u8>, id: FileId) {
        let spot = Spot::here(path.clone());
        match Entry::of(&spot) {
            Ok(entry) if entry.is(id) => self.made(spot, entry, id),
            _ => self.remember(Deed::Astray { path }),
        }
    }

    /// Moves a file aside, to a hidden name in its directory, and remembers it.
    ///
    /// # Errors
    ///
    /// If it is not that file any more, or cannot be renamed.
    pub(super) fn move_aside(&mut self, aside: &Aside) -> io::Result<()> {
        let entry = Entry::of(&aside.spot)?;
        if !entry.is(aside.id) {
            return Err(io::Error::other("another file lies there now"));
        }
        // Beyond those of before, or thousands would be tried for thousands of files.
        let first = self.count;
        let mut number = first;
        let hidden = loop {
            let name = format!("{HIDDEN}{}-{number}", std::process::id());
            match entry.rename(name.as_bytes()) {
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists && number < first + 10_000 =>
                {
                    number += 1;
                }
                result => break result?,
            }
        };
        let name = entry.file_name().to_vec();
        let is_it = hidden.is(aside.id);
        self.remember(Deed::Moved { aside: aside.clone(), hidden, name });
        // Exchanged between the look and the rename: undoing puts it back.
        if is_it { Ok(()) } else { Err(io::Error::other("another file lies there now")) }
    }

    /// Deletes a file that was moved aside.
    ///
    /// # Errors
    ///
    /// If it cannot be removed.
    pub(super) fn discard(&mut self, aside: &Aside) -> io::Result<()> {
        let number = *self.moved.get(&aside.spot).ok_or(io::ErrorKind::NotFound)?;
        if let Some(Deed::Moved { hidden, .. }) = self.deeds.get(&number) {
            hidden.unlink_if(aside.id)?;
        }
        self.forget(&aside.spot);
        Ok(())
    }

    /// What is to be removed when the rest cannot be undone any more.
    ///
    /// # Errors
    ///
    /// If it was not moved aside.
    pub(super) fn doomed(&self, aside: &Aside) -> io::Result<Doomed<'_>> {
        let number = self.moved.get(&aside.spot).ok_or(io::ErrorKind::NotFound)?;
        match self.deeds.get(number) {
            Some(Deed::Moved { hidden, .. }) => hidden.doomed(aside.id),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn forget(&mut self, spot: &Spot) {
        self.moved.remove(spot).and_then(|number| self.deeds.remove(&number));
    }

    /// Takes everything back, the latest first, and says what could not be.
    pub(super) fn undo(&mut self) -> Vec<UndoProblem> {
        let mut problems = Vec::new();
        while let Some((_, deed)) = self.deeds.pop_last() {
            match deed {
                // If it is gone or another one, it is no longer ours to remove.
                Deed::Made { spot, entry, id } => {
                    if let Err(source) = entry.unlink_if(id) {
                        problems.push(UndoProblem::Made { spot, source });
                    }
                }
                // If another one lies there, somebody has replaced it since.
                Deed::Exchanged { spot, entry, id, hidden } => {
                    if entry.is(id)
                        && let Err(source) = entry.exchange(&hidden)
                    {
                        problems.push(UndoProblem::Exchanged { spot, source });
                    }
                }
                Deed::Astray { path } => problems.push(UndoProblem::Astray { path }),
                Deed::Moved { aside, hidden, name } => {
                    if let Err(source) = hidden.rename(&name) {
                        let hidden = aside.spot.beside(hidden.file_name());
                        problems.push(UndoProblem::Moved { spot: aside.spot, hidden, source });
                    }
                }
            }
        }
        problems
    }

    /// Forgets everything: what was made stays.
    pub(super) fn make_final(&mut self) {
        self.deeds.clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for problem in self.undo() {
            tracing::error!(%problem, "failed to undo");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_nobody_knows_where_is_named() {
        let mut undo = Undo::default();
        let id = FileId { device: 1, inode: 2, born: None };
        undo.made_astray(b"/no/such/directory/x (deleted)".to_vec(), id);
        let problems: Vec<_> = undo.undo().iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            ["a socket file that was bound in another directory than expected, last seen as \
              /no/such/directory/x (deleted)"]
        );
    }
}
