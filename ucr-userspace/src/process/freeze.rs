//! Stops the threads of a process or tree, all of them, and lets them go on.
//!
//! `PTRACE_SEIZE` and `PTRACE_INTERRUPT`: they send no signal, keep a job-control stop as it was,
//! and if ucr is killed the kernel lets every thread go on. (A cgroup freezer would leave them
//! frozen then, and takes in whatever else lives in that cgroup.)

mod error;

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

pub use error::FreezeError;

use super::procfs::{self, ProcError};
use super::stops::{self, Heard};
use crate::{
    model::Pid,
    sys::{parasite::Registers, tracee},
};

/// How long all that were asked together may take to stop. They do at once, as soon as each has a processor, unless a
/// thread sits in the kernel where it cannot be interrupted.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long until it is looked whether threads have stopped; each time twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(1);
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
        Scope::Process => Ok(vec![vec![root]]),
        Scope::Tree => procfs::generations(root).map_err(look),
    })
}

/// Stops these processes and no others.
///
/// # Errors
/// See [`FreezeError`].
pub fn freeze_each(pids: &[Pid]) -> Result<Frozen, FreezeError> {
    let first = pids.first().copied().unwrap_or_default();
    let mut generations: Vec<Vec<Pid>> = Vec::new();
    for pid in pids {
        let status = procfs::status(*pid).map_err(|source| match source.is_gone() {
            true => FreezeError::NoSuchProcess(*pid),
            false => FreezeError::Proc { pid: *pid, source },
        })?;
        if status.process != *pid {
            return Err(FreezeError::Thread { thread: *pid, process: status.process });
        }
        let before = generations.iter().rposition(|earlier| earlier.contains(&status.parent));
        let own = before.map_or(0, |parents| parents + 1);
        match generations.get_mut(own) {
            Some(generation) => generation.push(*pid),
            None => generations.push(vec![*pid]),
        }
    }
    let frozen = Frozen::by(first, || Ok(generations.clone()))?;
    match pids.iter().find(|pid| !frozen.pids.contains(pid)) {
        None => Ok(frozen),
        Some(gone) => Err(FreezeError::NoSuchProcess(*gone)),
    }
}

impl Frozen {
    /// Stops whatever is listed, one generation after the other, until a whole round finds nothing new.
    fn by(
        root: Pid,
        list: impl Fn() -> Result<Vec<Vec<Pid>>, FreezeError>,
    ) -> Result<Self, FreezeError> {
        let mut frozen = Self { pids: Vec::new(), threads: BTreeMap::new() };
        for _ in 0..ROUNDS {
            let generations = list()?;
            let pids = generations.concat();
            if let Some(pid) = pids.iter().find(|pid| pid.0 == unistd::getpid().as_raw()) {
                return Err(FreezeError::Ourselves(*pid));
            }
            let before = frozen.threads.len();
            for generation in &generations {
                frozen.stop_all(generation, root)?;
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

    /// Asks all threads of these processes to stop, and then waits for each: where processors are scarce, each has to
    /// come to one first, and those that have stopped leave it to the others. (A process whose parent waits for it in
    /// `vfork` must not be asked before that stands: nothing interrupts the parent.)
    fn stop_all(&mut self, pids: &[Pid], root: Pid) -> Result<(), FreezeError> {
        let mut processes: BTreeMap<Pid, Standing> = BTreeMap::new();
        let mut asked = Vec::new();
        let mut failed = self.ask(pids, root, &mut processes, &mut asked).err();
        // Also if something failed: what has been asked can be let go of only when it stands.
        let deadline = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        loop {
            // Whichever comes first: the end of a process's first thread is heard of after that of all others.
            asked.retain(|&(pid, thread)| match look(pid, thread) {
                Ok(None) => true,
                Ok(Some(stop)) => {
                    if let Stop::Stopped(signal) = stop {
                        self.threads.insert(thread, (pid, signal));
                    }
                    processes.entry(pid).or_default().note(pid, thread, stop);
                    false
                }
                Err(error) => {
                    failed.get_or_insert(error);
                    false
                }
            });
            let Some(&(pid, thread)) = asked.first() else { break };
            if Instant::now() > deadline {
                failed.get_or_insert(unstoppable(pid, thread));
                break;
            }
            rest(&mut pause);
        }
        match failed {
            Some(error) => Err(error),
            None => processes.iter().try_for_each(|(pid, standing)| standing.judge(*pid, root)),
        }
    }

    fn ask(
        &self,
        pids: &[Pid],
        root: Pid,
        processes: &mut BTreeMap<Pid, Standing>,
        asked: &mut Vec<(Pid, Pid)>,
    ) -> Result<(), FreezeError> {
        for &pid in pids {
            let threads = match procfs::threads(pid) {
                Ok(threads) => threads,
                // A child that went meanwhile; the root must stay.
                Err(error) if error.is_gone() && pid != root => continue,
                Err(error) if error.is_gone() => return Err(FreezeError::NoSuchProcess(pid)),
                Err(source) => return Err(FreezeError::Proc { pid, source }),
            };
            let standing = processes.entry(pid).or_default();
            for thread in threads {
                if self.threads.contains_key(&thread) {
                    standing.others |= thread != pid;
                } else {
                    match ask_to_stop(pid, thread)? {
                        None => asked.push((pid, thread)),
                        Some(stop) => standing.note(pid, thread, stop),
                    }
                }
            }
        }
        Ok(())
    }
}

/// What is known of a process in one round.
struct Standing {
    /// Its first thread.
    first: Stop,
    /// Whether another one stands.
    others: bool,
}

impl Default for Standing {
    fn default() -> Self {
        Self { first: Stop::Stopped(0), others: false }
    }
}

impl Standing {
    fn note(&mut self, pid: Pid, thread: Pid, stop: Stop) {
        if thread == pid {
            self.first = stop;
        } else {
            self.others |= matches!(stop, Stop::Stopped(_));
        }
    }

    fn judge(&self, pid: Pid, root: Pid) -> Result<(), FreezeError> {
        match self.first {
            Stop::Stopped(_) => Ok(()),
            // A child that waits to be reaped, or went meanwhile, has no descriptors.
            _ if !self.others && pid != root => Ok(()),
            Stop::Gone => Err(FreezeError::NoSuchProcess(pid)),
            Stop::Zombie if self.others => Err(FreezeError::WithoutFirstThread(pid)),
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

/// Asks a thread to stop; what it is if it will not, since it has ended.
fn ask_to_stop(pid: Pid, thread: Pid) -> Result<Option<Stop>, FreezeError> {
    let raw = unistd::Pid::from_raw(thread.0);
    let refused = |errno: Errno| FreezeError::Refused { pid, thread, source: errno.into() };
    match ptrace::seize(raw, ptrace::Options::empty()) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Ok(Some(Stop::Gone)),
        Err(errno) => {
            let Ok(status) = procfs::status(thread) else { return Ok(Some(Stop::Gone)) };
            return match status {
                procfs::Status { tracer, .. } if tracer != Pid(0) => {
                    Err(FreezeError::Traced { pid, thread, tracer })
                }
                procfs::Status { state: 'Z' | 'X', .. } => Ok(Some(Stop::Zombie)),
                _ => Err(refused(errno)),
            };
        }
    }
    // A thread that is seized but does not stop cannot be let go of: only our own end does that,
    // which comes soon after the error.
    match ptrace::interrupt(raw) {
        Ok(()) => Ok(None),
        Err(Errno::ESRCH) => Ok(Some(Stop::Gone)),
        Err(errno) => Err(refused(errno)),
    }
}

fn wait_for_stop(pid: Pid, thread: Pid) -> Result<Stop, FreezeError> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(stop) = look(pid, thread)? {
            return Ok(stop);
        }
        if Instant::now() > deadline {
            return Err(unstoppable(pid, thread));
        }
        rest(&mut pause);
    }
}

/// Whether a thread that was asked to stop stands by now, or has ended.
fn look(pid: Pid, thread: Pid) -> Result<Option<Stop>, FreezeError> {
    let heard = stops::hear(thread, WaitOptions::NOHANG);
    Ok(match heard.map_err(|source| FreezeError::Refused { pid, thread, source })? {
        // A signal was faster than we.
        Heard::Receives(signal) => Some(Stop::Stopped(signal)),
        Heard::Stands | Heard::AtCall | Heard::Otherwise => {
            mend(thread);
            Some(Stop::Stopped(0))
        }
        Heard::Ended => Some(Stop::Gone),
        Heard::Nothing => None,
    })
}

fn unstoppable(pid: Pid, thread: Pid) -> FreezeError {
    let state = procfs::status(thread).map_or('?', |status| status.state);
    FreezeError::Unstoppable { pid, thread, state }
}

/// There is no descriptor to wait on for a tracee's stop.
fn rest(pause: &mut Duration) {
    std::thread::sleep(*pause);
    *pause = (*pause * 2).min(LONGEST_PAUSE);
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
