//! A process with a pid of one's choice that makes calls for this one, under ids of one's choice: what
//! `SO_PEERCRED` shows is whoever made the call.
//!
//! It is a fork that shares descriptors and working directory (`CLONE_FILES`, `CLONE_FS`), so that what it
//! makes is here at once, and ends with the thread that started it. Orders and answers go through a page
//! of shared memory ([`desk`]): a pipe's end would be open in the worker as well, which would never see it
//! closed. Between its start and its end it makes async-signal-safe calls only.

mod desk;
mod duty;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;

pub use self::desk::MOST_CALLS;

use self::desk::Shared;
use super::{addr, gate};

/// Effective ids under which a call is made.
#[derive(Clone, Copy, Debug)]
pub struct Ids<'a> {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Supplementary groups; `None`: those of this process.
    pub groups: Option<&'a [u32]>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    /// `listen`.
    Listen(BorrowedFd<'a>, i32),
    /// `connect` of each of these, which are [`MOST_CALLS`] at most, to these `sun_path` bytes; the first that
    /// fails is the last. If the bytes lead to an open file by its number here, that is it.
    Connect(&'a [BorrowedFd<'a>], &'a [u8], Option<BorrowedFd<'a>>),
    /// `socketpair` of this `SOCK_*` type, close-on-exec, so many times, which are [`MOST_CALLS`] at most.
    Pairs(i32, usize),
}

/// Two ends that a call made.
pub type Ends = (OwnedFd, OwnedFd);

/// Such a process; it ends, and is reaped, when this is dropped.
#[derive(Debug)]
pub struct Worker {
    pid: i32,
    desk: Shared,
    /// Whether its groups are other ones than it began with.
    has_groups: bool,
}

/// `struct clone_args` (`include/uapi/linux/sched.h`), as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

impl Worker {
    /// Starts one with this pid.
    ///
    /// # Errors
    ///
    /// `EEXIST` if somebody has the pid, `EPERM` without `CAP_CHECKPOINT_RESTORE` (or `CAP_SYS_ADMIN`) over
    /// the pid namespace, `EINVAL` for a pid beyond its `pid_max`.
    pub fn start(pid: i32) -> io::Result<Self> {
        let desk = Shared::new()?;
        let parent = std::process::id().cast_signed();
        let wanted = [pid];
        let flags = libc::CLONE_FILES | libc::CLONE_FS;
        let arguments = CloneArguments {
            flags: u64::try_from(flags).unwrap_or_default(),
            set_tid: wanted.as_ptr().expose_provenance() as u64,
            set_tid_size: 1,
            // No signal tells of its end: whoever is executed later would not expect it.
            ..CloneArguments::default()
        };
        let arguments = &raw const arguments;
        let size = size_of::<CloneArguments>();
        // SAFETY: the struct and the pid that it leads to outlive the call. The child has a copy of this
        // memory, since `CLONE_VM` is not asked for; it makes async-signal-safe calls only, on what was
        // made before, and never returns.
        match unsafe { libc::syscall(libc::SYS_clone3, arguments, size) } {
            0 => duty::serve(desk.get(), parent),
            made if made > 0 => {
                let worker = Self { pid, desk, has_groups: false };
                worker.hear().map(|()| worker)
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Lets it make a call.
    ///
    /// # Errors
    ///
    /// What the kernel refuses it: the ids, or the call itself; and `BrokenPipe` if it is gone.
    pub fn make(&mut self, ids: Ids<'_>, call: Call<'_>) -> io::Result<Vec<Ends>> {
        let desk = self.desk.get();
        desk.uid.store(ids.uid, Relaxed);
        desk.gid.store(ids.gid, Relaxed);
        let own;
        let groups = match ids.groups {
            None if self.has_groups => {
                own = own_groups()?;
                Some(own.as_slice())
            }
            groups => groups,
        };
        desk.put_groups(groups)?;
        self.has_groups |= groups.is_some();
        match call {
            Call::Listen(socket, backlog) => desk.put(desk::LISTEN, socket.as_raw_fd(), backlog),
            Call::Connect(clients, name, _) => {
                if clients.len() > MOST_CALLS {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                let numbers = desk.clients.iter().zip(clients);
                numbers.for_each(|(to, from)| to.store(from.as_raw_fd(), Relaxed));
                let (address, length) = addr::bytes(name)?;
                desk.address.iter().zip(address).for_each(|(to, from)| to.store(from, Relaxed));
                let length = i32::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
                let count = i32::try_from(clients.len()).unwrap_or_default();
                desk.put(desk::CONNECT, length, count);
            }
            Call::Pairs(socket_type, count) => {
                let count = i32::try_from(count.min(MOST_CALLS)).unwrap_or_default();
                desk.put(desk::PAIRS, socket_type, count);
            }
        }
        desk.hand_over(desk::ORDERED);
        self.hear()?;
        let made = match call {
            Call::Pairs(..) => usize::try_from(desk.pairs.load(Relaxed)).unwrap_or_default(),
            Call::Listen(..) | Call::Connect(..) => 0,
        };
        let made = desk.made.iter().take(made);
        let made = made.map(|[a, b]| (owned(a.load(Relaxed)), owned(b.load(Relaxed)))).collect();
        match desk.answer.load(Relaxed) {
            0 => Ok(made),
            // What was made before is closed.
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Waits for its answer; the first one is that it is there, and ends with us.
    fn hear(&self) -> io::Result<()> {
        while !self.desk.get().wait_for(desk::ANSWERED) {
            if self.has_ended() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }

    /// Whether it has ended, by whatever; it stays to be reaped.
    fn has_ended(&self) -> bool {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
        // SAFETY: the kernel fills the struct, or leaves its zeroes.
        let result = unsafe {
            libc::waitid(libc::P_PID, self.pid.cast_unsigned(), info.as_mut_ptr(), options)
        };
        // SAFETY: a struct of zeroes is one as well.
        let info = unsafe { info.assume_init() };
        result < 0 || info.si_signo != 0
    }
}

/// A descriptor that the worker has just made in the table that it shares with this process.
fn owned(number: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made it, and nobody else was told its number.
    unsafe { OwnedFd::from_raw_fd(number) }
}

fn own_groups() -> io::Result<Vec<u32>> {
    let groups = rustix::process::getgroups()?;
    Ok(groups.into_iter().map(rustix::process::Gid::as_raw).collect())
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SAFETY: this touches no memory; the pid is that of our child until it is reaped.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        loop {
            // SAFETY: no status is asked for, so the pointer is not followed. `__WALL`: its end has no signal.
            let got = unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WALL) };
            if got >= 0 || gate::errno() != libc::EINTR {
                return;
            }
        }
    }
}
