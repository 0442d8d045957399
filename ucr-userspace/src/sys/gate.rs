//! Forked processes that wait until the process that made them has become another program.
//!
//! The close-on-exec end of a pipe tells: it is closed by `execve` or by death, and a byte through
//! it says that neither comes. What tells `execve` from death is the process's name (`comm`): it is
//! a mark until then, which stays with a dead process, and which `execve` replaces right after it
//! has closed descriptors (`begin_new_exec`).
//!
//! Between `fork` and the end of such a process only async-signal-safe calls are made, on memory
//! that was prepared before.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// The name of the process while others wait for it to become another program. As long as a name
/// may be: 15 bytes.
pub const MARK: &[u8; 15] = b"ucr: to execute";

/// How often the name is looked at, with a millisecond between, before it is given up.
const LOOKS: u32 = 1000;

/// What those who wait learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It has become another program.
    Executed,
    /// It is gone, and nobody can tell what it was last.
    Gone,
    /// It will not, or it died before.
    Failed,
}

/// A pipe whose end nobody but this process holds for long.
#[derive(Debug)]
pub struct Gate {
    reader: PipeReader,
    writer: PipeWriter,
    waiting: usize,
}

impl Gate {
    /// A closed one.
    ///
    /// # Errors
    ///
    /// What `pipe2` refuses.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader, writer, waiting: 0 })
    }

    /// One more waits: counted before it is started, so that all are told.
    pub(super) fn expect(&mut self) {
        self.waiting += 1;
    }

    pub(super) fn reader(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    pub(super) fn writer(&self) -> RawFd {
        self.writer.as_raw_fd()
    }
}

/// Whoever comes to this has not become another program.
impl Drop for Gate {
    fn drop(&mut self) {
        if let Err(error) = self.writer.write_all(&vec![0; self.waiting]) {
            tracing::error!(%error, "failed to tell those who wait for an execve that none comes");
        }
    }
}

/// Waits at a gate; `process` is the directory in `/proc` of the one who holds it.
/// Async-signal-safe.
pub(super) fn wait(gate: RawFd, process: RawFd) -> News {
    let mut byte = [0; 1];
    match read(gate, &mut byte) {
        Some(0) => {}
        Some(_) | None => return News::Failed,
    }
    for _ in 0..LOOKS {
        match is_marked(process) {
            Some(true) => pause(),
            Some(false) => return News::Executed,
            None => return News::Gone,
        }
    }
    News::Failed
}

/// `None` if the process is no longer there.
fn is_marked(process: RawFd) -> Option<bool> {
    // SAFETY: the name is a string with a NUL that lives for ever.
    let file = unsafe { libc::openat(process, c"comm".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return None;
    }
    let mut name = [0; 16];
    let length = read(file, &mut name);
    close(file);
    // With a newline behind it.
    name.get(..length?).map(|name| name.starts_with(MARK))
}

/// A millisecond.
fn pause() {
    // SAFETY: no descriptors are given, so the pointer is not followed.
    unsafe { libc::poll(std::ptr::null_mut(), 0, 1) };
}

/// `read(2)`, again if a signal interrupts it.
pub(super) fn read(file: RawFd, buffer: &mut [u8]) -> Option<usize> {
    loop {
        // SAFETY: the kernel writes at most as many bytes as the buffer has.
        let got = unsafe { libc::read(file, buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(got) {
            Ok(got) => return Some(got),
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// `write(2)`, once: a few bytes into a pipe are written whole.
pub(super) fn write(file: RawFd, bytes: &[u8]) {
    // SAFETY: the kernel reads at most as many bytes as the slice has.
    unsafe { libc::write(file, bytes.as_ptr().cast(), bytes.len()) };
}

/// `close(2)` in a forked process, where the owner's copy does not matter.
pub(super) fn close(file: RawFd) {
    // SAFETY: closing touches no memory; the forked process never returns to an owner.
    unsafe { libc::close(file) };
}

/// `_exit(2)`.
pub(super) fn end(status: i32) -> ! {
    // SAFETY: it does not return, and runs nothing of this program's.
    unsafe { libc::_exit(status) }
}

/// A process that was made, or that this is.
pub(super) enum Fork {
    Parent(i32),
    Child,
}

/// `fork(2)`.
///
/// # Safety
///
/// The child must make async-signal-safe calls only, neither allocate nor take a lock, and end by
/// [`end`] or `execve`.
pub(super) unsafe fn fork() -> io::Result<Fork> {
    // SAFETY: the caller keeps to what a child may do.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        pid if pid > 0 => Ok(Fork::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What a forked process reports when it is ready: 0 or an error number.
pub(super) fn report(pipe: RawFd, errno: i32) {
    write(pipe, &errno.to_ne_bytes());
}

/// Waits for that report.
pub(super) fn hear(mut pipe: &PipeReader) -> io::Result<()> {
    let mut errno = [0; 4];
    pipe.read_exact(&mut errno)?;
    match i32::from_ne_bytes(errno) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// `waitpid(2)` for a child that has ended or is about to; how it ended does not matter.
pub(super) fn reap(pid: i32) {
    loop {
        // SAFETY: no status is asked for, so the pointer is not followed.
        let got = unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        if got >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// The present error number.
pub(super) fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// This process's directory in `/proc`, for those who wait: it never becomes another process's.
pub(super) type Process<'a> = BorrowedFd<'a>;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    fn news(gate: Gate, process: &File) -> News {
        let reader = gate.reader.try_clone().expect("duplicate");
        drop(gate);
        wait(reader.as_raw_fd(), process.as_raw_fd())
    }

    #[test]
    fn death_is_told_from_execve() {
        // This process has another name than the mark, as after an execve.
        let me = File::open("/proc/self").expect("open");
        let gate = || Gate::new().expect("pipe");
        assert_eq!(news(gate(), &me), News::Executed);
        let mut told = gate();
        told.expect();
        assert_eq!(news(told, &me), News::Failed);

        let script = "printf 'ucr: to execute' >/proc/$$/comm; echo; read never";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut marked = shell.spawn().expect("spawn");
        let mut line = String::new();
        let out = marked.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("read");
        let process = File::open(format!("/proc/{}", marked.id())).expect("open");
        marked.kill().expect("kill");
        assert_eq!(news(gate(), &process), News::Failed);
        marked.wait().expect("wait");
        assert_eq!(news(gate(), &process), News::Gone);
    }
}
