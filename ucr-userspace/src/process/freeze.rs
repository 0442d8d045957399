//! Stops the threads of a process or tree, all of them, and lets them go on.
//!
//! `PTRACE_SEIZE` and `PTRACE_INTERRUPT`: they send no signal, keep a job-control stop as it was,
//! and if ucr is killed the kernel lets every thread go on. (A cgroup freezer would leave them
//! frozen then, and takes in whatever else lives in that cgroup.)

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        ptrace,
        signal::{Signal, kill},
    },
    unistd,
};

use rustix::process::WaitOptions;

use super::procfs::{self, ProcError};
use super::stops::{self, Heard};
use crate::{
    model::Pid,
    sys::{parasite::Registers, tracee},
};

/// How long one thread may take to stop. It is at once unless the thread sits in the kernel where
/// it cannot be interrupted.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often `/proc` is looked at again for threads and children that came meanwhile.
const ROUNDS: u32 = 100;

/// What is to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One process.
    Process,
    /// A process and all its descendants.
    Tree,
}

/// Why a process could not be stopped. Whatever had been stopped by then goes on.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// There is no such process.
    #[error("process {0} does not exist")]
    NoSuchProcess(Pid),
    /// It is a zombie: its descriptors are gone.
    #[error("process {0} has exited and waits to be reaped: it has no descriptors any more")]
    Zombie(Pid),
    /// It was killed after it had been stopped.
    #[error("process {0} died while it was being read")]
    Died(Pid),
    /// Its first thread has exited, and others go on without it.
    #[error("the first thread of process {0} has exited and others go on: that is not supported")]
    WithoutFirstThread(Pid),
    /// It is a thread.
    #[error("{thread} is a thread of process {process}")]
    Thread {
        /// What was asked for.
        thread: Pid,
        /// What it belongs to.
        process: Pid,
    },
    /// ucr cannot stop itself.
    #[error("process {0} is ucr itself, or one that ucr is a child of in the tree to be stopped")]
    Ourselves(Pid),
    /// Somebody else traces it.
    #[error("thread {thread} of process {pid} is traced by process {tracer}")]
    Traced {
        /// Process.
        pid: Pid,
        /// Thread.
        thread: Pid,
        /// By whom.
        tracer: Pid,
    },
    /// The kernel does not let us.
    #[error("stop thread {thread} of process {pid}")]
    Refused {
        /// Process.
        pid: Pid,
        /// Thread.
        thread: Pid,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not stop.
    #[error(
        "thread {thread} of process {pid} did not stop within {} s (state {state})",
        PATIENCE.as_secs()
    )]
    Unstoppable {
        /// Process.
        pid: Pid,
        /// Thread.
        thread: Pid,
        /// As `ps` shows it.
        state: char,
    },
    /// It made threads or children faster than they could be stopped.
    #[error("process {0} makes threads or children faster than they can be stopped")]
    Growing(Pid),
    /// `/proc` could not be read.
    #[error("look at process {pid}")]
    Proc {
        /// Process.
        pid: Pid,
        /// Why.
        #[source]
        source: ProcError,
    },
}

impl FreezeError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run it as root, or with CAP_SYS_PTRACE")
            }
            Self::Traced { .. } => Some("end the debugger or tracer first"),
            Self::Thread { .. } => Some("name the process instead"),
            Self::Ourselves(_) => Some("run ucr from outside of the tree"),
            _ => None,
        }
    }
}

/// Stopped processes. They go on when this is dropped.
#[derive(Debug)]
pub struct Frozen {
    pids: Vec<Pid>,
    /// Each stopped thread, with its process and the number of the signal that it was about to
    /// receive (0: none).
    threads: BTreeMap<Pid, (Pid, i32)>,
}

/// Stops a process or tree.
///
/// # Errors
/// See [`FreezeError`].
pub fn freeze(root: Pid, scope: Scope) -> Result<Frozen, FreezeError> {
    let look = |source: ProcError| match source.is_gone() {
        true => FreezeError::NoSuchProcess(root),
        false => FreezeError::Proc { pid: root, source },
    };
    let status = procfs::status(root).map_err(look)?;
    if status.process != root {
        return Err(FreezeError::Thread { thread: root, process: status.process });
    }
    Frozen::by(root, || match scope {
        Scope::Process => Ok(vec![root]),
        Scope::Tree => procfs::tree(root).map_err(look),
    })
}

/// Stops these processes and no others.
///
/// # Errors
/// See [`FreezeError`].
pub fn freeze_each(pids: &[Pid]) -> Result<Frozen, FreezeError> {
    let first = pids.first().copied().unwrap_or_default();
    for pid in pids {
        let status = procfs::status(*pid).map_err(|source| match source.is_gone() {
            true => FreezeError::NoSuchProcess(*pid),
            false => FreezeError::Proc { pid: *pid, source },
        })?;
        if status.process != *pid {
            return Err(FreezeError::Thread { thread: *pid, process: status.process });
        }
    }
    let frozen = Frozen::by(first, || Ok(pids.to_vec()))?;
    match pids.iter().find(|pid| !frozen.pids.contains(pid)) {
        None => Ok(frozen),
        Some(gone) => Err(FreezeError::NoSuchProcess(*gone)),
    }
}

impl Frozen {
    /// Stops whatever is listed, until a whole round finds nothing new.
    fn by(
        root: Pid,
        list: impl Fn() -> Result<Vec<Pid>, FreezeError>,
    ) -> Result<Self, FreezeError> {
        let mut frozen = Self { pids: Vec::new(), threads: BTreeMap::new() };
        for _ in 0..ROUNDS {
            let pids = list()?;
            if let Some(pid) = pids.iter().find(|pid| pid.0 == unistd::getpid().as_raw()) {
                return Err(FreezeError::Ourselves(*pid));
            }
            let before = frozen.threads.len();
            for pid in &pids {
                frozen.stop_process(*pid, root)?;
            }
            frozen.pids = pids.into_iter().filter(|pid| frozen.threads.contains_key(pid)).collect();
            if frozen.threads.len() == before {
                // A whole round found nothing new, while everything known stood still.
                return Ok(frozen);
            }
        }
        Err(FreezeError::Growing(root))
    }

    /// Has every process stopped by job control (`SIGSTOP`) when it is let go of: before any of its threads runs.
    ///
    /// # Errors
    /// The kernel's; some may be stopped by then.
    pub fn leave_stopped(self) -> io::Result<()> {
        for (thread, (pid, _)) in &self.threads {
            // Each thread has its own, so that none runs until the first has taken its. `SIGCONT` takes all back.
            tracee::send(pid.0, thread.0, libc::SIGSTOP)?;
        }
        Ok(())
    }
}

impl Frozen {
    /// The stopped processes, parents before children.
    #[must_use]
    pub fn pids(&self) -> &[Pid] {
        &self.pids
    }

    /// A thread of a process that others may have make calls: it stands, and no signal is on its way to it.
    ///
    /// # Errors
    /// [`FreezeError::Died`], and what the kernel refuses.
    pub fn thread_at_hand(&mut self, pid: Pid) -> Result<Pid, FreezeError> {
        let mut own = self.threads.iter().filter(|(_, (of, _))| *of == pid).peekable();
        let first = own.peek().map(|(thread, _)| **thread).ok_or(FreezeError::Died(pid))?;
        let at_hand: Vec<Pid> =
            own.filter(|(_, (_, signal))| *signal == 0).map(|(thread, _)| *thread).collect();
        // One in a system call is in no restartable sequence (`rseq`), which a call would end unnoticed.
        let is_in_call = |thread: &&Pid| {
            Registers::of(thread.0).is_ok_and(|registers| registers.call().is_some())
        };
        if let Some(thread) = at_hand.iter().find(is_in_call).or(at_hand.first()) {
            return Ok(*thread);
        }
        // All are about to receive something. The first one does so; it stops again before it runs.
        let Some((_, signal)) = self.threads.get_mut(&first) else {
            return Err(FreezeError::Died(pid));
        };
        for _ in 0..ROUNDS {
            let refused = |source| FreezeError::Refused { pid, thread: first, source };
            ptrace::interrupt(unistd::Pid::from_raw(first.0))
                .map_err(|errno| refused(errno.into()))?;
            tracee::resume(first.0, *signal).map_err(refused)?;
            match wait_for_stop(pid, first)? {
                Stop::Stopped(0) => {
                    *signal = 0;
                    return Ok(first);
                }
                Stop::Stopped(next) => *signal = next,
                Stop::Zombie | Stop::Gone => return Err(FreezeError::Died(pid)),
            }
        }
        Err(FreezeError::Growing(pid))
    }

    /// How many threads of a process were stopped.
    #[must_use]
    pub fn threads_of(&self, pid: Pid) -> usize {
        self.threads.values().filter(|(of, _)| *of == pid).count()
    }

    /// Makes sure that every thread still stands: what was read from them until now was read from a
    /// process that was whole.
    ///
    /// # Errors
    /// [`FreezeError::Died`]: only SIGKILL ends a thread that stands still.
    pub fn check(&self) -> Result<(), FreezeError> {
        for (thread, (pid, _)) in &self.threads {
            let stands = procfs::status(*thread).is_ok_and(|status| status.state == 't');
            if !stands {
                return Err(FreezeError::Died(*pid));
            }
        }
        Ok(())
    }

    /// Ends every stopped process by SIGKILL and returns when all are dead and their descriptors
    /// closed.
    ///
    /// # Errors
    /// The kernel's; what could not be killed goes on.
    pub fn kill(mut self) -> io::Result<()> {
        for pid in &self.pids {
            match kill(unistd::Pid::from_raw(pid.0), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        // As its tracer we hear of each thread's end before its parent does; of a process's first
        // thread only after we have heard of all others (`delay_group_leader`).
        let threads = std::mem::take(&mut self.threads);
        let (first, others): (Vec<_>, Vec<_>) =
            threads.into_iter().partition(|(thread, (pid, _))| thread == pid);
        for (thread, _) in others.into_iter().chain(first) {
            while stops::hear(thread, WaitOptions::empty())? != Heard::Ended {}
        }
        Ok(())
    }

    fn stop_process(&mut self, pid: Pid, root: Pid) -> Result<(), FreezeError> {
        let threads = match procfs::threads(pid) {
            Ok(threads) => threads,
            // A child that went meanwhile; the root must stay.
            Err(error) if error.is_gone() && pid != root => return Ok(()),
            Err(error) if error.is_gone() => return Err(FreezeError::NoSuchProcess(pid)),
            Err(source) => return Err(FreezeError::Proc { pid, source }),
        };
        let (mut first, mut others) = (Stop::Stopped(0), false);
        for thread in threads {
            if self.threads.contains_key(&thread) {
                others |= thread != pid;
                continue;
            }
            let stop = stop_thread(pid, thread)?;
            if let Stop::Stopped(signal) = stop {
                self.threads.insert(thread, (pid, signal));
                others |= thread != pid;
            }
            if thread == pid {
                first = stop;
            }
        }
        match first {
            Stop::Stopped(_) => Ok(()),
            // A child that waits to be reaped, or went meanwhile, has no descriptors.
            _ if !others && pid != root => Ok(()),
            Stop::Gone => Err(FreezeError::NoSuchProcess(pid)),
            Stop::Zombie if others => Err(FreezeError::WithoutFirstThread(pid)),
            Stop::Zombie => Err(FreezeError::Zombie(pid)),
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for (thread, (_, signal)) in &self.threads {
            // It may have been killed meanwhile; nothing is left to be done for it then.
            tracee::detach(thread.0, *signal).ok();
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// It stands, perhaps on the way to receiving this signal.
    Stopped(i32),
    /// It has ended and waits to be reaped.
    Zombie,
    /// It ended.
    Gone,
}

fn stop_thread(pid: Pid, thread: Pid) -> Result<Stop, FreezeError> {
    let raw = unistd::Pid::from_raw(thread.0);
    let refused = |errno: Errno| FreezeError::Refused { pid, thread, source: errno.into() };
    match ptrace::seize(raw, ptrace::Options::empty()) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Ok(Stop::Gone),
        Err(errno) => {
            let Ok(status) = procfs::status(thread) else { return Ok(Stop::Gone) };
            return match status {
                procfs::Status { tracer, .. } if tracer != Pid(0) => {
                    Err(FreezeError::Traced { pid, thread, tracer })
                }
                procfs::Status { state: 'Z' | 'X', .. } => Ok(Stop::Zombie),
                _ => Err(refused(errno)),
            };
        }
    }
    // A thread that is seized but does not stop cannot be let go of: only our own end does that,
    // which comes soon after the error.
    match ptrace::interrupt(raw) {
        Ok(()) => wait_for_stop(pid, thread),
        Err(Errno::ESRCH) => Ok(Stop::Gone),
        Err(errno) => Err(refused(errno)),
    }
}

fn wait_for_stop(pid: Pid, thread: Pid) -> Result<Stop, FreezeError> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(20);
    loop {
        let heard = stops::hear(thread, WaitOptions::NOHANG);
        match heard.map_err(|source| FreezeError::Refused { pid, thread, source })? {
            // A signal was faster than we.
            Heard::Receives(signal) => return Ok(Stop::Stopped(signal)),
            Heard::Stands | Heard::AtCall | Heard::Otherwise => {
                mend(thread);
                return Ok(Stop::Stopped(0));
            }
            Heard::Ended => return Ok(Stop::Gone),
            Heard::Nothing => {}
        }
        if Instant::now() > deadline {
            let state = procfs::status(thread).map_or('?', |status| status.state);
            return Err(FreezeError::Unstoppable { pid, thread, state });
        }
        // There is no descriptor to wait on for a tracee's stop.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// Has a call begun again that our stop has ended, when the thread goes on: at once, for we may be killed.
fn mend(thread: Pid) {
    if let Ok(registers) = Registers::of(thread.0)
        && let Some(mended) = registers.mended()
    {
        // One that is killed meanwhile needs it no more.
        mended.give(thread.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("spawn")
    }

    fn pid_of(child: &Child) -> Pid {
        Pid(i32::try_from(child.id()).expect("a pid"))
    }

    #[test]
    fn a_process_stands_still_and_goes_on() {
        let mut child = sleeper();
        let pid = pid_of(&child);
        let frozen = freeze(pid, Scope::Process).expect("freeze");
        assert_eq!(frozen.pids(), [pid]);
        assert_eq!(procfs::status(pid).expect("status").state, 't');
        drop(frozen);
        assert_eq!(procfs::status(pid).expect("status").tracer, Pid(0));
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    #[test]
    fn a_frozen_process_can_be_ended() {
        let mut child = sleeper();
        let pid = pid_of(&child);
        freeze(pid, Scope::Tree).expect("freeze").kill().expect("kill");
        // Its parent is its tracer here, so its end has been heard of and it is no zombie.
        assert!(procfs::status(pid).expect_err("no such process").is_gone());
        assert!(child.wait().is_err(), "nothing is left to wait for");
    }

    #[test]
    fn what_cannot_be_frozen_is_named() {
        let shown = |pid| freeze(pid, Scope::Process).expect_err("refused").to_string();
        assert_eq!(shown(Pid(i32::MAX)), format!("process {} does not exist", i32::MAX));
        let own = Pid(unistd::getpid().as_raw());
        assert!(shown(own).contains("is ucr itself"));
        let mut zombie = Command::new("true").spawn().expect("spawn");
        let pid = pid_of(&zombie);
        while procfs::status(pid).expect("not reaped yet").state != 'Z' {
            std::thread::yield_now();
        }
        assert!(shown(pid).contains("has exited"), "{}", shown(pid));
        zombie.wait().expect("reap");
    }
}
