//! Locks that outlive the process that took them: pinned, until somebody releases them or their time is over.
//!
//! ```text
//! /sys/fs/bpf/ucr-lock/PID-TIME/LOCKS lock_ingress lock_egress lock_early-2 …
//! ```
//!
//! Where filters take the place of `lock_early-2`, there are such directories also without `LOCKS`, as long as a lock
//! that is not kept is held (see `notes`).

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use aya::{
    maps::{Map, MapData},
    pin::PinError,
    sys::SyscallError,
};
use nix::fcntl::Flock;
use ucr_common::lock::{Direction, Locked};

use super::{
    Connection, Links, Lock, LockError, Locks, MAP, early::Early, filters::Filters, notes,
};
use crate::{
    kernel::clock,
    sys::bpf,
    tracer::{
        TracerError,
        pins::{Mounted, PinDirectory, release_file_system},
    },
};

/// Where they are pinned.
pub(super) const DIRECTORY: &str = "/sys/fs/bpf/ucr-lock";

/// Stands there if the bpf file system was mounted for it.
const MOUNTED: &str = "mounted";

/// A lock that is pinned. Dropping it changes nothing.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
}

impl Lock {
    /// Pins it, so that it holds when this process has ended: from now on for as long as was said when it was taken.
    ///
    /// # Errors
    /// No bpf file system, one of the connections is locked by somebody else, or the kernel's; nothing is pinned then.
    pub fn keep(mut self) -> Result<Kept, LockError> {
        // What came since was acknowledged, and is in no image.
        if self.has_ended() {
            return Err(LockError::Expired);
        }
        for connection in self.connections.clone() {
            self.write(&connection)?;
        }
        let Self { locks, mut links, early, connections, .. } = self;
        let filters = match early {
            Some(Early::Links(more)) => {
                links.extend(more);
                None
            }
            Some(Early::Filters(filters)) => Some(filters),
            None => None,
        };
        // Behind the filters, since whoever takes them off waits for it.
        let turn = directory()?;
        let mut taken = HashSet::new();
        for (path, locks) in others()? {
            match live(&locks) {
                none if none.is_empty() => remove(&path)?,
                some => taken.extend(some),
            }
        }
        let is_taken = |one: &&Connection| one.keys().iter().any(|key| taken.contains(key));
        if let Some(&Connection { local, remote }) = connections.iter().find(is_taken) {
            return Err(LockError::Taken { local, remote });
        }
        let path = match &filters {
            Some(filters) => filters.directory().to_owned(),
            None => new_directory()?,
        };
        let pinned = filters.as_ref().map_or(Ok(()), Filters::pin);
        if let Err(error) = pinned.and_then(|()| pin(&links, locks, &path)) {
            // What stands in the way of that, the error that is on its way says.
            remove(&path).ok();
            return Err(error);
        }
        drop(turn);
        if let Some(filters) = filters {
            filters.stay();
        }
        Ok(Kept { path })
    }
}

fn pin(links: &Links, locks: Locks, path: &Path) -> Result<(), LockError> {
    let pinned = |path: PathBuf| |source| LockError::Tracer(TracerError::Pin { path, source });
    for (name, link) in links {
        let pin = path.join(name);
        bpf::pin(link.as_fd(), &pin).map_err(|io_error| {
            let call = "BPF_OBJ_PIN";
            pinned(pin)(PinError::SyscallError(SyscallError { call, io_error }))
        })?;
    }
    // Last: whatever has this is complete.
    let map = path.join(MAP);
    locks.pin(&map).map_err(pinned(map))
}

impl Kept {
    /// Takes the pins away again, for a caller who has not done what it was for.
    ///
    /// # Errors
    /// The kernel's.
    pub fn give_up(self) -> Result<(), LockError> {
        forget(&self.path)
    }
}

/// Releases what is kept of these connections, whoever locked them, and what is kept of others and is over.
/// Returns how many of them were locked.
///
/// # Errors
/// The kernel's.
pub fn release(connections: &[Connection]) -> Result<usize, LockError> {
    if !Path::new(DIRECTORY).try_exists().map_err(files("look at", Path::new(DIRECTORY)))? {
        return Ok(0);
    }
    let turn = directory()?;
    let mut released = 0;
    for (path, mut locks) in others()? {
        for connection in connections {
            let mut was_locked = false;
            for key in connection.keys() {
                was_locked |= locks.remove(&key).is_ok();
            }
            released += usize::from(was_locked);
        }
        if live(&locks).is_empty() {
            remove(&path)?;
        }
    }
    clear(turn)?;
    Ok(released)
}

/// What passes the kept lock of a connection, if there is one.
///
/// # Errors
/// The kernel's.
pub fn mark(connection: Connection) -> Result<Option<u32>, LockError> {
    if !Path::new(DIRECTORY).try_exists().map_err(files("look at", Path::new(DIRECTORY)))? {
        return Ok(None);
    }
    let turn = directory()?;
    let found = others()?.iter().find_map(|(_, locks)| {
        let value = connection.keys().iter().find_map(|key| locks.get(key, 0).ok())?;
        let locked: Locked = zerocopy::transmute!(value);
        Some(locked.mark)
    });
    clear(turn)?;
    Ok(found)
}

/// Takes off locks whose time is over, so that nothing looks at packets any more: whoever runs next does it for who
/// has not come back.
pub fn take_off_old() {
    match release(&[]) {
        Ok(_) => {}
        // Whoever may not look there has none, and is told of what else he may not.
        Err(LockError::Files { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) => {
            tracing::warn!(%error, "failed to take off locks of connections whose time is over");
        }
    }
}

/// Makes the directory if it is not there, and keeps others out of it.
pub(super) fn directory() -> Result<Flock<File>, LockError> {
    let pins = PinDirectory::new(DIRECTORY.into());
    let mounted = pins.provide_file_system()?;
    let make = |path: &Path| match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(files("create directory", path)),
    };
    let directory = Path::new(DIRECTORY);
    loop {
        make(directory)?;
        let turn = match pins.lock() {
            Err(TracerError::NotAttached { .. }) => continue,
            turn => turn?,
        };
        // Whoever had the turn before may have removed it, and somebody else made another one.
        let own = turn.metadata().map_err(files("look at", directory))?;
        if fs::metadata(directory).is_ok_and(|there| there.ino() == own.ino()) {
            if mounted == Mounted::ByUs {
                make(&directory.join(MOUNTED))?;
            }
            return Ok(turn);
        }
    }
}

/// Makes one for a lock, which only who has the turn may do.
pub(super) fn new_directory() -> Result<PathBuf, LockError> {
    let path = Path::new(DIRECTORY).join(format!("{}-{}", std::process::id(), clock::boottime()));
    DirBuilder::new().mode(0o700).create(&path).map_err(files("create directory", &path))?;
    Ok(path)
}

/// Takes off what is written down in one, and removes it.
pub(super) fn forget(path: &Path) -> Result<(), LockError> {
    let turn = directory()?;
    remove(path)?;
    clear(turn)
}

/// Removes the directory if nothing is kept any more, and the file system if it was mounted for it.
fn clear(turn: Flock<File>) -> Result<(), LockError> {
    notes::clear_rooms()?;
    let directory = Path::new(DIRECTORY);
    let is_left = fs::read_dir(directory).map_err(files("list", directory))?.flatten();
    if is_left.filter(|entry| entry.file_name() != MOUNTED).count() > 0 {
        return Ok(());
    }
    let mark = fs::remove_dir(directory.join(MOUNTED));
    match fs::remove_dir(directory) {
        // Somebody else keeps something there by now.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(()),
        removed => removed.map_err(files("remove directory", directory))?,
    }
    drop(turn);
    if mark.is_ok() {
        release_file_system();
    }
    Ok(())
}

/// What is kept, by its directory.
fn others() -> Result<Vec<(PathBuf, Locks)>, LockError> {
    let directory = Path::new(DIRECTORY);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(files("list", directory))? {
        let path = entry.map_err(files("list", directory))?.path();
        if path.ends_with(MOUNTED) || notes::is_room(&path) {
            continue;
        }
        let pin = path.join(MAP);
        if !pin.try_exists().map_err(files("look at", &pin))? {
            // Half of one: its maker was killed. Nothing is locked by it that is not locked otherwise.
            if !notes::has_maker(&path)? {
                remove(&path)?;
            }
            continue;
        }
        let map = MapData::from_pin(&pin).and_then(Map::from_map_data);
        found.push((path, map.and_then(Locks::try_from)?));
    }
    Ok(found)
}

/// What has not ended yet.
fn live(locks: &Locks) -> Vec<[u8; size_of::<Direction>()]> {
    let now = clock::boottime();
    let entries = locks.iter().filter_map(Result::ok);
    entries
        .filter(|(_, locked)| {
            let locked: Locked = zerocopy::transmute!(*locked);
            now < locked.until
        })
        .map(|(key, _)| key)
        .collect()
}

/// Removes pins, which are what locks, takes filters off, and removes the directory, unless filters hang in another
/// network namespace.
fn remove(path: &Path) -> Result<(), LockError> {
    for entry in fs::read_dir(path).map_err(files("list", path))?.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_file(entry.path()).map_err(files("remove pin", &entry.path()))?;
        }
    }
    notes::take_off(path)?;
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed.map_err(files("remove directory", path)),
    }
}

pub(super) fn files(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> LockError + use<> {
    let path = path.to_owned();
    move |source| LockError::Files { operation, path, source }
}
