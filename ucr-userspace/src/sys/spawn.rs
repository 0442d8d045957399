//! Starting a program in a child, with descriptors at numbers of one's choice, as soon as this
//! process has become another program itself.

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::errno::Errno;

use super::gate::{self, Fork, Gate, News, Process};

/// A soft and a hard limit, as `setrlimit` takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimit {
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// A program and all that it gets.
#[derive(Clone, Debug)]
pub struct Program {
    /// Where it is.
    pub path: CString,
    /// Its arguments, its name first.
    pub arguments: Vec<CString>,
    /// `NAME=VALUE` each.
    pub environment: Vec<CString>,
    /// Descriptors and the numbers that their copies get. The numbers must be reserved in the
    /// calling process (open, close-on-exec), so that nothing that is needed here has one of them.
    pub descriptors: Vec<(RawFd, RawFd)>,
    /// `RLIMIT_NOFILE`.
    pub limit: FileLimit,
    /// What to say before the reason if `execve` fails.
    pub complaint: Vec<u8>,
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Forks a child that places the descriptors and waits at the gate; the program runs when this
/// process has become another one. Returns the child's pid, which is the caller's to reap.
///
/// # Errors
///
/// What `fork`, `dup2` or `setrlimit` refuses. That `execve` fails is known only to the child, and
/// it says so.
pub fn start(program: &Program, gate: &mut Gate, process: Process<'_>) -> io::Result<i32> {
    let shell = c"/bin/sh";
    let arguments = pointers(&program.arguments);
    let environment = pointers(&program.environment);
    // What a file that is no program is run with, as `execvp` does it.
    let script: Vec<_> = [shell.as_ptr(), program.path.as_ptr()]
        .into_iter()
        .chain(arguments.iter().skip(1).copied())
        .collect();
    // One of the numbers may be that of standard error, and lead to a socket by then.
    let people = io::stderr().as_fd().try_clone_to_owned().ok();
    let (ready, done) = io::pipe()?;
    gate.expect();
    // SAFETY: the child makes async-signal-safe calls only, on what was prepared above, and ends
    // in `execve` or `end`.
    if let Fork::Parent(pid) = unsafe { gate::fork() }? {
        drop(done);
        return gate::hear(&ready).map(|()| pid).inspect_err(|_| gate::reap(pid));
    }
    gate::close(gate.writer());
    if let Err(errno) = prepare(program) {
        gate::report(done.as_raw_fd(), errno);
        gate::end(1);
    }
    gate::report(done.as_raw_fd(), 0);
    if gate::wait(gate.reader(), process.as_raw_fd()) == News::Failed {
        gate::end(1);
    }
    as_usual();
    // SAFETY: path, arguments and environment are strings with a NUL that live in this frame or the
    // caller's, each list ended by a null pointer.
    unsafe { libc::execve(program.path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    if gate::errno() == libc::ENOEXEC {
        // SAFETY: as above.
        unsafe { libc::execve(shell.as_ptr(), script.as_ptr(), environment.as_ptr()) };
    }
    let reason = Errno::from_raw(gate::errno()).desc();
    if let Some(people) = people {
        for part in [program.complaint.as_slice(), reason.as_bytes(), b"\n"] {
            gate::write(people.as_raw_fd(), part);
        }
    }
    gate::end(127);
}

/// Descriptors and limit; gives the error number.
fn prepare(program: &Program) -> Result<(), i32> {
    for &(from, to) in &program.descriptors {
        // SAFETY: dup2 touches no memory; both numbers are the caller's.
        if unsafe { libc::dup2(from, to) } < 0 {
            return Err(gate::errno());
        }
    }
    let limit = libc::rlimit { rlim_cur: program.limit.soft, rlim_max: program.limit.hard };
    // SAFETY: setrlimit only reads the struct.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } < 0 {
        return Err(gate::errno());
    }
    Ok(())
}

/// Takes back what the standard library and ucr do to signals: `SIGPIPE` ignored, some blocked.
fn as_usual() {
    // SAFETY: the default action needs no function of this program.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: it initialises the set that the pointer leads to.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set is initialised; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
}
