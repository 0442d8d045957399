//! Descriptors out of a message that somebody else is to receive.
//!
//! The message stays where it is; but on the way `SO_PEEK_OFF` of the socket is another one for a moment,
//! so this is done only where nothing else leads to a file.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::sys::{message, sockopt};

/// `SO_PEEK_OFF` as it was, put back when this is dropped.
struct Offset<'a> {
    socket: BorrowedFd<'a>,
    before: Vec<u8>,
}

impl<'a> Offset<'a> {
    fn set(socket: BorrowedFd<'a>, offset: i32) -> io::Result<Self> {
        let before = sockopt::get(socket, libc::SO_PEEK_OFF)?;
        let guard = Self { socket, before };
        sockopt::set(socket, libc::SO_PEEK_OFF, &offset.to_ne_bytes())?;
        Ok(guard)
    }
}

impl Drop for Offset<'_> {
    fn drop(&mut self) {
        if let Err(error) = sockopt::set(self.socket, libc::SO_PEEK_OFF, &self.before) {
            tracing::error!(%error, "failed to put SO_PEEK_OFF back");
        }
    }
}

/// Duplicates of the descriptors in the first message at or behind an offset, which counts the bytes of
/// the messages before.
///
/// # Errors
///
/// The kernel's.
pub fn passed(socket: BorrowedFd<'_>, offset: usize) -> io::Result<Vec<OwnedFd>> {
    let offset = i32::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let _offset = Offset::set(socket, offset)?;
    Ok(message::receive(socket, 1, libc::MSG_PEEK)?.files)
}
