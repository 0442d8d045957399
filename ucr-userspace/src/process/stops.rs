//! What is heard of threads that are traced.

use std::io;

use rustix::process::WaitOptions;

use crate::model::Pid;

/// `PTRACE_EVENT_STOP`, above the signal.
const EVENT_STOP: i32 = 128;
/// What marks a stop at a system call (`PTRACE_O_TRACESYSGOOD`).
const CALL: i32 = libc::SIGTRAP | 0x80;

/// What was heard of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It stands, by our request or by job control.
    Stands,
    /// It stands on the way to receiving this signal, of whatever kind.
    Receives(i32),
    /// It stands before or behind a system call.
    AtCall,
    /// It stands for another reason.
    Otherwise,
    /// It ended, and that has been heard of.
    Ended,
    /// Nothing yet.
    Nothing,
}

/// Asks for news of a thread, and waits for them unless `NOHANG` is among the options.
pub(super) fn hear(thread: Pid, options: WaitOptions) -> io::Result<Heard> {
    // `__WALL`: threads too. The crate has no name for it.
    let options = options | WaitOptions::from_bits_retain(libc::__WALL.cast_unsigned());
    let raw = rustix::process::Pid::from_raw(thread.0).ok_or(io::ErrorKind::InvalidInput)?;
    loop {
        return match rustix::process::waitpid(Some(raw), options) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::CHILD) => Ok(Heard::Ended),
            Err(errno) => Err(errno.into()),
            Ok(None) => Ok(Heard::Nothing),
            Ok(Some((_, status))) => Ok(match (status.stopping_signal(), status.as_raw() >> 16) {
                (None, _) => Heard::Ended,
                (Some(_), EVENT_STOP) => Heard::Stands,
                (Some(CALL), 0) => Heard::AtCall,
                (Some(signal), 0) => Heard::Receives(signal),
                (Some(_), _) => Heard::Otherwise,
            }),
        };
    }
}
