//! What is in a folder when ucr was killed: the file of a socket that lives, and nothing else.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use nix::fcntl::{Flock, FlockArg};
use ucr_tests::{World, wait};

/// A folder with the file of a socket, before ucr comes.
pub(super) struct Folder<'a> {
    world: &'a World,
    pub(super) names: BTreeSet<String>,
    file: u64,
}

impl<'a> Folder<'a> {
    pub(super) fn of(world: &'a World) -> Self {
        let file = fs::symlink_metadata(socket(world)).expect("its file").ino();
        Self { world, names: names(world.folder()), file }
    }

    /// At the path is the file of the sockets that live, and in the folder nothing but what the next restore names, or
    /// removes itself.
    pub(super) fn settles(&self, has_others: bool) {
        let file = || fs::symlink_metadata(socket(self.world)).map(|facts| facts.ino()).ok();
        let has = wait::holds(|| file().is_some_and(|now| (now != self.file) == has_others));
        assert!(has, "{:?} was {}, others: {has_others}", file(), self.file);
        let folder = self.world.folder();
        for name in names(folder).difference(&self.names) {
            assert!(name.starts_with(".ucr-"), "{name}");
            // Somebody may be about to do so.
            let _gone = fs::remove_file(folder.join(name));
        }
        assert_eq!(names(folder), self.names);
    }
}

pub(super) fn socket(world: &World) -> std::path::PathBuf {
    world.path("socket")
}

/// How the names of those begin.
const REMOVED: &str = ".ucr-root-";

pub(super) fn names(folder: &Path) -> BTreeSet<String> {
    let mut all = all_names(folder);
    all.retain(|name| !name.starts_with(REMOVED));
    all
}

pub(super) fn all_names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    entries.map(|entry| entry.file_name().display().to_string()).collect()
}

/// Whether nobody uses a directory any more that the next one removes.
pub(super) fn are_left(folder: &Path) -> bool {
    let is_left = |name: &String| {
        let opened = File::open(folder.join(name));
        opened.is_ok_and(|opened| Flock::lock(opened, FlockArg::LockSharedNonblock).is_ok())
    };
    all_names(folder).iter().filter(|name| name.starts_with(REMOVED)).all(is_left)
}
