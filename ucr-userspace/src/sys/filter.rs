//! Classic filters of sockets: `struct sock_filter` and `struct sock_fprog`.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::sockopt;

/// One instruction: code, jump if true, jump if false, operand.
pub type Instruction = (u16, u8, u8, u32);

const EMPTY: libc::sock_filter = libc::sock_filter { code: 0, jt: 0, jf: 0, k: 0 };

/// `SO_GET_FILTER`: the program that was attached; empty if there is none.
///
/// # Errors
///
/// The kernel's; `EACCES` for an eBPF program, which nobody is told (`sk_get_filter`).
pub fn get(socket: BorrowedFd<'_>) -> io::Result<Vec<Instruction>> {
    // Its "length" is a number of instructions (`sk_getsockopt`).
    let count = sockopt::get_length(socket, libc::SO_GET_FILTER)?;
    let mut program = vec![EMPTY; count];
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut length = libc::socklen_t::try_from(count)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel writes at most `length` instructions, which is what the vector holds.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_GET_FILTER,
            program.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    program.truncate(usize::try_from(length).unwrap_or(0));
    Ok(program.into_iter().map(|one| (one.code, one.jt, one.jf, one.k)).collect())
}

/// `SO_ATTACH_FILTER`.
///
/// # Errors
///
/// The kernel's: `EINVAL` for a program that it does not take, `EPERM` if the filter is locked.
pub fn attach(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    attach_at(socket, libc::SO_ATTACH_FILTER, program)
}

/// `SO_ATTACH_FILTER` or another option that takes a classic program.
///
/// # Errors
///
/// As of [`attach`].
pub fn attach_at(socket: BorrowedFd<'_>, option: i32, program: &[Instruction]) -> io::Result<()> {
    let mut program: Vec<libc::sock_filter> =
        program.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let whole = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    let length = libc::socklen_t::try_from(size_of::<libc::sock_fprog>())
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads the struct and the `len` instructions that it leads to; both outlive
    // the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const whole).cast(),
            length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
