//! The shared memory over which orders and answers go. All of it are atomic numbers: whoever holds the
//! turn has it for himself, and nothing is undefined if one is wrong about that.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32};

/// Calls of one kind that are one order, at most. The ends of pairs are descriptors beside all others until they
/// are taken over.
pub const MOST_CALLS: usize = 16;

/// Supplementary groups of a task, at most (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// The worker has an order.
pub(super) const ORDERED: u32 = 1;
/// It has done it.
pub(super) const ANSWERED: u32 = 2;

pub(super) const LISTEN: i32 = 1;
pub(super) const CONNECT: i32 = 2;
pub(super) const PAIRS: i32 = 3;

/// The groups stay as they are.
pub(super) const AS_THEY_ARE: u32 = u32::MAX;

/// Everything zero to begin with.
#[repr(C)]
pub(super) struct Desk {
    turn: AtomicU32,
    pub(super) kind: AtomicI32,
    /// A descriptor, the type of a pair, or the length of the address.
    pub(super) subject: AtomicI32,
    /// The backlog, or how many calls.
    pub(super) detail: AtomicI32,
    pub(super) uid: AtomicU32,
    pub(super) gid: AtomicU32,
    /// 0, or an error number.
    pub(super) answer: AtomicI32,
    /// How many pairs were made, also if there is an error.
    pub(super) pairs: AtomicI32,
    pub(super) made: [[AtomicI32; 2]; MOST_CALLS],
    /// Who connect, in this order.
    pub(super) clients: [AtomicI32; MOST_CALLS],
    pub(super) group_count: AtomicU32,
    /// `struct sockaddr_un`.
    pub(super) address: [AtomicU8; 128],
    pub(super) groups: [AtomicU32; MAX_GROUPS],
}

impl Desk {
    pub(super) fn put(&self, kind: i32, subject: i32, detail: i32) {
        self.kind.store(kind, Relaxed);
        self.subject.store(subject, Relaxed);
        self.detail.store(detail, Relaxed);
    }

    pub(super) fn put_groups(&self, groups: Option<&[u32]>) -> io::Result<()> {
        let list = groups.unwrap_or_default();
        if list.len() > MAX_GROUPS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.groups.iter().zip(list).for_each(|(to, from)| to.store(*from, Relaxed));
        let count = groups.map(|list| u32::try_from(list.len()).unwrap_or_default());
        self.group_count.store(count.unwrap_or(AS_THEY_ARE), Relaxed);
        Ok(())
    }

    /// Gives the turn away, with all that was written before.
    pub(super) fn hand_over(&self, turn: u32) {
        self.turn.store(turn, Release);
        // SAFETY: the kernel looks for whoever waits at this address, and touches nothing.
        unsafe { libc::syscall(libc::SYS_futex, self.turn.as_ptr(), libc::FUTEX_WAKE, 1) };
    }

    /// Waits for a turn, for a tenth of a second at most; whether it has come.
    pub(super) fn wait_for(&self, turn: u32) -> bool {
        let now = self.turn.load(Acquire);
        if now == turn {
            return true;
        }
        let at_most = libc::timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let (wait, at_most) = (libc::FUTEX_WAIT, &raw const at_most);
        // SAFETY: the kernel compares the number at the address, and reads the time, which outlives the
        // call.
        unsafe { libc::syscall(libc::SYS_futex, self.turn.as_ptr(), wait, now, at_most) };
        self.turn.load(Acquire) == turn
    }
}

/// A desk that a process shares with those that it forks.
#[derive(Debug)]
pub(super) struct Shared(NonNull<Desk>);

// SAFETY: what the pointer leads to are atomic numbers, for as long as this lives.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new() -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: new memory at a place of the kernel's choice.
        let memory =
            unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Desk>(), access, kind, -1, 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(memory.cast()).map(Self).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    pub(super) fn get(&self) -> &Desk {
        // SAFETY: the kernel gave as much memory, zeroed, at the beginning of a page; atomic numbers may be
        // zero, and may be written from several sides; it is unmapped only when this is dropped.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nobody borrows it any more. The worker has a mapping of its own.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Desk>()) };
    }
}
