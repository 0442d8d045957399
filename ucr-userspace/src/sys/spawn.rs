//! Starting a child with descriptors at numbers of one's choice.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// A soft and a hard limit, as `setrlimit` takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimit {
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// Starts `command` with each descriptor of the first kind duplicated to the number beside it, and
/// with this `RLIMIT_NOFILE`.
///
/// The numbers must be reserved in the calling process (open, close-on-exec): the standard library
/// reports a failed `execve` through a pipe, and would lose it if that pipe had one of the numbers.
///
/// # Errors
///
/// What `fork`, `dup2`, `setrlimit` or `execve` refuses.
pub fn spawn(
    mut command: Command,
    descriptors: Vec<(RawFd, RawFd)>,
    limit: FileLimit,
) -> io::Result<Child> {
    let place = move || {
        for &(from, to) in &descriptors {
            // SAFETY: dup2 is async-signal-safe and touches no memory; both numbers are the
            // caller's.
            if unsafe { libc::dup2(from, to) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let limit = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
        // SAFETY: setrlimit is a bare system call here and only reads the struct.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and execve the closure makes async-signal-safe system calls only; it
    // neither allocates nor takes a lock.
    unsafe { command.pre_exec(place) };
    command.spawn()
}
