//! The thread of a parasite: it is run as far as it takes, and stopped; and the room that its process has.

use std::io;

use nix::{
    sys::{ptrace, signal::Signal},
    unistd,
};
use rustix::process::{Resource, Rlimit, WaitOptions, prlimit};

use super::{PAGE, Parasite, ParasiteError, Result};
use crate::{
    process::{
        procfs,
        stops::{self, Heard},
    },
    sys::{parasite::Registers, tracee},
};

/// The lowest address that is taken, and how far from what is mapped: a heap may grow.
const LOWEST: u64 = 1 << 28;
const DISTANCE: u64 = 1 << 30;
/// A signal that cannot be blocked may stop the thread so often until a call is given up.
const STOPS: u32 = 1000;

impl Parasite {
    /// One call, by an instruction of the program, which returns by the stack at `back` if nobody watches; the thread stands behind it afterwards.
    pub(super) fn call(
        &mut self,
        name: &'static str,
        number: i64,
        arguments: [u64; 6],
        back: u64,
    ) -> Result<u64> {
        let registers = self.before.registers.calling(self.gadgets, back, number, arguments);
        registers.give(self.thread.0).map_err(self.io("set the registers of"))?;
        tracee::set_signal_mask(self.thread.0, u64::MAX).map_err(self.io("block signals of"))?;
        let result = self.through_call()?;
        self.check(name, result)
    }

    /// Lets the thread run up to the next call and through it.
    pub(super) fn through_call(&mut self) -> Result<i64> {
        for _ in 0..2 {
            self.run_until(Heard::AtCall, tracee::resume_to_call)?;
        }
        let registers = Registers::of(self.thread.0).map_err(self.io("read the registers of"))?;
        Ok(registers.result())
    }

    /// Lets the thread run until something is heard of it.
    pub(super) fn run_until(
        &mut self,
        wanted: Heard,
        resume: impl Fn(i32, i32) -> io::Result<()>,
    ) -> Result<()> {
        for _ in 0..STOPS {
            resume(self.thread.0, 0).map_err(self.io("resume"))?;
            if self.heard(WaitOptions::empty())? == wanted {
                return Ok(());
            }
        }
        let source = io::ErrorKind::TimedOut.into();
        Err(ParasiteError::Io { operation: "get through a call of", pid: self.pid, source })
    }

    /// What is heard of the thread.
    pub(super) fn heard(&mut self, options: WaitOptions) -> Result<Heard> {
        let heard = stops::hear(self.thread, options).map_err(self.io("wait for"))?;
        match heard {
            Heard::Ended => return Err(ParasiteError::Died(self.pid)),
            Heard::Receives(libc::SIGSTOP) => self.is_to_stop = true,
            // All others are blocked, but for those of a fault.
            Heard::Receives(signal) => {
                let signal = Signal::try_from(signal).unwrap_or(Signal::SIGSEGV);
                return Err(ParasiteError::Disturbed { pid: self.pid, signal });
            }
            _ => {}
        }
        Ok(heard)
    }

    /// Stops the thread wherever it is: before it runs any further.
    pub(super) fn stop(&mut self) -> Result<()> {
        ptrace::interrupt(unistd::Pid::from_raw(self.thread.0))
            .map_err(|errno| self.io("stop")(errno.into()))?;
        for _ in 0..STOPS {
            if self.heard(WaitOptions::empty())? == Heard::Stands {
                return Ok(());
            }
            tracee::resume(self.thread.0, 0).map_err(self.io("resume"))?;
        }
        let source = io::ErrorKind::TimedOut.into();
        Err(ParasiteError::Io { operation: "stop", pid: self.pid, source })
    }

    /// An address at which so many bytes are free, where the kernel maps nothing by itself as long as there is room
    /// elsewhere.
    pub(super) fn gap(&self, size: u64) -> Result<u64> {
        let mut start = LOWEST;
        for mapping in procfs::mappings(self.pid)? {
            if mapping.start >= start.saturating_add(size).saturating_add(PAGE) {
                break;
            }
            start = start.max(mapping.end.saturating_add(DISTANCE) & !(PAGE - 1));
        }
        Ok(start)
    }

    /// Puts the limit of descriptors back, where the code has not come to that.
    pub(super) fn put_limit_back(&self) -> Result<()> {
        let Some((soft, hard)) = self.limit else { return Ok(()) };
        let before = Rlimit { current: Some(soft), maximum: Some(hard) };
        let raw = rustix::process::Pid::from_raw(self.pid.0);
        let result = prlimit(raw, Resource::Nofile, before);
        result.map(drop).map_err(|errno| self.io("put RLIMIT_NOFILE back of")(errno.into()))
    }

    /// Raises the limit of descriptors, if it has to be: what puts it back stands in the process's memory.
    pub(super) fn raise_limit(&self, numbers: u64) -> Result<()> {
        let Some((_, hard)) = self.limit else { return Ok(()) };
        let raised = Rlimit { current: Some(numbers), maximum: Some(hard.max(numbers)) };
        let raw = rustix::process::Pid::from_raw(self.pid.0);
        let result = prlimit(raw, Resource::Nofile, raised);
        result.map(drop).map_err(|errno| self.io("raise RLIMIT_NOFILE of")(errno.into()))
    }
}
