//! Has a stopped process make system calls, without a trace.
//!
//! A thread that stands still is given registers with which it makes one call, by an instruction that
//! its own code has; on its stack, below all that is in use, stands a signal frame. So whoever lets go of
//! it at any moment (ucr may be killed), the thread goes on by itself: the call returns to the code that
//! ends a signal handler, and the kernel puts back all registers, the signal mask, and begins an
//! interrupted call again. By one such call memory is mapped for code of ours and its data. That code
//! does lists of calls, one for each byte that comes through a channel, and when the channel is closed it
//! does a last list, unmaps itself, and returns by the same frame. Nothing of it needs anybody who watches.
//!
//! It is not seen by the program: all signals are blocked meanwhile, what is changed of its stack is put
//! back, and its other threads stand still.

mod error;
mod gadgets;
mod order;
#[cfg(test)]
mod tests;
mod thread;

use std::{
    fs::{File as Memory, OpenOptions},
    io,
    os::{
        fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt as _,
    },
    time::Duration,
};

use nix::{
    sys::{
        ptrace,
        signal::{Signal, kill},
    },
    unistd,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, recv},
    process::{PidfdFlags, PidfdGetfdFlags, WaitOptions, pidfd_getfd, pidfd_open},
};

pub use self::{
    error::ParasiteError,
    gadgets::{Known, NoGadgets},
    order::{Else, File, MOST_FILES, Order},
};

use self::order::Finished;
use super::{
    freeze::Frozen,
    procfs::{self},
    stops::Heard,
};
use crate::{
    model::Pid,
    sys::{
        message::{self, Along},
        parasite::{Entry, Gadgets, Head, Registers, code, extended_state, frame, is_shadowed},
        tracee,
    },
};

/// Of the code, and of all parts of the mapping.
const PAGE: u64 = 4096;
/// The code ends with fewer calls than that: it receives nothing more, does the lasting list, closes and unmaps.
const LAST_CALLS: u32 = 10;
/// For the code's stack, behind the head of the data.
const STACK: u64 = 1024;
/// Where in the page of the head a list stands that is always there: it puts back what was changed of the process.
const LASTING: u64 = 3072;
/// How often it is looked whether a thread that is about a list still runs.
const GLANCE: Duration = Duration::from_millis(5);

type Result<T> = std::result::Result<T, ParasiteError>;

/// What a thread was about, and is about again afterwards.
#[derive(Debug)]
struct Before {
    registers: Registers,
    mask: u64,
    /// Where its stack was written to, and what stood there.
    stack: (u64, Vec<u8>),
    /// See [`sys::parasite::Frame`](crate::sys::parasite::Frame).
    back: u64,
    unmapping: u64,
}

/// A stopped process that makes calls. It is left when this is dropped.
#[derive(Debug)]
pub struct Parasite {
    pid: Pid,
    thread: Pid,
    memory: Memory,
    process: OwnedFd,
    gadgets: Gadgets,
    before: Before,
    /// The mapping: where it begins, and its size; 0 if there is none yet.
    mapping: (u64, u64),
    /// Our end, and the number of the other one in the process.
    channel: Option<(OwnedFd, i32)>,
    /// Its limit of descriptors, if that is to be put back: soft and hard.
    limit: Option<(u64, u64)>,
    /// Whether it was to stop meanwhile, which cannot be blocked: it does so afterwards.
    is_to_stop: bool,
    has_left: bool,
}

impl Parasite {
    /// Enters a stopped process. There will be `room` bytes for each order, and the process may have descriptors up to
    /// the number `numbers`, until it is left.
    ///
    /// # Errors
    /// See [`ParasiteError`]; the process is as it was.
    pub fn enter(
        frozen: &mut Frozen,
        pid: Pid,
        room: usize,
        numbers: u64,
        known: &mut Known,
    ) -> Result<Self> {
        let thread = frozen.thread_at_hand(pid)?;
        let io = |operation| move |source| ParasiteError::Io { operation, pid, source };
        if procfs::status(thread)?.is_filtered {
            return Err(ParasiteError::Filtered(pid));
        }
        if is_shadowed(thread.0) {
            return Err(ParasiteError::Shadowed(pid));
        }
        let registers = Registers::of(thread.0).map_err(io("read the registers of"))?;
        if !registers.is_native() {
            return Err(ParasiteError::Narrow(pid));
        }
        let mask = tracee::signal_mask(thread.0).map_err(io("read the signal mask of"))?;
        let extended = extended_state(thread.0).map_err(io("read the vector registers of"))?;
        let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"));
        let memory = memory.map_err(io("open the memory of"))?;
        let gadgets = known.find(pid, &memory);
        let gadgets = gadgets.map_err(|why| ParasiteError::Gadgets { pid, why })?;
        let raw = rustix::process::Pid::from_raw(pid.0).ok_or(ParasiteError::Died(pid))?;
        let process = pidfd_open(raw, PidfdFlags::empty());
        let process = process.map_err(|errno| io("open")(errno.into()))?;
        let frame = frame(&registers, mask, &extended, gadgets);
        let mut stood = vec![0; frame.bytes.len()];
        memory.read_exact_at(&mut stood, frame.at).map_err(io("read the stack of"))?;
        let options = ptrace::Options::PTRACE_O_TRACESYSGOOD;
        let raw = unistd::Pid::from_raw(thread.0);
        ptrace::setoptions(raw, options).map_err(|e| io("have calls told by")(e.into()))?;
        let mut parasite = Self {
            pid,
            thread,
            memory,
            process,
            gadgets,
            before: Before {
                registers,
                mask,
                stack: (frame.at, stood),
                back: frame.back,
                unmapping: frame.unmapping,
            },
            mapping: (0, 0),
            channel: None,
            limit: None,
            is_to_stop: false,
            has_left: false,
        };
        parasite.write(frame.at, &frame.bytes)?;
        let (soft, hard) = procfs::descriptor_limit(pid)?;
        parasite.limit = (numbers > soft).then_some((soft, hard));
        match parasite.settle(room, numbers) {
            Ok(()) => Ok(parasite),
            Err(error) => {
                parasite.go().ok();
                Err(error)
            }
        }
    }

    /// Which process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The number under which the process has its end of the channel.
    #[must_use]
    pub fn channel(&self) -> i32 {
        self.channel.as_ref().map_or(-1, |(_, number)| *number)
    }

    /// An empty order.
    #[must_use]
    pub fn order(&self) -> Order {
        let mut order = Order::new(self.data() + PAGE);
        if self.limit.is_some() {
            order.put_limit_back(self.data() + LASTING);
        }
        order
    }

    /// Has the process do what an order says, and tells what each call of its list returned, as the kernel
    /// returns it; those that were not made any more are missing. `files` are sent along, for each
    /// [`Order::receive`] what it receives.
    ///
    /// # Errors
    /// The process died, or its memory has no room.
    pub fn perform(
        &mut self,
        order: &mut Order,
        files: &[Vec<BorrowedFd<'_>>],
    ) -> Result<Vec<i64>> {
        let calls = self.begin(order, files)?;
        self.end(calls)
    }

    /// Begins what an order says: to be followed by [`end`](Self::end).
    ///
    /// # Errors
    /// As [`perform`](Self::perform).
    pub fn begin(&mut self, order: &mut Order, files: &[Vec<BorrowedFd<'_>>]) -> Result<Calls> {
        let Finished { at, memory, list, farewell, calls } = order.finish();
        if at == self.data() + PAGE {
            // The farewell of the order before stands where this one is about to.
            self.put(self.data() + 24, self.data() + LASTING)?;
        }
        self.write(at, &memory)?;
        // The farewell first: from the first call on there may be something to be taken back.
        self.put(self.data() + 24, farewell)?;
        self.put(self.data() + 16, list)?;
        self.tell(&[])?;
        for files in files {
            self.tell(files)?;
        }
        Ok(Calls { list, count: calls })
    }

    /// Waits until it is done; see [`perform`](Self::perform).
    ///
    /// # Errors
    /// As [`perform`](Self::perform).
    pub fn end(&mut self, Calls { list, count }: Calls) -> Result<Vec<i64>> {
        self.hear()?;
        let mut entries = vec![0; count * Entry::SIZE];
        self.memory
            .read_exact_at(&mut entries, list)
            .map_err(self.io("read what came of calls in"))?;
        let results = entries.chunks_exact(Entry::SIZE).map(|entry| {
            let result = entry.last_chunk::<8>().map(|bytes| i64::from_ne_bytes(*bytes));
            result.unwrap_or(i64::MIN)
        });
        Ok(results.take_while(|result| *result != i64::MIN).collect())
    }

    /// The numbers of descriptors, as they stand in its memory by now: -1 for what there is not.
    ///
    /// # Errors
    /// The process died.
    pub fn numbers(&self, files: &[File]) -> Result<Vec<i32>> {
        let read = |at, bytes: &mut [u8]| self.memory.read_exact_at(bytes, at);
        order::numbers(files, read).map_err(self.io("read the memory of"))
    }

    /// A duplicate of one of its descriptors.
    ///
    /// # Errors
    /// The kernel's.
    pub fn duplicate(&self, number: i32) -> Result<OwnedFd> {
        let file = pidfd_getfd(&self.process, number, PidfdGetfdFlags::empty());
        file.map_err(|errno| self.io("take a descriptor of")(errno.into()))
    }

    /// What a call returned, or why it failed.
    ///
    /// # Errors
    /// [`ParasiteError::Refused`].
    pub fn check(&self, call: &'static str, result: i64) -> Result<u64> {
        u64::try_from(result).map_err(|_| {
            let errno = i32::try_from(-result).unwrap_or(libc::EIO);
            let source = io::Error::from_raw_os_error(errno);
            ParasiteError::Refused { call, pid: self.pid, source }
        })
    }

    /// Leaves the process as it was, but for what its calls have changed. It stands still.
    ///
    /// # Errors
    /// The process died, or the kernel refuses something.
    pub fn leave(mut self) -> Result<()> {
        self.go()
    }

    fn io(&self, operation: &'static str) -> impl FnOnce(io::Error) -> ParasiteError + use<> {
        let pid = self.pid;
        move |source| match source.raw_os_error() {
            Some(libc::ESRCH | libc::EPIPE | libc::ECONNRESET) => ParasiteError::Died(pid),
            _ => ParasiteError::Io { operation, pid, source },
        }
    }

    fn data(&self) -> u64 {
        self.mapping.0 + PAGE
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.memory.write_all_at(bytes, at).map_err(self.io("write into the memory of"))
    }

    fn put(&self, at: u64, word: u64) -> Result<()> {
        self.write(at, &word.to_ne_bytes())
    }

    /// Maps memory and begins the code.
    fn settle(&mut self, room: usize, numbers: u64) -> Result<()> {
        // Head and stack have a page before the order's memory.
        let room = u64::try_from(room).unwrap_or(u64::MAX / 2).next_multiple_of(PAGE);
        let size = 2 * PAGE + room;
        let bits = |flags: i32| u64::from(flags.cast_unsigned());
        // Where we say, and there is nothing: then the same arguments unmap it, if we are killed.
        let flags = bits(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE);
        let start = self.gap(size)?;
        let map = [start, size, bits(libc::PROT_READ | libc::PROT_EXEC), flags, u64::MAX, 0];
        // Signals are blocked from the first call on; the frame is there already.
        let back = self.before.unmapping;
        self.call("mmap", libc::SYS_mmap, map, back)?;
        self.mapping = (start, size);
        let lasting = Order::lasting(self.data() + LASTING, self.limit);
        self.write(self.data() + LASTING, &lasting)?;
        let head = Head {
            list: self.data() + LASTING,
            farewell: self.data() + LASTING,
            back: self.before.back,
            call: self.gadgets.call,
            mapping: start,
            mapped: size,
            ..Head::default()
        };
        self.write(self.data(), &head.bytes())?;
        self.write(start, code())?;
        let stack = self.data() + u64::try_from(Head::SIZE).unwrap_or_default() + STACK;
        let registers = self.before.registers.beginning(start, self.data(), stack & !15);
        registers.give(self.thread.0).map_err(self.io("set the registers of"))?;
        // From here on the code puts it back.
        self.raise_limit(numbers)?;
        let made = self.through_call()?;
        self.check("mprotect", made)?;
        let made = self.through_call()?;
        self.check("socketpair", made)?;
        let mut ends = [0; 8];
        self.memory.read_exact_at(&mut ends, self.data()).map_err(self.io("read the memory of"))?;
        let [a, b, c, d, e, f, g, h] = ends;
        let (theirs, ours) = (i32::from_ne_bytes([a, b, c, d]), i32::from_ne_bytes([e, f, g, h]));
        // If we are killed before that, the code closes this end itself and sees the channel closed.
        let end = self.duplicate(ours);
        match end {
            Ok(end) => self.channel = Some((end, theirs)),
            Err(error) => {
                for end in [theirs, ours] {
                    let end = u64::from(end.cast_unsigned());
                    let back = self.before.back;
                    self.call("close", libc::SYS_close, [end, 0, 0, 0, 0, 0], back)?;
                }
                return Err(error);
            }
        }
        tracee::resume(self.thread.0, 0).map_err(self.io("resume"))
    }

    /// Sends a byte through the channel, and descriptors.
    fn tell(&self, files: &[BorrowedFd<'_>]) -> Result<()> {
        let Some((channel, _)) = &self.channel else { return Err(ParasiteError::Died(self.pid)) };
        let files: Vec<i32> = files.iter().map(AsRawFd::as_raw_fd).collect();
        loop {
            let sent =
                message::send(channel.as_fd(), b"!", Along { files: &files, ..Along::default() });
            match sent {
                Ok(_) => return Ok(()),
                // It has not received the ones before yet.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut waited = [PollFd::new(channel, PollFlags::OUT)];
                    poll(&mut waited, None).map_err(|errno| self.io("wait for")(errno.into()))?;
                }
                Err(error) => return Err(self.io("send something to")(error)),
            }
        }
    }

    /// Waits until a list is done.
    fn hear(&mut self) -> Result<()> {
        let glance =
            Timespec { tv_sec: 0, tv_nsec: i64::try_from(GLANCE.as_nanos()).unwrap_or_default() };
        loop {
            let Some((channel, _)) = &self.channel else {
                return Err(ParasiteError::Died(self.pid));
            };
            let mut waited = [PollFd::new(channel, PollFlags::IN)];
            match poll(&mut waited, Some(&glance)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => {
                    let mut byte = [0; 1];
                    let got = recv(channel, &mut byte[..], RecvFlags::empty());
                    return match got {
                        Ok((1, _)) => Ok(()),
                        _ => Err(ParasiteError::Died(self.pid)),
                    };
                }
                Err(errno) => return Err(self.io("wait for")(errno.into())),
            }
            // A signal that cannot be blocked may have stopped it.
            if self.heard(WaitOptions::NOHANG)? != Heard::Nothing {
                tracee::resume(self.thread.0, 0).map_err(self.io("resume"))?;
            }
        }
    }

    /// Has the code do its last list, and end by itself: at any moment nobody need be there.
    fn bid_farewell(&mut self) -> Result<()> {
        let mut farewell = [0; 8];
        let at = self.data() + 24;
        self.memory.read_exact_at(&mut farewell, at).map_err(self.io("read the memory of"))?;
        self.put(self.data() + 16, u64::from_ne_bytes(farewell))?;
        self.tell(&[])?;
        match self.hear() {
            // It waits for the next byte.
            Ok(()) => self.stop()?,
            // It stands.
            Err(error @ ParasiteError::Disturbed { .. }) => tracing::error!(%error),
            Err(error) => return Err(error),
        }
        // All that is done by now; it would be one stop for each call.
        self.put(at, self.data() + LASTING)?;
        self.channel = None;
        for _ in 0..LAST_CALLS {
            self.through_call()?;
            let registers =
                Registers::of(self.thread.0).map_err(self.io("read the registers of"))?;
            if registers.call() == Some(libc::SYS_munmap) {
                return Ok(());
            }
        }
        let source = io::ErrorKind::TimedOut.into();
        Err(ParasiteError::Io { operation: "leave", pid: self.pid, source })
    }

    fn go(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.has_left, true) {
            return Ok(());
        }
        let (start, size) = self.mapping;
        if self.channel.is_some() {
            self.bid_farewell()?;
        } else if size != 0 {
            self.put_limit_back()?;
            let back = self.before.back;
            self.call("munmap", libc::SYS_munmap, [start, size, 0, 0, 0, 0], back)?;
        }
        // Behind a call it would not begin an interrupted one again.
        ptrace::interrupt(unistd::Pid::from_raw(self.thread.0))
            .map_err(|errno| self.io("stop")(errno.into()))?;
        self.run_until(Heard::Stands, tracee::resume)?;
        // In this order: the frame on the stack leads back as long as the registers do not.
        tracee::set_signal_mask(self.thread.0, self.before.mask)
            .map_err(self.io("set the signal mask of"))?;
        self.before.registers.give(self.thread.0).map_err(self.io("set the registers of"))?;
        let (at, stood) = &self.before.stack;
        self.write(*at, stood)?;
        if self.is_to_stop {
            kill(unistd::Pid::from_raw(self.pid.0), Signal::SIGSTOP)
                .map_err(|errno| self.io("stop")(errno.into()))?;
        }
        Ok(())
    }
}

impl Drop for Parasite {
    fn drop(&mut self) {
        match self.go() {
            Ok(()) | Err(ParasiteError::Died(_)) => {}
            Err(error) => tracing::error!(%error, "failed to leave a process"),
        }
    }
}

/// Calls that are being made.
#[derive(Debug)]
#[must_use]
pub struct Calls {
    list: u64,
    count: usize,
}
