//! Socket options as raw bytes, and the one `ioctl` of unix sockets.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `SIOCUNIXFILE` (`linux/un.h`): libc does not have it.
const SIOCUNIXFILE: libc::Ioctl = 0x89E0;

/// Not in libc: the kernel chooses again among those that share a port.
pub const SO_DETACH_REUSEPORT_BPF: i32 = 68;

/// Longest value that is read, in bytes.
pub const MAX_LEN: usize = 64;

/// `getsockopt(fd, SOL_SOCKET, name)`: the bytes that the kernel gave.
///
/// # Errors
///
/// The kernel's; `ENOPROTOOPT` if it does not know the option.
pub fn get(socket: BorrowedFd<'_>, name: i32) -> io::Result<Vec<u8>> {
    get_at(socket, libc::SOL_SOCKET, name, MAX_LEN)
}

/// `getsockopt(fd, level, name)`: the bytes that the kernel gave, at most `most`.
///
/// # Errors
///
/// The kernel's; `ENOPROTOOPT` if it does not know the option.
pub fn get_at(socket: BorrowedFd<'_>, level: i32, name: i32, most: usize) -> io::Result<Vec<u8>> {
    // Nearly all are a few bytes, and many are asked for.
    let (mut few, mut many) = ([0_u8; MAX_LEN], Vec::new());
    let value = match few.get_mut(..most) {
        Some(few) => few,
        None => {
            many.resize(most, 0);
            &mut many[..]
        }
    };
    let mut length = libc::socklen_t::try_from(most).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel writes at most `length` bytes, the size of the buffer, which outlives the
    // call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value.get(..usize::try_from(length).unwrap_or(0)).unwrap_or_default().to_vec())
}

/// `getsockopt` with no room for a value: the length that the kernel gives back. For
/// `SO_GET_FILTER` this is the number of instructions of the attached filter.
///
/// # Errors
///
/// The kernel's.
pub fn get_length(socket: BorrowedFd<'_>, name: i32) -> io::Result<usize> {
    let mut length: libc::socklen_t = 0;
    let nowhere = std::ptr::null_mut();
    // SAFETY: with a length of 0 the kernel writes to no value; `length` outlives the call.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, nowhere, &raw mut length)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(length).unwrap_or(usize::MAX))
}

/// `setsockopt(fd, SOL_SOCKET, name, value)`.
///
/// # Errors
///
/// The kernel's.
pub fn set(socket: BorrowedFd<'_>, name: i32, value: &[u8]) -> io::Result<()> {
    set_at(socket, libc::SOL_SOCKET, name, value)
}

/// `setsockopt(fd, level, name, value)`.
///
/// # Errors
///
/// The kernel's.
pub fn set_at(socket: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads at most `length` bytes, the size of the slice, which outlives the
    // call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An `O_PATH` descriptor of the very file that the socket is bound to, whatever stands under its
/// name meanwhile.
///
/// # Errors
///
/// `EPERM` without `CAP_NET_ADMIN` over the socket's network namespace, `ENOENT` for a socket that
/// is not bound to a file.
pub fn bound_file(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: this ioctl takes no argument.
    let file = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCUNIXFILE) };
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

/// A number of the kernel's `int` size from an option's bytes.
#[must_use]
pub fn as_int(value: &[u8]) -> Option<i32> {
    const { assert!(size_of::<i32>() == size_of::<libc::c_int>()) };
    value.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
}
