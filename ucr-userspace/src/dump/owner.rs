//! Who is told of a socket's events by a signal: what of it a restored tree can be given.

use crate::{
    image::{Notification, Owner, Process},
    process::procfs,
};

/// What cannot be given to another socket, in words: a thread of a process that is dumped, which none
/// of the new process's threads is. (Its first thread has the process's own id.)
pub(super) fn lost(notification: Option<Notification>, processes: &[Process]) -> Option<String> {
    let Some(Notification { owner: Owner::Thread(thread), .. }) = notification else { return None };
    let is_dumped = |pid| processes.iter().any(|process| process.pid == pid);
    if is_dumped(thread) {
        return None;
    }
    // One that is gone meanwhile is outside: nobody stopped it.
    let process = procfs::status(thread).ok()?.process;
    is_dumped(process).then(|| format!("F_SETOWN_EX: thread {thread} of process {process}"))
}
