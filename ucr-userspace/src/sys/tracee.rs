//! Letting go of a tracee with any signal: nix knows no real-time ones.

use std::io;

/// `PTRACE_DETACH`: the thread goes on, and receives `signal` first unless that is 0.
///
/// # Errors
/// `ESRCH` if it does not stand still, or is gone.
pub fn detach(thread: i32, signal: i32) -> io::Result<()> {
    // SAFETY: this request takes two numbers and touches no memory.
    let result = unsafe {
        libc::ptrace(libc::PTRACE_DETACH, thread, 0_usize, i64::from(signal).cast_unsigned())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
