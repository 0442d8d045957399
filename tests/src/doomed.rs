//! A program that is sent a signal (SIGKILL, say) just before or after a certain system call, so that a test can go over
//! all the moments at which its end could leave something half done.
//!
//! It is traced by a thread of the test; what it traces itself is its own matter.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write as _,
    process::{Child, Command, Stdio},
    thread,
};

use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::wait;

/// `PTRACE_SYSCALL_INFO_ENTRY`
const ENTRY: u8 = 1;

/// A kind of system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// Its number.
    pub number: i64,
    /// Of `ptrace`, the request; else 0.
    pub request: i64,
}

impl Call {
    /// A request of `ptrace`.
    #[must_use]
    pub const fn ptrace(request: i64) -> Self {
        Self { number: libc::SYS_ptrace, request }
    }

    /// Any other call.
    #[must_use]
    pub const fn of(number: i64) -> Self {
        Self { number, request: 0 }
    }
}

/// When it dies. Calls are counted from 0, from the first one on with which it seizes somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before a call, whichever it is.
    Before(usize),
    /// Before the one with this number among those of its kind.
    BeforeThe(usize, Call),
    /// When that one is made.
    AfterThe(usize, Call),
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The calls that it made, or was about to make when it was killed.
    pub calls: Vec<Call>,
    /// Exit code; none if it was killed.
    pub code: Option<i32>,
    /// Standard output and error.
    pub said: String,
}

impl Seen {
    /// How many calls there were of each kind.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Call, usize> {
        let mut counts = BTreeMap::new();
        for call in &self.calls {
            *counts.entry(*call).or_default() += 1;
        }
        counts
    }
}

/// Runs a command to its end, or to the moment at which it dies.
///
/// # Panics
/// When it cannot be traced.
#[must_use]
pub fn run(command: &Command, dies: Option<Moment>) -> Seen {
    run_until(command, dies, Signal::SIGKILL)
}

/// The same with a signal of which it need not die.
///
/// # Panics
/// When it cannot be traced.
#[must_use]
pub fn run_until(command: &Command, moment: Option<Moment>, signal: Signal) -> Seen {
    // Who traces is a thread, and hears of the children of that thread only.
    let traced =
        thread::scope(|scope| scope.spawn(|| Doomed::start(command, signal).follow(moment)).join());
    traced.expect("follow a program")
}

struct Doomed {
    child: Child,
    pid: Pid,
    signal: Signal,
    out: File,
    calls: Vec<Call>,
    counts: BTreeMap<Call, usize>,
    counts_now: bool,
    is_killed: bool,
}

impl Doomed {
    fn start(command: &Command, signal: Signal) -> Self {
        // It waits until it is traced.
        let mut gated = Command::new("sh");
        gated.args(["-c", r#"read -r _ && exec "$0" "$@" </dev/null"#]);
        gated.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => gated.env(name, value),
                None => gated.env_remove(name),
            };
        }
        let out = tempfile::tempfile().expect("a temporary file");
        let copy = || out.try_clone().expect("duplicate a descriptor");
        gated.stdin(Stdio::piped()).stdout(copy()).stderr(copy());
        let mut child = gated.spawn().expect("start a program");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(pid, options).expect("trace a program");
        let mut gate = child.stdin.take().expect("its input");
        gate.write_all(b"\n").expect("let a program begin");
        let counts = BTreeMap::new();
        let calls = Vec::new();
        Self { child, pid, signal, out, calls, counts, counts_now: false, is_killed: false }
    }

    fn follow(mut self, dies: Option<Moment>) -> Seen {
        let code = loop {
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            let (thread, signal) = match waitpid(None, Some(flags)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.pid => break Some(code),
                Ok(WaitStatus::Signaled(pid, ..)) if pid == self.pid => break None,
                Ok(WaitStatus::PtraceSyscall(thread)) => {
                    self.at_call(thread, dies);
                    (thread, None)
                }
                Ok(WaitStatus::Stopped(thread, signal)) => (thread, Some(signal)),
                Ok(WaitStatus::PtraceEvent(thread, ..)) => (thread, None),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(errno) => panic!("follow a program: {errno}"),
            };
            let goes_on = match self.is_its_own(thread) {
                true => ptrace::syscall(thread, signal),
                // A process that it has made by `clone`.
                false => ptrace::detach(thread, signal),
            };
            // One that was killed is gone.
            assert!(matches!(goes_on, Ok(()) | Err(Errno::ESRCH)), "{goes_on:?}");
        };
        // Its parent was told by the tracer's waiting: nothing is left to be reaped.
        let _reaped = self.child.try_wait();
        Seen { calls: self.calls, code, said: wait::content(self.out) }
    }

    fn is_its_own(&self, thread: Pid) -> bool {
        std::path::Path::new(&format!("/proc/{}/task/{thread}", self.pid)).exists()
    }

    fn at_call(&mut self, thread: Pid, dies: Option<Moment>) {
        let Ok(info) = ptrace::syscall_info(thread) else { return };
        let Ok(registers) = ptrace::getregs(thread) else { return };
        let number = registers.orig_rax.cast_signed();
        let first = registers.rdi.cast_signed();
        let request = if number == libc::SYS_ptrace { first } else { 0 };
        let call = Call { number, request };
        if info.op == ENTRY {
            self.counts_now |= call == Call::ptrace(i64::from(libc::PTRACE_SEIZE));
            if !self.counts_now || self.is_killed {
                return;
            }
            let of_kind = self.counts.entry(call).or_default();
            let (at, nth) = (self.calls.len(), *of_kind);
            *of_kind += 1;
            self.calls.push(call);
            match dies {
                Some(Moment::Before(when)) if when == at => self.kill(),
                Some(Moment::BeforeThe(when, kind)) if (when, kind) == (nth, call) => self.kill(),
                _ => {}
            }
        } else if let Some(Moment::AfterThe(when, kind)) = dies
            && kind == call
            && self.counts.get(&call) == Some(&(when + 1))
            && !self.is_killed
        {
            self.kill();
        }
    }

    fn kill(&mut self) {
        self.is_killed = true;
        kill(self.pid, self.signal).expect("kill a program");
    }
}
