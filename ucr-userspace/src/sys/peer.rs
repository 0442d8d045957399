//! What a socket remembers of its peer, beyond what fits into a small value.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `SO_PEERGROUPS`: the supplementary groups of whoever `SO_PEERCRED` shows, in the kernel's order;
/// `None` if it shows nobody, or the kernel is older than 4.13.
///
/// # Errors
///
/// The kernel's.
pub fn groups(socket: BorrowedFd<'_>) -> io::Result<Option<Vec<u32>>> {
    let mut groups: Vec<u32> = Vec::new();
    loop {
        let room = groups.len() * size_of::<u32>();
        let mut length = libc::socklen_t::try_from(room).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: the kernel writes at most `length` bytes, the size of the vector's content.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let needed = usize::try_from(length).unwrap_or(0) / size_of::<u32>();
        if result == 0 {
            groups.truncate(needed);
            return Ok(Some(groups));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENODATA | libc::ENOPROTOOPT) => return Ok(None),
            // Then the length is what is needed (`sk_getsockopt`).
            Some(libc::ERANGE) if needed > groups.len() => groups.resize(needed, 0),
            _ => return Err(error),
        }
    }
}
