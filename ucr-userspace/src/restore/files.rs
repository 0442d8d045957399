//! One entry of a directory, reached through a descriptor of the directory: it stays the same entry
//! when a directory above is renamed or replaced meanwhile.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, open, openat, readlink, renameat_with, unlinkat,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType as Kind, socket_with};
use rustix::process::fchdir;

use super::plan::spot::Spot;
use crate::image::FileId;
use crate::process::beneath;
use crate::process::files::{Facts, same_file};
use crate::sys::addr;
use crate::sys::janitor::Doomed;

/// An entry of a directory; there may or may not be a file.
#[derive(Debug)]
pub struct Entry {
    directory: OwnedFd,
    name: Vec<u8>,
}

impl Entry {
    /// Opens the directory of a place.
    ///
    /// # Errors
    ///
    /// If there is no such directory, or it cannot be opened.
    pub fn of(spot: &Spot) -> io::Result<Self> {
        let (parent, name) = beneath::split(&spot.path)?;
        Ok(Self::at(beneath::directory(&spot.roots, parent)?, name.to_vec()))
    }

    /// In an open directory.
    pub(super) fn at(directory: OwnedFd, name: Vec<u8>) -> Self {
        Self { directory, name }
    }

    /// The directory.
    pub(super) fn directory_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The directory, once more.
    pub(super) fn parent(&self) -> io::Result<OwnedFd> {
        self.directory.try_clone()
    }

    fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    /// What lies there, if anything.
    ///
    /// # Errors
    ///
    /// What `statx` refuses.
    pub fn facts(&self) -> io::Result<Option<Facts>> {
        Facts::in_directory(&self.directory, OsStr::from_bytes(&self.name))
    }

    /// What to remove, and from where, for somebody who comes later.
    ///
    /// # Errors
    ///
    /// A name with a NUL.
    pub fn doomed(&self, id: FileId) -> io::Result<Doomed<'_>> {
        let name = CString::new(self.name.as_slice())?;
        Ok(Doomed { directory: self.directory.as_fd(), name, inode: id.inode })
    }

    /// Which directory it is in.
    ///
    /// # Errors
    ///
    /// What `statx` refuses.
    pub fn directory(&self) -> io::Result<FileId> {
        Ok(Facts::of(&self.directory)?.id)
    }

    /// Whether this very file lies there, as far as can be seen.
    #[must_use]
    pub fn is(&self, id: FileId) -> bool {
        matches!(self.facts(), Ok(Some(facts)) if same_file(facts.id, id))
    }

    /// Whether a socket of any network namespace is bound to the file that lies there, which has these facts: sock_diag
    /// shows only one namespace, paths reach across. Connecting a *datagram* socket asks without being noticed: with
    /// nobody there it is `ECONNREFUSED`, with a listener of another type `EPROTOTYPE`
    /// (`unix_find_bsd`), and with a datagram socket it succeeds and means nothing.
    ///
    /// # Errors
    ///
    /// Another file that lies there by now; what is refused.
    pub(super) fn is_live(&self, facts: Facts) -> io::Result<bool> {
        let file = self.open()?;
        if !same_file(Facts::of(&file)?.id, facts.id) {
            return Err(io::Error::other("it changes while it is looked at"));
        }
        let probe = socket_with(AddressFamily::UNIX, Kind::DGRAM, SocketFlags::CLOEXEC, None)?;
        match addr::connect(probe.as_fd(), &through_proc(&file)) {
            Ok(()) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::ECONNREFUSED) => Ok(false),
                Some(libc::EPROTOTYPE | libc::EPERM) => Ok(true),
                _ => Err(error),
            },
        }
    }

    /// An `O_PATH` descriptor of what lies there.
    ///
    /// # Errors
    ///
    /// What `openat` refuses.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.directory, self.name(), flags, Mode::empty())?)
    }

    /// Removes the file if it is this one; says whether it was. (Between the look and the removal
    /// somebody may put another one there: the kernel has no call that does both.)
    ///
    /// # Errors
    ///
    /// What `statx` or `unlinkat` refuses.
    pub fn unlink_if(&self, id: FileId) -> io::Result<bool> {
        let is_it = self.facts()?.is_some_and(|facts| same_file(facts.id, id));
        if is_it {
            unlinkat(&self.directory, self.name(), AtFlags::empty())?;
        }
        Ok(is_it)
    }

    /// Renames within the directory, never over another file, and returns the new entry.
    ///
    /// # Errors
    ///
    /// `EEXIST` if something lies at the new name, else what `renameat2` refuses.
    pub fn rename(&self, to: &[u8]) -> io::Result<Self> {
        let moved = Self::at(self.directory.try_clone()?, to.to_vec());
        self.move_to(&moved)?;
        Ok(moved)
    }

    /// Renames to another entry of the same file system, never over another file.
    ///
    /// # Errors
    ///
    /// As [`rename`](Self::rename).
    pub(super) fn move_to(&self, to: &Self) -> io::Result<()> {
        let (from, into) = (&self.directory, &to.directory);
        match renameat_with(from, self.name(), into, to.name(), RenameFlags::NOREPLACE) {
            // A file system without this flag: look first, then rename.
            Err(rustix::io::Errno::INVAL) => {
                if to.facts()?.is_some() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                Ok(rustix::fs::renameat(from, self.name(), into, to.name())?)
            }
            result => Ok(result?),
        }
    }

    /// Exchanges what lies here for what lies there, on the same file system, in one instant.
    ///
    /// # Errors
    ///
    /// What `renameat2` refuses, as `ENOENT` if there is nothing.
    pub(super) fn exchange(&self, with: &Self) -> io::Result<()> {
        let (here, there) = (&self.directory, &with.directory);
        Ok(renameat_with(here, self.name(), there, with.name(), RenameFlags::EXCHANGE)?)
    }

    /// The entry once more.
    ///
    /// # Errors
    ///
    /// No descriptor is free.
    pub(super) fn again(&self) -> io::Result<Self> {
        Ok(Self::at(self.directory.try_clone()?, self.name.clone()))
    }

    /// The entry's own name, without the directory.
    #[must_use]
    pub fn file_name(&self) -> &[u8] {
        &self.name
    }
}

/// The path by which the kernel knows an open file now.
///
/// # Errors
///
/// What `readlinkat` in `/proc` refuses.
pub fn known_as(file: &OwnedFd) -> io::Result<Vec<u8>> {
    let path = through_proc(file);
    Ok(readlink(OsStr::from_bytes(&path), Vec::new())?.into_bytes())
}

/// The working directory changed for one call; it is changed back when this is dropped, and
/// [`leave`](Self::leave) tells whether that worked.
#[derive(Debug)]
pub struct InDirectory {
    before: Option<OwnedFd>,
}

impl InDirectory {
    /// Changes to `directory`, or nowhere.
    ///
    /// # Errors
    ///
    /// If it or the present directory cannot be opened or entered.
    pub fn enter(directory: Option<&[u8]>) -> io::Result<Self> {
        let Some(directory) = directory else {
            return Ok(Self { before: None });
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let before = open(".", flags, Mode::empty())?;
        let there = open(OsStr::from_bytes(directory), flags, Mode::empty())?;
        fchdir(there)?;
        Ok(Self { before: Some(before) })
    }

    /// Changes back.
    ///
    /// # Errors
    ///
    /// If the directory of before cannot be entered any more.
    pub fn leave(mut self) -> io::Result<()> {
        match self.before.take() {
            Some(before) => Ok(fchdir(before)?),
            None => Ok(()),
        }
    }
}

impl Drop for InDirectory {
    fn drop(&mut self) {
        if let Some(before) = self.before.take()
            && let Err(error) = fchdir(before)
        {
            tracing::error!(%error, "failed to change back to the working directory");
        }
    }
}

/// The path by which a process reaches a file that it holds open.
#[must_use]
pub fn through_proc(file: &OwnedFd) -> Vec<u8> {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into_bytes()
}
