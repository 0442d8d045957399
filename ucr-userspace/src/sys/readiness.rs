//! Waiting for a descriptor in tokio.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Waits for a descriptor to become readable. Must be called inside a tokio runtime.
///
/// # Errors
/// The kernel's, from epoll.
pub fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stays open and the same for as long as it lives, and it lives inside the
    // AsyncFd.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}
