//! Descriptors at numbers of one's choice.
//!
//! The safe ways work with owned descriptors; here a number is wanted that nobody owns yet, or
//! whose owner is somewhere else in the program (standard error, a log file).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// What happens to a descriptor at `execve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExec {
    /// It is closed.
    Close,
    /// The new program has it.
    Keep,
}

/// `dup3(2)` onto a number, over whatever is open there.
///
/// # Errors
///
/// The kernel's; `EBADF` for a number beyond `RLIMIT_NOFILE`.
pub fn duplicate_onto(from: BorrowedFd<'_>, number: RawFd, then: OnExec) -> io::Result<()> {
    let flags = match then {
        OnExec::Close => libc::O_CLOEXEC,
        OnExec::Keep => 0,
    };
    // SAFETY: dup3 touches no memory. Whoever owns `number` finds another file behind it: the
    // callers do this right before execve, or to a number that they reserved.
    if unsafe { libc::dup3(from.as_raw_fd(), number, flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Duplicates to exactly this number if it is free (close-on-exec), without ever touching one that
/// is in use: `None` if it is.
///
/// # Errors
///
/// The kernel's; `EINVAL` for a number beyond `RLIMIT_NOFILE`.
pub fn reserve(from: BorrowedFd<'_>, number: RawFd) -> io::Result<Option<OwnedFd>> {
    // SAFETY: fcntl with F_DUPFD_CLOEXEC touches no memory.
    let got = unsafe { libc::fcntl(from.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(got) };
    Ok((got == number).then_some(owned))
}

/// A duplicate of what is open at `number` (close-on-exec, at another number), and what happens to
/// the original at `execve`; `None` if nothing is open there.
///
/// # Errors
///
/// The kernel's.
pub fn duplicate_of(number: RawFd) -> io::Result<Option<(OwnedFd, OnExec)>> {
    // SAFETY: fcntl with F_GETFD touches no memory.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Ok(None);
    }
    // SAFETY: fcntl with F_DUPFD_CLOEXEC touches no memory.
    let got = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(got) };
    let then = if flags & libc::FD_CLOEXEC == 0 { OnExec::Keep } else { OnExec::Close };
    Ok(Some((owned, then)))
}

/// `close(2)` of a number that was filled with [`duplicate_onto`] and has no owner.
pub fn close_number(number: RawFd) {
    // SAFETY: the caller put the descriptor there itself; no owner will close it a second time.
    unsafe { libc::close(number) };
}
