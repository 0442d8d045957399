//! The thread of a parasite: it is run as far as it takes, and stopped.

use std::io;

use nix::{
    sys::{ptrace, signal::Signal},
    unistd,
};
use rustix::process::WaitOptions;

use super::{Parasite, ParasiteError, Result};
use crate::{
    process::stops::{self, Heard},
    sys::{parasite::Registers, tracee},
};

/// A signal that cannot be blocked may stop the thread so often until a call is given up.
const STOPS: u32 = 1000;

impl Parasite {
    /// One call, by an instruction of the program; the thread stands behind it afterwards.
    pub(super) fn call(
        &mut self,
        name: &'static str,
        number: i64,
        arguments: [u64; 6],
    ) -> Result<u64> {
        let back = self.before.stack.0;
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
}
