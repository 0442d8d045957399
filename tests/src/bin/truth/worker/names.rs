//! Names that the workers fight over, and names that one has for itself.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use fastrand::Rng;
use ucr::model::name::SUN_PATH_MAX;

/// How many names of each kind all workers share.
const SHARED: u32 = 6;

/// The names of one run.
pub(crate) struct Names {
    folder: PathBuf,
    run: String,
}

impl Names {
    /// The folder is the run's own; a worker stands in it.
    pub(crate) fn new(folder: &Path) -> Self {
        let run = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { folder: folder.to_owned(), run }
    }

    /// A name that others may have, want, or be connected to.
    pub(crate) fn shared(&self, rng: &mut Rng) -> Vec<u8> {
        let n = rng.u32(0..SHARED);
        match rng.u8(0..10) {
            0..4 => self.abstract_name(format!("/{n}").as_bytes()),
            // NUL bytes anywhere, and no byte left over.
            4 => self.longest_abstract(n),
            5 => self.abstract_name(&[0, 0, b'0'.wrapping_add(rng.u8(0..4)), 0xff, b'\n', 0]),
            6..8 => self.path(&format!("s{n}")),
            8 => format!("s{n}").into_bytes(),
            _ => self.longest_path(n),
        }
    }

    /// A path among the shared ones, and its name: for who means to unlink it.
    pub(crate) fn shared_path(&self, rng: &mut Rng) -> (PathBuf, Vec<u8>) {
        let leaf = format!("s{}", rng.u32(0..SHARED));
        (self.folder.join(&leaf), if rng.bool() { leaf.into_bytes() } else { self.path(&leaf) })
    }

    /// A name that nobody else has.
    pub(crate) fn own(&self) -> Vec<u8> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        self.abstract_name(format!("/own/{}/{count}", std::process::id()).as_bytes())
    }

    /// A listener of the foreman, which all workers have inherited.
    pub(crate) fn common(&self, n: usize) -> Vec<u8> {
        let leaf = format!("common-{n}");
        if n.is_multiple_of(2) { self.abstract_name(leaf.as_bytes()) } else { self.path(&leaf) }
    }

    /// A worker's mailbox. A path, since that can be reached from any network namespace.
    pub(crate) fn mailbox(&self, worker: usize) -> Vec<u8> {
        self.path(&format!("mail-{worker}"))
    }

    /// The listener at the full door of the bystander.
    pub(crate) fn door(&self) -> Vec<u8> {
        self.abstract_name(b"/door")
    }

    fn abstract_name(&self, rest: &[u8]) -> Vec<u8> {
        [b"\0", self.run.as_bytes(), rest].concat()
    }

    fn longest_abstract(&self, n: u32) -> Vec<u8> {
        let mut name = self.abstract_name(&n.to_be_bytes());
        name.resize(SUN_PATH_MAX, 0);
        name
    }

    fn path(&self, leaf: &str) -> Vec<u8> {
        self.folder.join(leaf).as_os_str().as_bytes().to_vec()
    }

    /// A path without room for its final NUL.
    fn longest_path(&self, n: u32) -> Vec<u8> {
        let mut path = self.path(&format!("{n}-"));
        path.resize(SUN_PATH_MAX, b'p');
        path
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_possible_and_some_are_extreme() {
        let names = Names::new(Path::new("/tmp/ucr-truth-x"));
        let mut rng = Rng::with_seed(1);
        let shared: BTreeSet<Vec<u8>> = (0..1000).map(|_| names.shared(&mut rng)).collect();
        assert!(shared.iter().all(|name| name.len() <= SUN_PATH_MAX));
        let longest = |first: u8| {
            shared.iter().any(|name| name.len() == SUN_PATH_MAX && name.first() == Some(&first))
        };
        assert!(longest(0) && longest(b'/'));
        assert!(shared.iter().any(|name| name.starts_with(b"s")));
    }

    #[test]
    fn an_own_name_is_given_once() {
        let names = Names::new(Path::new("/tmp/x"));
        assert_ne!(names.own(), names.own());
    }
}
