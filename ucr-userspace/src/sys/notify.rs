//! Signals that tell of events on a descriptor: `F_SETOWN_EX`, `F_SETSIG`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct f_owner_ex` (`include/uapi/asm-generic/fcntl.h`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerEx {
    /// [`THREAD`], [`PROCESS`] or [`GROUP`].
    pub kind: libc::c_int,
    /// Its id; 0 for nobody, and for one that is gone.
    pub pid: libc::pid_t,
}

/// `F_OWNER_TID`.
pub const THREAD: libc::c_int = 0;
/// `F_OWNER_PID`.
pub const PROCESS: libc::c_int = 1;
/// `F_OWNER_PGRP`.
pub const GROUP: libc::c_int = 2;

const F_SETSIG: libc::c_int = 10;
const F_GETSIG: libc::c_int = 11;
const F_SETOWN_EX: libc::c_int = 15;
const F_GETOWN_EX: libc::c_int = 16;

/// Who gets a signal when something happens, and which (`F_GETSIG`): 0 for the usual one.
///
/// # Errors
///
/// The kernel's.
pub fn get(of: BorrowedFd<'_>) -> io::Result<(OwnerEx, i32)> {
    let mut owner = OwnerEx { kind: 0, pid: 0 };
    // F_GETOWN cannot tell a process group below -4096 from an error; F_GETOWN_EX can.
    // SAFETY: the kernel writes one `struct f_owner_ex`.
    checked(unsafe { libc::fcntl(of.as_raw_fd(), F_GETOWN_EX, &raw mut owner) })?;
    // SAFETY: fcntl with F_GETSIG touches no memory.
    let signal = checked(unsafe { libc::fcntl(of.as_raw_fd(), F_GETSIG) })?;
    Ok((owner, signal))
}

/// Sets both; a pid of 0 is nobody.
///
/// # Errors
///
/// The kernel's: `ESRCH` if there is no such process, thread or group.
pub fn set(of: BorrowedFd<'_>, owner: OwnerEx, signal: i32) -> io::Result<()> {
    // SAFETY: fcntl with F_SETSIG touches no memory.
    checked(unsafe { libc::fcntl(of.as_raw_fd(), F_SETSIG, signal) })?;
    // SAFETY: the kernel reads one `struct f_owner_ex`.
    checked(unsafe { libc::fcntl(of.as_raw_fd(), F_SETOWN_EX, &raw const owner) })?;
    Ok(())
}

/// Lets a signal do nothing to this process until it executes another program, which has the usual
/// action again. (To ignore it would be handed on to that program.) Nothing for what cannot be
/// caught.
pub fn swallow(signal: i32) {
    extern "C" fn nothing(_: libc::c_int) {}
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    let pointer = action.as_mut_ptr();
    // SAFETY: the pointer leads to a struct of this frame, all of whose fields may be zero.
    unsafe { (*pointer).sa_sigaction = nothing as *const () as libc::sighandler_t };
    // SAFETY: as above.
    unsafe { (*pointer).sa_flags = libc::SA_RESTART };
    // SAFETY: the struct is initialised; the handler does nothing, which is safe at any time; the old
    // action is not asked for.
    unsafe { libc::sigaction(signal, pointer, std::ptr::null_mut()) };
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
