//! Work done in another network namespace: sock_diag and `iter/unix` see only the caller's own.

use std::{fs::File, io, os::fd::AsFd as _, thread};

use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use crate::sys::sockopt;

/// The caller's network namespace.
pub const OWN: &str = "/proc/thread-self/ns/net";

/// Not in libc. Linux 5.14.
const SO_NETNS_COOKIE: i32 = 71;

/// Runs `work` in a network namespace (an open `/proc/PID/ns/net`), in a thread of its own that
/// ends there; `None` is the caller's namespace.
///
/// # Errors
/// The kernel's, when the namespace cannot be entered (`CAP_SYS_ADMIN` is needed).
pub fn run_in<T: Send>(namespace: Option<File>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let Some(namespace) = namespace else { return Ok(work()) };
    after(move || setns(namespace, CloneFlags::CLONE_NEWNET), work)
}

/// Runs `work` in a network namespace of its own, which has nothing but a loopback interface and goes with it.
///
/// # Errors
/// The kernel's, when there can be none (`CAP_SYS_ADMIN` is needed).
pub fn run_apart<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    after(|| unshare(CloneFlags::CLONE_NEWNET), work)
}

/// That the calling thread is in another network namespace, until this is dropped.
#[derive(Debug)]
pub struct Inside {
    before: File,
}

impl Inside {
    /// Enters one (an open `/proc/PID/ns/net`).
    ///
    /// # Errors
    /// As of [`run_in`].
    pub fn enter(namespace: &File) -> io::Result<Self> {
        let before = File::open(OWN)?;
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(Self { before })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Err(error) = setns(&self.before, CloneFlags::CLONE_NEWNET) {
            tracing::error!(%error, "failed to go back to the network namespace of before");
        }
    }
}

/// Both in a thread of their own.
fn after<T: Send>(
    enter: impl FnOnce() -> nix::Result<()> + Send,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        scope
            .spawn(move || {
                enter()?;
                Ok(work())
            })
            .join()
            .unwrap_or_else(|payload| std::panic::resume_unwind(payload))
    })
}

/// What the caller's network namespace is known by: a number that no other one has had since the machine was started,
/// while inode numbers are given again.
///
/// # Errors
/// The kernel's; `ENOPROTOOPT` before Linux 5.14.
pub fn cookie() -> io::Result<u64> {
    let any = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // Of no other length, says the kernel.
    let value = sockopt::get_at(any.as_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, size_of::<u64>())?;
    let value = value.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(u64::from_ne_bytes(value))
}
