//! A process that puts files back where they were, and sockets as they were, if this one dies before all is done.
//!
//! Like [`super::janitor`] it is nobody's child, and has no descriptors but those it needs. It waits at the
//! gate at which those wait who are to get something: whoever opens it opens it for all.

use std::cell::RefCell;
use std::ffi::CString;
use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockaddrLike as _, SockaddrStorage};

use super::gate::{self, Fork};
use super::janitor;

/// Closed until somebody opens it, once, for all who wait; if he dies before, they learn that as well. Each
/// reads one byte, or the end.
#[derive(Debug)]
pub struct Barrier {
    reader: PipeReader,
    writer: RefCell<Option<PipeWriter>>,
    guards: RefCell<Vec<Waiting>>,
}

/// A guard that waits there.
#[derive(Debug)]
struct Waiting {
    /// Tells it that what it was for is done by whoever lives.
    relief: Option<PipeWriter>,
    /// It holds the other end of this as long as it holds anything.
    presence: PipeReader,
}

/// How long it is waited for guards to be gone. Their work is a few calls; without them whoever looks next sees no
/// socket held by somebody who is about to end.
const PATIENCE: Duration = Duration::from_secs(2);

impl Barrier {
    /// A closed one.
    ///
    /// # Errors
    ///
    /// What `pipe2` refuses.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader, writer: RefCell::new(Some(writer)), guards: RefCell::default() })
    }

    /// Where to wait.
    #[must_use]
    pub fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Lets so many through, and the guards; all or none.
    ///
    /// # Errors
    ///
    /// What `write` refuses; nobody goes through then.
    pub fn open(&self, others: usize) -> io::Result<()> {
        let waiting = others + self.guards.borrow().len();
        let mut writer = self.writer.borrow_mut().take().ok_or(io::ErrorKind::BrokenPipe)?;
        // A pipe takes up to `PIPE_BUF` bytes, 4096, in one piece.
        if waiting > 4096 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match writer.write(&vec![0; waiting])? {
            written if written == waiting => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Lets everybody know that it will not be opened, after all has been put back.
    pub fn give_up(&self) {
        for guard in self.guards.borrow_mut().iter_mut() {
            if let Some(mut relief) = guard.relief.take() {
                // Whoever does not hear it does once more what has been done.
                relief.write_all(&[0]).ok();
            }
        }
        self.writer.borrow_mut().take();
    }

    /// Waits until no guard holds anything any more; how many still do.
    fn see_off(&mut self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        let guards = self.guards.get_mut();
        guards.retain(|guard| {
            let mut presence = [PollFd::new(guard.presence.as_fd(), PollFlags::empty())];
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                match poll(&mut presence, timeout) {
                    Err(Errno::EINTR) => {}
                    told => break !matches!(told, Ok(1..)),
                }
            }
        });
        guards.len()
    }
}

/// Whoever lets go of it has put everything back by then.
impl Drop for Barrier {
    fn drop(&mut self) {
        self.give_up();
        let left = self.see_off();
        if left > 0 {
            tracing::warn!(left, "guards of the old sockets are not gone yet, and still hold them");
        }
    }
}

/// A file that has taken the place of another one.
#[derive(Clone, Debug)]
pub struct Swapped<'a> {
    /// Directory and name of the place.
    pub place: (BorrowedFd<'a>, CString),
    /// The same of where the other one is now.
    pub other: (BorrowedFd<'a>, CString),
    /// Inode number of the file that is to go back: if it is not in that place, nothing is done.
    pub inode: u64,
}

/// An option that a socket is to have.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// The socket.
    pub socket: BorrowedFd<'a>,
    /// As in `setsockopt`.
    pub level: i32,
    /// Which option.
    pub name: i32,
    /// Its value.
    pub value: Vec<u8>,
}

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Undoing<'a> {
    /// Files, the last one first.
    pub swapped: Vec<Swapped<'a>>,
    /// Options of sockets, in this order.
    pub settings: Vec<Setting<'a>>,
    /// Sockets that are bound then, and where.
    pub binds: Vec<(BorrowedFd<'a>, SockaddrStorage)>,
    /// Descriptors that are to be open until it is done: what they hold lasts so long.
    pub held: Vec<RawFd>,
}

/// Starts one.
///
/// # Errors
///
/// What `pipe2`, `fork` or `close_range` refuses.
pub fn start(undoing: &Undoing<'_>, barrier: &Barrier) -> io::Result<()> {
    let (ready, done) = io::pipe()?;
    let (relief, relieving) = io::pipe()?;
    let gate = barrier.reader.as_raw_fd();
    let of = |file: &Swapped<'_>| [file.place.0.as_raw_fd(), file.other.0.as_raw_fd()];
    let mut kept: Vec<RawFd> = undoing.swapped.iter().flat_map(of).collect();
    kept.extend(undoing.settings.iter().map(|setting| setting.socket.as_raw_fd()));
    kept.extend(undoing.binds.iter().map(|(socket, _)| socket.as_raw_fd()));
    kept.extend(&undoing.held);
    kept.extend([gate, relief.as_raw_fd(), done.as_raw_fd()]);
    kept.sort_unstable();
    kept.dedup();
    // SAFETY: the child makes async-signal-safe calls only, on what was prepared above, and ends
    // by `end`.
    if let Fork::Parent(pid) = unsafe { gate::fork() }? {
        drop(done);
        gate::reap(pid);
        gate::hear(&ready)?;
        let waiting = Waiting { relief: Some(relieving), presence: ready };
        barrier.guards.borrow_mut().push(waiting);
        return Ok(());
    }
    janitor::leave_for_good(&kept, done.as_raw_fd());
    gate::report(done.as_raw_fd(), 0);
    let mut byte = [0; 1];
    // An error tells nothing: then everything stays as it is.
    if gate::read(gate, &mut byte) == Some(0)
        && gate::read(relief.as_raw_fd(), &mut byte) == Some(0)
    {
        undoing.swapped.iter().rev().for_each(put_back);
        undoing.settings.iter().for_each(set);
        undoing.binds.iter().for_each(|(socket, address)| bind(*socket, address));
    }
    // In this order: whoever sees that it is gone finds nothing held.
    janitor::close_others(&[done.as_raw_fd()]).ok();
    gate::end(0)
}

fn bind(socket: BorrowedFd<'_>, address: &SockaddrStorage) {
    // SAFETY: the kernel reads as many bytes as the address says that it has.
    unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr(), address.len()) };
}

fn set(setting: &Setting<'_>) {
    let Setting { socket, level, name, value } = setting;
    let length = libc::socklen_t::try_from(value.len()).unwrap_or_default();
    // SAFETY: the kernel reads as many bytes as the vector has, which was filled before the fork.
    unsafe {
        libc::setsockopt(socket.as_raw_fd(), *level, *name, value.as_ptr().cast(), length);
    };
}

fn put_back(file: &Swapped<'_>) {
    let (place, name) = (file.place.0.as_raw_fd(), file.place.1.as_ptr());
    let (other, other_name) = (file.other.0.as_raw_fd(), file.other.1.as_ptr());
    let mut found = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the name is a string with a NUL; the kernel fills the struct.
    let result =
        unsafe { libc::fstatat(place, name, found.as_mut_ptr(), libc::AT_SYMLINK_NOFOLLOW) };
    if result < 0 {
        return;
    }
    // SAFETY: the kernel has filled it, as it said.
    let found = unsafe { found.assume_init() };
    if found.st_ino == file.inode {
        // SAFETY: both names are strings with a NUL.
        let exchanged = unsafe {
            libc::syscall(
                libc::SYS_renameat2,
                place,
                name,
                other,
                other_name,
                libc::RENAME_EXCHANGE,
            )
        };
        // What was made is of no use to anybody. It is still in its place if there was none before.
        let made = match exchanged {
            0 => Some((other, other_name)),
            _ if gate::errno() == libc::ENOENT => Some((place, name)),
            _ => None,
        };
        if let Some((directory, name)) = made {
            // SAFETY: the name is a string with a NUL.
            unsafe { libc::unlinkat(directory, name, 0) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn is_held(reader: &PipeReader) -> bool {
        let mut end = [PollFd::new(reader.as_fd(), PollFlags::empty())];
        poll(&mut end, PollTimeout::ZERO).expect("poll") == 0
    }

    /// Whether a guard holds something at the end, after `end` was done with the barrier at which it waits.
    fn lasts(end: impl Fn(&Barrier)) -> bool {
        let (reader, writer) = io::pipe().expect("a pipe");
        let barrier = Barrier::new().expect("a pipe");
        let held = vec![writer.as_raw_fd()];
        start(&Undoing { held, ..Undoing::default() }, &barrier).expect("start");
        drop(writer);
        assert!(is_held(&reader));
        end(&barrier);
        drop(barrier);
        is_held(&reader)
    }

    #[test]
    fn when_the_barrier_is_gone_the_guards_are() {
        let without_others = || {
            // Processes that other tests start have none of our descriptors, and we none of theirs.
            unshare(CloneFlags::CLONE_FILES).expect("a table of descriptors of its own");
            janitor::close_others(&[0, 1, 2]).expect("close what others have open");
            (0..50).any(|_| {
                lasts(|barrier| barrier.open(0).expect("open"))
                    || lasts(Barrier::give_up)
                    || lasts(|_| {})
            })
        };
        assert!(!thread::spawn(without_others).join().expect("a thread"));
    }
}
