//! The files of a history: who may write it, and where a damaged one goes.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process,
    time::SystemTime,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::error::StoreError;

/// The write-ahead log beside a database.
pub(super) const LOG: &str = "-wal";
/// What `SQLite` keeps beside a database.
const COMPANIONS: [&str; 2] = [LOG, "-shm"];

/// The path with something appended to its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Keeps others from writing until what is returned is dropped, or this process ends.
///
/// # Errors
/// [`StoreError::InUse`]; the kernel's.
pub(super) fn lock(path: &Path) -> Result<Flock<File>, StoreError> {
    let lock_path = beside(path, ".lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&lock_path)
        .map_err(StoreError::io("open", &lock_path))?;
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((file, Errno::EWOULDBLOCK)) => {
            return Err(StoreError::InUse { path: path.to_path_buf(), pid: holder(file) });
        }
        Err((_, errno)) => return Err(StoreError::io("lock", &lock_path)(errno.into())),
    };
    // Who holds it is a courtesy: on a full disk it cannot be written, and the lock holds all the same.
    lock.set_len(0).and_then(|()| write!(lock, "{}", process::id())).ok();
    Ok(lock)
}

fn holder(mut file: File) -> Option<u32> {
    let mut pid = String::new();
    file.read_to_string(&mut pid).ok()?;
    pid.trim().parse().ok()
}

/// Makes the file if there is none, for its owner only.
///
/// # Errors
/// [`StoreError::NotRegular`]; the kernel's.
pub(super) fn provide(path: &Path) -> Result<(), StoreError> {
    require_regular(path)?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(StoreError::io("open", path))?;
    // `SQLite` gives its companions the same mode. Names of sockets are nobody else's business.
    file.set_permissions(Permissions::from_mode(0o600)).map_err(StoreError::io("protect", path))
}

/// Makes sure that there is a file or nothing.
pub(super) fn require_regular(path: &Path) -> Result<(), StoreError> {
    match fs::symlink_metadata(path) {
        Ok(there) if !there.is_file() => Err(StoreError::NotRegular { path: path.to_path_buf() }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io("look at", path)(error)),
    }
}

/// Length of a file, in bytes; 0 if there is none.
pub(super) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |facts| facts.len())
}

/// Whether anything has this name.
pub(super) fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Renames a damaged database and what belongs to it, so that it can be looked at. Nothing is deleted.
/// Returns where it is now.
///
/// # Errors
/// The kernel's.
pub(super) fn move_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let utc = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let stem = beside(path, &format!(".damaged-{}", utc.replace([':', '-'], "")));
    let is_free = |name: &PathBuf| {
        !is_there(name) && COMPANIONS.iter().all(|suffix| !is_there(&beside(name, suffix)))
    };
    let numbered = (2_u32..).map(|number| beside(&stem, &format!("-{number}")));
    let Some(aside) = std::iter::once(stem.clone()).chain(numbered).find(is_free) else {
        return Err(StoreError::io("move aside", path)(io::ErrorKind::AlreadyExists.into()));
    };
    // The database first: should we be killed half-way, a log without one is found damaged again.
    for suffix in std::iter::once("").chain(COMPANIONS) {
        let from = beside(path, suffix);
        match fs::rename(&from, beside(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("move aside", &from)(error));
            }
            _ => {}
        }
    }
    Ok(aside)
}
