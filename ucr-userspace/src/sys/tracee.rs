//! What `ptrace(2)` is asked of a tracee beyond what crates at hand have: letting go of it with any
//! signal (nix knows no real-time ones), and its signal mask.

use std::io;

/// Of `struct kernel_sigset_t`, which is one word: 64 signals.
const MASK_SIZE: usize = size_of::<u64>();

fn request(
    request: libc::c_uint,
    thread: i32,
    address: usize,
    data: *mut libc::c_void,
) -> io::Result<()> {
    // SAFETY: the callers below give requests that take numbers, or memory of the size that they say,
    // which they own and which outlives the call.
    match unsafe { libc::ptrace(request, thread, address, data) } {
        result if result < 0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn number(signal: i32) -> *mut libc::c_void {
    std::ptr::without_provenance_mut(usize::try_from(signal).unwrap_or_default())
}

/// `PTRACE_DETACH`: the thread goes on, and receives `signal` first unless that is 0.
///
/// # Errors
/// `ESRCH` if it does not stand still, or is gone.
pub fn detach(thread: i32, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_DETACH, thread, 0, number(signal))
}

/// `PTRACE_CONT`: the thread goes on and stays traced, and receives `signal` first unless that is 0.
///
/// # Errors
/// As [`detach`].
pub fn resume(thread: i32, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_CONT, thread, 0, number(signal))
}

/// `PTRACE_SYSCALL`: the same, until it enters or leaves a system call.
///
/// # Errors
/// As [`detach`].
pub fn resume_to_call(thread: i32, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_SYSCALL, thread, 0, number(signal))
}

/// The signals that a thread blocks, a bit each, the first for signal 1.
///
/// # Errors
/// As [`detach`].
pub fn signal_mask(thread: i32) -> io::Result<u64> {
    let mut mask = 0_u64;
    request(libc::PTRACE_GETSIGMASK, thread, MASK_SIZE, (&raw mut mask).cast())?;
    Ok(mask)
}

/// Has a thread block these signals.
///
/// # Errors
/// As [`detach`].
pub fn set_signal_mask(thread: i32, mut mask: u64) -> io::Result<()> {
    request(libc::PTRACE_SETSIGMASK, thread, MASK_SIZE, (&raw mut mask).cast())
}

/// A set of registers (`PTRACE_GETREGSET`), of up to `room` bytes.
///
/// # Errors
/// As [`detach`], and `EINVAL` or `ENODEV` if this machine has none of the kind.
pub fn register_set(thread: i32, kind: usize, room: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; room];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    request(libc::PTRACE_GETREGSET, thread, kind, (&raw mut part).cast())?;
    bytes.truncate(part.iov_len);
    Ok(bytes)
}

/// `tgkill(2)`: a signal for one thread.
///
/// # Errors
/// `ESRCH` if it is gone.
pub fn send(process: i32, thread: i32, signal: i32) -> io::Result<()> {
    // SAFETY: this call takes numbers and touches no memory.
    match unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
