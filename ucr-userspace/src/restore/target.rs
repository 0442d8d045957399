//! The programs that get the sockets: descriptors at their numbers, then `execve`.
//!
//! The root's program replaces ucr, so the pid in `SO_PEERCRED` is its own. The others are started
//! first, as its children.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use super::execute::{Failed, Restored};
use super::program::Program;
use super::undo::UndoProblem;
use crate::image::{Image, SocketIndex};
use crate::model::Pid;
use crate::sys::descriptor::{self, OnExec};
use crate::sys::spawn;

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
    /// The last steps of the plan.
    #[error("failed to finish")]
    Finish(#[source] Failed),
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

/// Children that are killed and reaped unless they are released.
#[derive(Default)]
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself; reaped it must be in any case.
            let killed = child.kill().and_then(|()| child.wait());
            if let Err(error) = killed {
                tracing::error!(%error, pid = child.id(), "failed to end a child");
            }
        }
    }
}

/// Starts the programs; on success the calling process becomes the root's program.
///
/// # Errors
///
/// The first program that cannot be started. Children are killed and reaped, sockets and files
/// undone.
pub fn launch(
    mut restored: Restored,
    image: &Image,
    programs: &[Program],
) -> Result<Infallible, LaunchError> {
    let Some((root, others)) = programs.split_first() else {
        let failed = call("find a program")(io::ErrorKind::InvalidInput.into());
        let (pid, command) = (Pid(0), OsString::new());
        return Err(LaunchError { pid, command, failed, left: restored.undo() });
    };
    let mut children = Children::default();
    let mut current = root;
    let mut run = || {
        for program in others {
            current = program;
            children.0.push(start(&restored, image, program)?);
        }
        current = root;
        restored.discard_asides().map_err(LaunchFailure::Finish)?;
        become_root(&restored, image, root)
    };
    match run() {
        Ok(never) => match never {},
        Err(failed) => {
            drop(children);
            let (pid, command) = (current.pid, current.command.clone());
            Err(LaunchError { pid, command, failed, left: restored.undo() })
        }
    }
}

fn command(image: &Image, program: &Program) -> Command {
    // By the path that was found before the first step; the program sees the name that was given.
    let found = program.path.as_deref().map_or(program.command.as_os_str(), Path::as_os_str);
    let mut command = Command::new(found);
    command.arg0(&program.command);
    command.args(&program.arguments);
    let flagged: BTreeSet<RawFd> = image
        .descriptors
        .iter()
        .filter(|descriptor| descriptor.pid == program.pid && descriptor.close_on_exec)
        .map(|descriptor| descriptor.fd)
        .collect();
    if flagged.is_empty() {
        command.env_remove(CLOEXEC_VARIABLE);
    } else {
        let numbers: Vec<_> = flagged.iter().map(ToString::to_string).collect();
        command.env(CLOEXEC_VARIABLE, numbers.join(","));
    }
    command
}

fn numbers(image: &Image, pid: Pid) -> impl Iterator<Item = (SocketIndex, RawFd)> {
    let own = image.descriptors.iter().filter(move |descriptor| descriptor.pid == pid);
    own.map(|descriptor| (descriptor.socket, descriptor.fd))
}

fn start(restored: &Restored, image: &Image, program: &Program) -> Result<Child, LaunchFailure> {
    let mut descriptors = Vec::new();
    for (socket, number) in numbers(image, program.pid) {
        let from = restored.socket(socket).ok_or(io::ErrorKind::NotFound.into());
        descriptors.push((from.map_err(call("find a socket for"))?.as_raw_fd(), number));
    }
    let limit = restored.reserved().limit().before();
    spawn::spawn(command(image, program), descriptors, limit).map_err(call("start"))
}

/// Descriptors put over what was open at their numbers; taken back when this is dropped.
#[derive(Default)]
struct Placed(Vec<(RawFd, Option<(OwnedFd, OnExec)>)>);

impl Drop for Placed {
    fn drop(&mut self) {
        use std::os::fd::AsFd;
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
    image: &Image,
    program: &Program,
) -> Result<Infallible, LaunchFailure> {
    let mut placed = Placed::default();
    for (socket, number) in numbers(image, program.pid) {
        let from = restored.socket(socket).ok_or(io::ErrorKind::NotFound.into());
        let from = from.map_err(call("find a socket for"))?;
        // What stands over a placeholder goes with it; anything else is to be put back.
        if !restored.reserved().is_placeholder(number) {
            let before = descriptor::duplicate_of(number).map_err(call("save a descriptor for"))?;
            placed.0.push((number, before));
        }
        descriptor::duplicate_onto(from, number, OnExec::Keep)
            .map_err(call("place a descriptor for"))?;
    }
    let limit = restored.reserved().limit();
    limit.put_back().map_err(call("put RLIMIT_NOFILE back for"))?;
    let error = command(image, program).exec();
    // Still here: the numbers are given back, and they may lie beyond the soft limit.
    limit.raise_again().map_err(call("raise RLIMIT_NOFILE for"))?;
    drop(placed);
    Err(call("execute")(error))
}
