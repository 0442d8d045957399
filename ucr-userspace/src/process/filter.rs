//! The filter of a socket: read, and given to another one.

use std::io;
use std::os::fd::BorrowedFd;

use super::options::is_unknown;
use crate::image::Filter;
use crate::sys::{filter, sockopt};

/// What is attached to a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attached {
    /// Nothing, and nothing is locked.
    Nothing,
    /// A classic filter, or the lock alone.
    Classic(Filter),
    /// An eBPF program, of which the kernel tells nothing.
    Extended,
}

/// Reads it.
///
/// # Errors
///
/// The option's name and what the kernel said.
pub fn read(socket: BorrowedFd<'_>) -> Result<Attached, (&'static str, io::Error)> {
    let locked = match sockopt::get(socket, libc::SO_LOCK_FILTER) {
        Ok(value) => sockopt::as_int(&value).is_some_and(|locked| locked != 0),
        Err(error) if is_unknown(&error) => false,
        Err(error) => return Err(("SO_LOCK_FILTER", error)),
    };
    let instructions = match filter::get(socket) {
        Ok(instructions) => instructions,
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => return Ok(Attached::Extended),
        Err(error) if is_unknown(&error) => Vec::new(),
        Err(error) => return Err(("SO_GET_FILTER", error)),
    };
    if instructions.is_empty() && !locked {
        return Ok(Attached::Nothing);
    }
    Ok(Attached::Classic(Filter { instructions, locked }))
}

/// Gives it to a socket. A lock comes last: it cannot be taken away.
///
/// # Errors
///
/// The call and what the kernel said.
pub fn set(socket: BorrowedFd<'_>, wanted: &Filter) -> Result<(), (&'static str, io::Error)> {
    if !wanted.instructions.is_empty() {
        filter::attach(socket, &wanted.instructions)
            .map_err(|error| ("setsockopt SO_ATTACH_FILTER", error))?;
    }
    if wanted.locked {
        sockopt::set(socket, libc::SO_LOCK_FILTER, &1i32.to_ne_bytes())
            .map_err(|error| ("setsockopt SO_LOCK_FILTER", error))?;
    }
    Ok(())
}
