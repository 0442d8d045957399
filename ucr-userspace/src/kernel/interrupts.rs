//! Signals that ask a program to end, held back while something must not be left half-done.

use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal, sigprocmask},
    signalfd::{SfdFlags, SignalFd},
};
use nix::{Result, errno::Errno};

/// What Ctrl-C, a closed terminal and `kill` send.
const ENDINGS: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// While this lives the signals wait. What has not been looked at by then takes effect when it is
/// dropped. Programs started meanwhile are not concerned: the standard library clears the mask.
#[derive(Debug)]
pub struct HeldBack {
    waiting: SignalFd,
    before: SigSet,
}

impl HeldBack {
    /// Holds the signals back from now on, in this thread (ucr's verbs have only one).
    ///
    /// # Errors
    /// The kernel's.
    pub fn begin() -> Result<Self> {
        let mut signals = SigSet::empty();
        for signal in ENDINGS {
            signals.add(signal);
        }
        let waiting =
            SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), Some(&mut before))?;
        Ok(Self { waiting, before })
    }

    /// A signal that has come since, once.
    #[must_use]
    pub fn came(&self) -> Option<Signal> {
        loop {
            match self.waiting.read_signal() {
                Ok(Some(info)) => {
                    return i32::try_from(info.ssi_signo).ok().and_then(|n| n.try_into().ok());
                }
                Err(Errno::EINTR) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        // The mask was legal before; setting it cannot fail.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None).ok();
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn a_signal_waits_and_is_heard_of_once() {
        let held = HeldBack::begin().expect("hold back");
        assert_eq!(held.came(), None);
        raise(Signal::SIGTERM).expect("raise");
        assert_eq!(held.came(), Some(Signal::SIGTERM));
        assert_eq!(held.came(), None);
    }
}
