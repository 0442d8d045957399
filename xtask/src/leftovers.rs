//! What a run must not leave behind: processes, folders, attached tracing. They go when the run is over and
//! when xtask is told to end.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, Once, PoisonError},
    thread,
};

use anyhow::{Context, Result};
use nix::{
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use tempfile::TempDir;

use crate::commands;

/// What there is now.
struct Leftovers {
    groups: Vec<Pid>,
    folders: Vec<PathBuf>,
    /// Pin directories of tracing, each with the `ucr` that detaches it.
    pins: Vec<(PathBuf, PathBuf)>,
}

static LEFTOVERS: Mutex<Leftovers> =
    Mutex::new(Leftovers { groups: Vec::new(), folders: Vec::new(), pins: Vec::new() });

fn leftovers() -> MutexGuard<'static, Leftovers> {
    LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process with a group of its own, so that a Ctrl-C reaches us alone; the whole group is killed
/// when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    group: Pid,
}

impl Process {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        watch_for_signals();
        // Held until it is on the list: a signal that comes now finds it there.
        let mut leftovers = leftovers();
        let name = command.get_program().display().to_string();
        let child = command.process_group(0).spawn().with_context(|| format!("start {name}"))?;
        let group = Pid::from_raw(i32::try_from(child.id()).context("a process id")?);
        leftovers.groups.push(group);
        Ok(Self { child, group })
    }

    /// The process itself.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Kills it and all of its group.
    pub(crate) fn kill(&self) {
        // It is gone already, or it is not: nothing can be done about either.
        let _killed = killpg(self.group, Signal::SIGKILL);
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        // As long as it has not been reaped, its number is no other's, so this may take a while
        // without the list.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(self.group), flags) == Err(nix::errno::Errno::EINTR) {}
        let mut leftovers = leftovers();
        leftovers.groups.retain(|group| *group != self.group);
        self.child.wait().context("wait for a process")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ended = self.wait();
    }
}

/// A temporary folder.
#[derive(Debug)]
pub(crate) struct Folder(TempDir);

impl Folder {
    /// Makes one whose name begins like that.
    pub(crate) fn new(prefix: &str) -> Result<Self> {
        watch_for_signals();
        let mut leftovers = leftovers();
        let folder = tempfile::Builder::new().prefix(prefix).tempdir();
        let folder = folder.context("make a temporary folder")?;
        leftovers.folders.push(folder.path().to_owned());
        Ok(Self(folder))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let path = self.0.path();
        leftovers().folders.retain(|folder| folder != path);
    }
}

/// A pin directory in which somebody may attach tracing; it is detached when this is dropped.
#[derive(Debug)]
pub(crate) struct Pins {
    path: PathBuf,
    ucr: PathBuf,
}

impl Pins {
    /// One that is not there yet; `ucr` is the program that detaches it.
    pub(crate) fn new(path: PathBuf, ucr: PathBuf) -> Self {
        watch_for_signals();
        leftovers().pins.push((path.clone(), ucr.clone()));
        Self { path, ucr }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Detaches what is attached there, if there is anything.
    pub(crate) fn detach(&self) {
        detach(&self.path, &self.ucr);
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        self.detach();
        leftovers().pins.retain(|(path, _)| *path != self.path);
    }
}

fn detach(pins: &Path, ucr: &Path) {
    if !pins.exists() {
        return;
    }
    let mut command = Command::new(ucr);
    command.arg("--pin-dir").arg(pins).arg("detach").stdin(Stdio::null());
    if let Err(error) = commands::run_quietly(&mut command) {
        eprintln!("xtask: left behind: {}: {error:#}", pins.display());
    }
}

/// Lets a thread wait for signals that tell us to end.
fn watch_for_signals() {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(mut signals) => {
            thread::spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    // Nothing can be begun any more.
                    let leftovers = leftovers();
                    leftovers.end();
                    eprintln!("xtask: ended by a signal; nothing is left behind");
                    // What a shell reports of a program that this signal ended.
                    std::process::exit(128 + signal);
                }
            });
        }
        Err(error) => eprintln!("xtask: signals cannot be watched for: {error}"),
    });
}

impl Leftovers {
    fn end(&self) {
        for group in &self.groups {
            let _killed = killpg(*group, Signal::SIGKILL);
        }
        for group in &self.groups {
            let _reaped = waitid(Id::Pid(*group), WaitPidFlag::WEXITED);
        }
        for (pins, ucr) in &self.pins {
            detach(pins, ucr);
        }
        for folder in &self.folders {
            if let Err(error) = std::fs::remove_dir_all(folder) {
                eprintln!("xtask: left behind: {}: {error}", folder.display());
            }
        }
    }
}
