//! Work done in another network namespace: sock_diag and `iter/unix` see only the caller's own.

use std::{fs::File, io, thread};

use nix::sched::{CloneFlags, setns};

/// Runs `work` in a network namespace (an open `/proc/PID/ns/net`), in a thread of its own that
/// ends there; `None` is the caller's namespace.
///
/// # Errors
/// The kernel's, when the namespace cannot be entered (`CAP_SYS_ADMIN` is needed).
pub fn run_in<T: Send>(namespace: Option<File>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let Some(namespace) = namespace else { return Ok(work()) };
    thread::scope(|scope| {
        scope
            .spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            })
            .join()
            .unwrap_or_else(|payload| std::panic::resume_unwind(payload))
    })
}
