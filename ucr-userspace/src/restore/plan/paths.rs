//! Which paths a plan binds, and which of them are one. Pure: somebody else looks.

use std::collections::HashMap;

use serde::Serialize;

use super::binders::{Binder, Key};
use super::spot::Spot;
use crate::image::{FileId, SocketFile};

/// A place where a plan makes a socket file that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathUse {
    /// Where.
    pub spot: Spot,
    /// Files which are known to be the image's own.
    pub own: Vec<FileId>,
}

/// Paths that lead to one place: `/var/run/x` and `/run/x`. Text alone does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spellings(HashMap<Spot, Spot>);

impl Spellings {
    /// Notes that `spot` is only another way of writing `first`.
    pub fn insert(&mut self, spot: Spot, first: Spot) {
        self.0.insert(spot, first);
    }

    /// Whether every path is its own place.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one spelling by which a path is known.
    #[must_use]
    pub fn first(&self, spot: Spot) -> Spot {
        self.0.get(&spot).cloned().unwrap_or(spot)
    }
}

/// The paths of the binders, each place once.
pub(super) fn uses(binders: &[Binder]) -> Vec<PathUse> {
    let mut paths: Vec<PathUse> = Vec::new();
    let mut at: HashMap<&Spot, usize> = HashMap::new();
    for binder in binders {
        let Key::Path(spot) = &binder.key else { continue };
        let own = binder.file.as_ref().and_then(|file| match file {
            SocketFile::Present { id, .. } | SocketFile::Moved { id, .. } => Some(*id),
            SocketFile::Deleted | SocketFile::Replaced => None,
        });
        let index = *at.entry(spot).or_insert(paths.len());
        match paths.get_mut(index) {
            Some(known) => known.own.extend(own),
            None => paths.push(PathUse { spot: spot.clone(), own: own.into_iter().collect() }),
        }
    }
    paths
}
