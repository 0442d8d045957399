//! Whatever the demo began is ended: when it is over, when it fails, and on Ctrl-C.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// What a shell reports of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// What there is to be ended.
#[derive(Default)]
struct Begun {
    children: Vec<Child>,
    folder: Option<PathBuf>,
    detach: Option<Command>,
}

/// A program that was started.
pub(super) struct Started {
    pub(super) pid: u32,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
}

/// The list of it.
#[derive(Clone)]
pub(super) struct Cleanup(Arc<Mutex<Begun>>);

impl Cleanup {
    /// An empty list, and a thread that works it off when a signal comes.
    pub(super) fn new() -> Result<Self> {
        let cleanup = Self(Arc::default());
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("watch for signals")?;
        let watched = cleanup.clone();
        thread::spawn(move || {
            if signals.forever().next().is_some() {
                // Nothing more can be begun meanwhile.
                let mut begun = watched.lock();
                begun.end();
                eprintln!("demo: interrupted; nothing is left behind");
                std::process::exit(INTERRUPTED);
            }
        });
        Ok(cleanup)
    }

    fn lock(&self) -> MutexGuard<'_, Begun> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends everything.
    pub(super) fn clean(&self) {
        self.lock().end();
    }

    /// A folder to be removed.
    pub(super) fn folder(&self, path: PathBuf) {
        self.lock().folder = Some(path);
    }

    /// What detaches tracing.
    pub(super) fn detach_with(&self, command: Command) {
        self.lock().detach = Some(command);
    }

    /// Runs a short command to its end. A signal waits that long.
    pub(super) fn run(&self, command: &mut Command) -> Result<Output> {
        let _begun = self.lock();
        let name = command.get_program().display().to_string();
        command.process_group(0).output().with_context(|| format!("run {name}"))
    }

    /// Starts a program that is ended in the end. Its pipes are the caller's.
    pub(super) fn start(&self, command: &mut Command) -> Result<Started> {
        let mut begun = self.lock();
        let name = command.get_program().display().to_string();
        let mut child =
            command.process_group(0).spawn().with_context(|| format!("start {name}"))?;
        let started =
            Started { pid: child.id(), stdin: child.stdin.take(), stdout: child.stdout.take() };
        begun.children.push(child);
        Ok(started)
    }

    /// How a child has ended, if it has.
    pub(super) fn ended(&self, pid: u32) -> Result<Option<ExitStatus>> {
        let mut begun = self.lock();
        let at = begun.children.iter().position(|child| child.id() == pid);
        let Some(child) = at.and_then(|at| begun.children.get_mut(at)) else { return Ok(None) };
        let status = child.try_wait().context("wait for a child")?;
        if status.is_some() {
            begun.children.retain(|child| child.id() != pid);
        }
        Ok(status)
    }
}

impl Begun {
    fn end(&mut self) {
        for mut child in self.children.drain(..) {
            // The child leads a group, which holds its own children, too. It may have ended.
            if let Ok(pid) = i32::try_from(child.id()) {
                let _killed = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let _reaped = child.wait();
        }
        if let Some(mut detach) = self.detach.take() {
            // It may have been detached already, which is what the command would complain of.
            let _detached = detach.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        if let Some(folder) = self.folder.take()
            && let Err(error) = fs::remove_dir_all(&folder)
        {
            eprintln!("demo: left behind: {}: {error}", folder.display());
        }
    }
}
