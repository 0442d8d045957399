//! What `statx` says of a file: enough to know it again, and to give a new one the same face.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, makedev, statx};

use crate::image::FileId;
use crate::sys::sockopt;

/// What `stat` says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Which file it is.
    pub id: FileId,
    /// What kind of file.
    pub kind: FileType,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names that it has (hard links); 0 once it is deleted.
    pub links: u32,
}

impl Facts {
    /// Facts about an open file.
    ///
    /// # Errors
    ///
    /// What `statx` refuses.
    pub fn of(file: &OwnedFd) -> io::Result<Self> {
        Self::stat(file, OsStr::new(""), AtFlags::EMPTY_PATH)
    }

    /// Facts about what lies at a path; symbolic links are not followed. `None` if there is
    /// nothing.
    ///
    /// # Errors
    ///
    /// What `statx` refuses.
    pub fn at(path: &[u8]) -> io::Result<Option<Self>> {
        Self::in_directory(CWD, OsStr::from_bytes(path))
    }

    /// Facts about an entry of an open directory, as [`Facts::at`].
    ///
    /// # Errors
    ///
    /// What `statx` refuses.
    pub fn in_directory(directory: impl AsFd, name: &OsStr) -> io::Result<Option<Self>> {
        match Self::stat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(facts) => Ok(Some(facts)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn stat(directory: impl AsFd, path: &OsStr, flags: AtFlags) -> io::Result<Self> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let found = statx(directory, path, flags, wanted)?;
        let born = (found.stx_mask & StatxFlags::BTIME.bits() != 0).then(|| {
            let seconds = u64::try_from(found.stx_btime.tv_sec).unwrap_or_default();
            seconds.saturating_mul(1_000_000_000) + u64::from(found.stx_btime.tv_nsec)
        });
        let device = makedev(found.stx_dev_major, found.stx_dev_minor);
        let mode = u32::from(found.stx_mode);
        Ok(Self {
            id: FileId { device, inode: found.stx_ino, born },
            kind: FileType::from_raw_mode(mode),
            mode: mode & 0o7777,
            uid: found.stx_uid,
            gid: found.stx_gid,
            links: found.stx_nlink,
        })
    }
}

/// Whether two identities are of one file: the birth time counts where both have one.
#[must_use]
pub fn same_file(a: FileId, b: FileId) -> bool {
    let same_birth = a.born.zip(b.born).is_none_or(|(a, b)| a == b);
    a.device == b.device && a.inode == b.inode && same_birth
}

/// The very file that a socket is bound to, whatever stands under its name meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundFile {
    /// What it is.
    pub facts: Facts,
    /// Where it is now, as the kernel spells it; worth nothing once it is deleted.
    pub path: Vec<u8>,
}

impl BoundFile {
    /// Asks a socket for its file. `None` if it has none, or if we may not ask (`CAP_NET_ADMIN`).
    ///
    /// # Errors
    ///
    /// What `statx` or `readlink` refuses.
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let Ok(file) = sockopt::bound_file(socket) else { return Ok(None) };
        let facts = Facts::of(&file)?;
        let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        Ok(Some(Self { facts, path: path.into_os_string().into_vec() }))
    }
}
