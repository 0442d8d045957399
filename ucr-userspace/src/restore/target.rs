//! The programs that get the sockets: descriptors at their numbers, then `execve`.
//!
//! The root's program replaces ucr. The others are its children; they are forked first, and run as
//! soon as the root's `execve` has succeeded. Only then are files deleted that were moved aside.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use rustix::io::{FdFlags, fcntl_setfd};

use super::arm::{self, ArmError, People};
use super::execute::Restored;
use super::program::Program;
use super::undo::UndoProblem;
use crate::image::{Descriptor, Image, SocketIndex};
use crate::kernel::interrupts::HeldBack;
use crate::model::Pid;
use crate::sys::descriptor::{self, OnExec};
use crate::sys::gate::{self, Gate};
use crate::sys::{janitor, spawn};

/// Numbers of the descriptors that were close-on-exec in the saved process, separated by commas.
/// They would not survive into the program, so they are left open; a program that cares sets the
/// flag again.
pub const CLOEXEC_VARIABLE: &str = "UCR_CLOEXEC_FDS";

/// Why the programs do not run. Everything is undone by then.
#[derive(Debug)]
pub struct LaunchError {
    /// Which process's program.
    pub pid: Pid,
    /// The program.
    pub command: OsString,
    /// What failed.
    pub failed: LaunchFailure,
    /// What could not be undone.
    pub left: Vec<UndoProblem>,
}

/// What can fail when programs are started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchFailure {
    /// A call of the system.
    #[error("{operation}")]
    Call {
        /// Which one.
        operation: &'static str,
        /// What it says.
        #[source]
        source: io::Error,
    },
    /// Who is to be told by signals is not.
    #[error(transparent)]
    Arm(#[from] ArmError),
    /// Somebody wants us to end.
    #[error("interrupted by {0} before starting")]
    Interrupted(Signal),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pid, command) = (self.pid, self.command.display());
        write!(f, "{} `{command}` for saved process {pid}", self.failed)?;
        self.left.iter().try_for_each(|problem| write!(f, "; left behind: {problem}"))
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failed.source()
    }
}

fn call(operation: &'static str) -> impl FnOnce(io::Error) -> LaunchFailure {
    move |source| LaunchFailure::Call { operation, source }
}

/// Children that are killed and reaped unless they are released. None has run its program: they
/// wait for this process to become the root's.
#[derive(Default)]
struct Children(Vec<nix::unistd::Pid>);

impl Drop for Children {
    fn drop(&mut self) {
        for &child in &self.0 {
            let ended = kill(child, Signal::SIGKILL).and_then(|()| waitpid(child, None));
            if let Err(error) = ended {
                tracing::error!(%error, pid = child.as_raw(), "failed to end a child");
            }
        }
    }
}

/// The name by which those who wait know that this process is still ucr; taken back when dropped.
struct Marked(Vec<u8>);

impl Marked {
    const FILE: &str = "/proc/self/comm";

    fn begin() -> io::Result<Self> {
        let before = fs::read(Self::FILE)?;
        fs::write(Self::FILE, gate::MARK)?;
        Ok(Self(before))
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        if let Err(error) = fs::write(Self::FILE, self.0.trim_ascii_end()) {
            tracing::error!(%error, "failed to take the process's name back");
        }
    }
}

/// Starts the programs; on success the calling process becomes the root's program, then the others
/// run, and what was moved aside is deleted.
///
/// # Errors
///
/// The first program that cannot be started. No other has run by then, and sockets and files are
/// undone. Of a child whose `execve` fails after the root's has succeeded, the child says so.
pub fn launch(
    restored: Restored,
    image: &Image,
    programs: &[Program],
    signals: &HeldBack,
) -> Result<Infallible, LaunchError> {
    let Some((root, others)) = programs.split_first() else {
        let failed = call("find a program")(io::ErrorKind::InvalidInput.into());
        let (pid, command) = (Pid(0), OsString::new());
        return Err(LaunchError { pid, command, failed, left: restored.undo() });
    };
    let mut current = root;
    let mut run = || {
        let owned = Owned::of(image);
        let _marked = Marked::begin().map_err(call("mark the process for"))?;
        let process = File::open("/proc/self").map_err(call("open /proc/self for"))?;
        let mut gate = Gate::new().map_err(call("make a pipe for"))?;
        // Before the forks: a signal that comes before the programs run has nobody to take it.
        arm::swallow(&restored);
        let mut people = People::of(image);
        // Dropped before the gate.
        let mut children = Children::default();
        for program in others {
            current = program;
            let others_pid = program.pid;
            let program = prepared(&restored, &owned, program)?;
            let pid = spawn::start(&program, &mut gate, process.as_fd()).map_err(call("start"))?;
            children.0.push(nix::unistd::Pid::from_raw(pid));
            people.add(others_pid, pid);
        }
        current = root;
        let doomed = restored.doomed().map_err(call("find what was moved aside for"))?;
        if !doomed.is_empty() {
            janitor::start(&doomed, &mut gate, process.as_fd())
                .map_err(call("start what deletes the files that were moved aside for"))?;
        }
        arm::arm(&restored, &people)?;
        if let Some(signal) = signals.came() {
            return Err(LaunchFailure::Interrupted(signal));
        }
        become_root(&restored, &owned, root)
    };
    match run() {
        Ok(never) => match never {},
        Err(failed) => {
            let (pid, command) = (current.pid, current.command.clone());
            Err(LaunchError { pid, command, failed, left: restored.undo() })
        }
    }
}

/// The descriptors of each process.
struct Owned<'a>(HashMap<Pid, Vec<&'a Descriptor>>);

impl<'a> Owned<'a> {
    fn of(image: &'a Image) -> Self {
        let mut all: HashMap<Pid, Vec<&Descriptor>> = HashMap::new();
        for descriptor in &image.descriptors {
            all.entry(descriptor.pid).or_default().push(descriptor);
        }
        Self(all)
    }

    fn by(&self, pid: Pid) -> &[&'a Descriptor] {
        self.0.get(&pid).map_or(&[], Vec::as_slice)
    }

    fn numbers(&self, pid: Pid) -> impl Iterator<Item = (SocketIndex, RawFd)> {
        self.by(pid).iter().map(|descriptor| (descriptor.socket, descriptor.fd))
    }

    /// What stands in [`CLOEXEC_VARIABLE`], if anything.
    fn flagged(&self, pid: Pid) -> Option<String> {
        let own = self.by(pid).iter();
        let flagged: BTreeSet<RawFd> =
            own.filter(|descriptor| descriptor.close_on_exec).map(|d| d.fd).collect();
        let numbers: Vec<_> = flagged.iter().map(ToString::to_string).collect();
        (!numbers.is_empty()).then(|| numbers.join(","))
    }
}

/// By the path that was found before the first step; the program sees the name that was given.
fn path(program: &Program) -> &OsStr {
    program.path.as_deref().map_or(program.command.as_os_str(), Path::as_os_str)
}

fn command(owned: &Owned<'_>, program: &Program) -> Command {
    let mut command = Command::new(path(program));
    command.arg0(&program.command).args(&program.arguments);
    match owned.flagged(program.pid) {
        Some(numbers) => command.env(CLOEXEC_VARIABLE, numbers),
        None => command.env_remove(CLOEXEC_VARIABLE),
    };
    command
}

/// All that a child needs, made before the fork.
fn prepared(
    restored: &Restored,
    owned: &Owned<'_>,
    program: &Program,
) -> Result<spawn::Program, LaunchFailure> {
    let text = |text: Vec<u8>| CString::new(text).map_err(|error| call("name")(error.into()));
    let mut descriptors = Vec::new();
    for (socket, number) in owned.numbers(program.pid) {
        let from = restored.socket(socket).ok_or(io::ErrorKind::NotFound.into());
        descriptors.push((from.map_err(call("find a socket for"))?.as_raw_fd(), number));
    }
    let mut environment: Vec<(OsString, OsString)> = env::vars_os().collect();
    environment.retain(|(name, _)| name != CLOEXEC_VARIABLE);
    let flagged = owned.flagged(program.pid);
    environment.extend(flagged.map(|numbers| (CLOEXEC_VARIABLE.into(), numbers.into())));
    let pair = |(name, value): (OsString, OsString)| {
        text([name.as_bytes(), b"=", value.as_bytes()].concat())
    };
    let words = std::iter::once(&program.command).chain(&program.arguments);
    let (pid, name) = (program.pid, program.command.display());
    let complaint = format!("ucr: error: execute `{name}` for saved process {pid}: ");
    Ok(spawn::Program {
        path: text(path(program).as_bytes().to_vec())?,
        arguments: words.map(|word| text(word.as_bytes().to_vec())).collect::<Result<_, _>>()?,
        environment: environment.into_iter().map(pair).collect::<Result<_, _>>()?,
        descriptors,
        limit: restored.reserved().limit().before(),
        complaint: complaint.into_bytes(),
    })
}

/// Descriptors put over what was open at their numbers; taken back when this is dropped.
#[derive(Default)]
struct Placed(Vec<(RawFd, Option<(OwnedFd, OnExec)>)>);

impl Drop for Placed {
    fn drop(&mut self) {
        for (number, before) in self.0.drain(..).rev() {
            let result = match before {
                Some((saved, then)) => descriptor::duplicate_onto(saved.as_fd(), number, then),
                None => {
                    descriptor::close_number(number);
                    Ok(())
                }
            };
            if let Err(error) = result {
                tracing::error!(%error, number, "failed to take a descriptor back");
            }
        }
    }
}

fn become_root(
    restored: &Restored,
    owned: &Owned<'_>,
    program: &Program,
) -> Result<Infallible, LaunchFailure> {
    let mut placed = Placed::default();
    for (socket, number) in owned.numbers(program.pid) {
        let from = restored.socket(socket).ok_or(io::ErrorKind::NotFound.into());
        let from = from.map_err(call("find a socket for"))?;
        if from.as_raw_fd() == number {
            // At home since it was made.
            fcntl_setfd(from, FdFlags::empty())
                .map_err(|errno| call("keep a descriptor open for")(errno.into()))?;
            continue;
        }
        // What stands in a free place goes with it; anything else is to be put back.
        if !restored.reserved().was_free(number) {
            let before = descriptor::duplicate_of(number).map_err(call("save a descriptor for"))?;
            placed.0.push((number, before));
        }
        descriptor::duplicate_onto(from, number, OnExec::Keep)
            .map_err(call("place a descriptor for"))?;
    }
    let limit = restored.reserved().limit();
    limit.put_back().map_err(call("put RLIMIT_NOFILE back for"))?;
    let error = command(owned, program).exec();
    // Still here: the numbers are given back, and they may lie beyond the soft limit.
    limit.raise_again().map_err(call("raise RLIMIT_NOFILE for"))?;
    drop(placed);
    Err(call("execute")(error))
}
