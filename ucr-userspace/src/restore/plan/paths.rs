//! Which paths a plan binds, and which of them are one. Pure: somebody else looks.

use std::collections::HashMap;

use serde::Serialize;

use super::binders::{Binder, Key};
use super::step::Afterwards;
use crate::image::{FileId, SocketFile};

/// A path that a plan binds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathUse {
    /// The absolute path.
    pub path: Vec<u8>,
    /// Files which are known to be the image's own.
    pub own: Vec<FileId>,
    /// What becomes of a file that lies there now.
    pub afterwards: Afterwards,
}

/// Paths that lead to one place: `/var/run/x` and `/run/x`. Text alone does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spellings(HashMap<Vec<u8>, Vec<u8>>);

impl Spellings {
    /// Notes that `path` is only another way of writing `first`.
    pub fn insert(&mut self, path: Vec<u8>, first: Vec<u8>) {
        self.0.insert(path, first);
    }

    /// Whether every path is its own place.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one spelling by which a path is known.
    #[must_use]
    pub fn first(&self, path: Vec<u8>) -> Vec<u8> {
        self.0.get(&path).cloned().unwrap_or(path)
    }
}

/// The paths of the binders, each place once.
pub(super) fn uses(binders: &[Binder]) -> Vec<PathUse> {
    let mut paths: Vec<PathUse> = Vec::new();
    let mut at: HashMap<&[u8], usize> = HashMap::new();
    for binder in binders {
        let Key::Path(path) = &binder.key else { continue };
        let own = binder.file.as_ref().and_then(|file| match file {
            SocketFile::Present { id, .. } | SocketFile::Moved { id, .. } => Some(*id),
            SocketFile::Deleted | SocketFile::Replaced => None,
        });
        let afterwards = if binder.stays { Afterwards::Discard } else { Afterwards::PutBack };
        let index = *at.entry(path).or_insert(paths.len());
        match paths.get_mut(index) {
            Some(known) => {
                known.own.extend(own);
                if binder.stays {
                    known.afterwards = afterwards;
                }
            }
            None => paths.push(PathUse {
                path: path.clone(),
                own: own.into_iter().collect(),
                afterwards,
            }),
        }
    }
    paths
}
