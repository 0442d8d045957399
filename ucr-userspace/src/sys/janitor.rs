//! A process that removes files once this process has become another program, and not before.
//!
//! It is no child of the new program's (forked twice), has a session of its own and no descriptors
//! but those it needs, and ends at once.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::gate::{self, Fork, Gate, News, Process};

/// A file to be removed.
#[derive(Clone, Debug)]
pub struct Doomed<'a> {
    /// In which directory.
    pub directory: BorrowedFd<'a>,
    /// Its name there.
    pub name: CString,
    /// Its inode number: another file is left alone.
    pub inode: u64,
}

/// Starts it.
///
/// # Errors
///
/// What `pipe2`, `fork` or `close_range` refuses.
pub fn start(doomed: &[Doomed<'_>], gate: &mut Gate, process: Process<'_>) -> io::Result<()> {
    let (ready, done) = io::pipe()?;
    let mut kept: Vec<RawFd> = doomed.iter().map(|file| file.directory.as_raw_fd()).collect();
    kept.extend([gate.reader(), process.as_raw_fd(), done.as_raw_fd()]);
    kept.sort_unstable();
    gate.expect();
    // SAFETY: the child makes async-signal-safe calls only, on what was prepared above, and ends
    // by `end`.
    if let Fork::Parent(pid) = unsafe { gate::fork() }? {
        drop(done);
        gate::reap(pid);
        return gate::hear(&ready);
    }
    leave_for_good(&kept, done.as_raw_fd());
    gate::report(done.as_raw_fd(), 0);
    if gate::wait(gate.reader(), process.as_raw_fd()) == News::Executed {
        doomed.iter().for_each(remove);
    }
    gate::end(0)
}

/// Becomes nobody's child, with no descriptors but these, which are sorted; if that cannot be, says so at `done`
/// and ends. For a forked process.
pub(super) fn leave_for_good(kept: &[RawFd], done: RawFd) {
    // SAFETY: the child goes on with async-signal-safe calls, as this process does.
    match unsafe { gate::fork() } {
        Ok(Fork::Child) => {}
        Ok(Fork::Parent(_)) => gate::end(0),
        Err(_) => {
            gate::report(done, gate::errno());
            gate::end(1);
        }
    }
    leave();
    if let Err(errno) = close_others(kept) {
        gate::report(done, errno);
        gate::end(1);
    }
}

/// The terminal, and the directory, which might be unmounted.
fn leave() {
    // SAFETY: setsid touches no memory.
    unsafe { libc::setsid() };
    // SAFETY: the path is a string with a NUL that lives for ever.
    unsafe { libc::chdir(c"/".as_ptr()) };
}

/// `close_range` of all that lies between the numbers, which are sorted.
pub(super) fn close_others(kept: &[RawFd]) -> Result<(), i32> {
    let mut from: u32 = 0;
    for number in kept.iter().map(|number| number.cast_unsigned()) {
        if number > from {
            close_range(from, number - 1)?;
        }
        from = number + 1;
    }
    close_range(from, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), i32> {
    // SAFETY: closing touches no memory; the forked process never returns to an owner.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(gate::errno()),
    }
}

fn remove(file: &Doomed<'_>) {
    let directory = file.directory.as_raw_fd();
    let mut found = MaybeUninit::<libc::stat>::uninit();
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the name is a string with a NUL; the kernel fills the struct.
    let result = unsafe { libc::fstatat(directory, file.name.as_ptr(), found.as_mut_ptr(), flags) };
    if result < 0 {
        return;
    }
    // SAFETY: the kernel has filled it, as it said.
    let found = unsafe { found.assume_init() };
    if found.st_ino == file.inode {
        // SAFETY: the name is a string with a NUL.
        unsafe { libc::unlinkat(directory, file.name.as_ptr(), 0) };
    }
}
