//! Unix socket addresses as raw `sun_path` bytes.
//!
//! Library types end a path at a NUL, or insist on room for one; the kernel does neither: a path
//! may fill all 108 bytes, and an abstract name may hold any bytes.

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Where `sun_path` starts, in bytes.
const PATH_AT: usize = offset_of!(libc::sockaddr_un, sun_path);

/// `sockaddr_un` with room for what `getsockname` may return: the kernel appends a NUL to a path of
/// 108 bytes, so an address can have 111 bytes (`unix_getname`).
#[repr(C, align(8))]
pub(super) struct Address(pub(super) [u8; 128]);

/// An address and its length for `bind` and `connect`.
///
/// # Errors
///
/// `InvalidInput` for no bytes at all (that would be an autobind) and for more than fit.
pub(super) fn address(sun_path: &[u8]) -> io::Result<(Address, libc::socklen_t)> {
    let mut address = Address([0; 128]);
    let end = PATH_AT + sun_path.len();
    let fits = !sun_path.is_empty() && end <= size_of::<libc::sockaddr_un>();
    let (true, Ok(length)) = (fits, libc::socklen_t::try_from(end)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or_default().to_ne_bytes();
    let bytes = family.iter().chain(sun_path);
    address.0.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    Ok((address, length))
}

/// The bytes of an address, and how many of them count.
///
/// # Errors
///
/// `InvalidInput` for a name of no bytes or of too many.
pub fn bytes(sun_path: &[u8]) -> io::Result<([u8; 128], libc::socklen_t)> {
    address(sun_path).map(|(address, length)| (address.0, length))
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `bind(2)`.
///
/// # Errors
///
/// The kernel's, and `InvalidInput` for a name of no bytes or of too many.
pub fn bind(socket: BorrowedFd<'_>, sun_path: &[u8]) -> io::Result<()> {
    let (address, length) = address(sun_path)?;
    // SAFETY: the pointer leads to `length` initialised bytes that outlive the call, aligned for
    // every address type; the descriptor is open for as long as it is borrowed.
    checked(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })
}

/// `connect(2)`.
///
/// # Errors
///
/// The kernel's, and `InvalidInput` for a name of no bytes or of too many.
pub fn connect(socket: BorrowedFd<'_>, sun_path: &[u8]) -> io::Result<()> {
    let (address, length) = address(sun_path)?;
    // SAFETY: as in `bind`.
    checked(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })
}

/// `getsockname(2)`: the bytes of `sun_path` (none if the socket has no name).
///
/// # Errors
///
/// The kernel's.
pub fn local(socket: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut address = Address([0; 128]);
    let mut length = libc::socklen_t::try_from(size_of::<Address>()).unwrap_or_default();
    // SAFETY: the kernel writes at most `length` bytes, which is the size of what the pointer leads
    // to, and both outlive the call.
    checked(unsafe {
        libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut length)
    })?;
    Ok(path_of(&address, length))
}

/// `getpeername(2)`: the bytes of the peer's `sun_path` (none if it has no name).
///
/// # Errors
///
/// The kernel's; `ENOTCONN` if there is no peer any more.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut address = Address([0; 128]);
    let mut length = libc::socklen_t::try_from(size_of::<Address>()).unwrap_or_default();
    // SAFETY: as in `local`.
    checked(unsafe {
        libc::getpeername(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut length)
    })?;
    Ok(path_of(&address, length))
}

pub(super) fn path_of(address: &Address, length: libc::socklen_t) -> Vec<u8> {
    let end = usize::try_from(length).unwrap_or(usize::MAX).min(address.0.len());
    address.0.get(PATH_AT..end).unwrap_or_default().to_vec()
}
