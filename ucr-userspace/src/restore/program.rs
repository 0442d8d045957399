//! Which program gets the sockets of which saved process, and where it is.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::image::Image;
use crate::model::Pid;

/// Where `execvp` looks without `PATH`.
const USUAL_PATH: &str = "/bin:/usr/bin";

/// A command for one saved process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The saved process.
    pub pid: Pid,
    /// The program.
    pub command: OsString,
    /// Its arguments, without the program's name.
    pub arguments: Vec<OsString>,
    /// Where the program is, once it has been looked for.
    pub path: Option<PathBuf>,
}

/// Why commands and saved processes do not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// Not `PID=COMMAND`, or not words as a shell would read them.
    #[error("`{0}` is not PID=COMMAND with words as a shell reads them")]
    Syntax(String),
    /// A plain command, but several processes.
    #[error("the image holds {} processes ({}): name a command for each with --exec PID=COMMAND",
        .0.len(), Pids(.0))]
    OneForMany(Vec<Pid>),
    /// All that does not fit, at once.
    #[error("{}", Misfit(missing, unknown, twice))]
    Misfit {
        /// Processes without a command.
        missing: Vec<Pid>,
        /// Commands without a process.
        unknown: Vec<Pid>,
        /// Processes with two commands.
        twice: Vec<Pid>,
    },
    /// No command at all.
    #[error("no command to give the sockets to")]
    None,
}

struct Pids<'a>(&'a [Pid]);

impl fmt::Display for Pids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, pid) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            write!(f, "{separator}{pid}")?;
        }
        Ok(())
    }
}

struct Misfit<'a>(&'a [Pid], &'a [Pid], &'a [Pid]);

impl fmt::Display for Misfit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("no command for saved process", self.0),
            ("not in the image: process", self.1),
            ("more than one command for process", self.2),
        ];
        let mut separator = "";
        for (what, pids) in parts.iter().filter(|(_, pids)| !pids.is_empty()) {
            write!(f, "{separator}{what} {}", Pids(pids))?;
            separator = "; ";
        }
        Ok(())
    }
}

/// The commands from `-- COMMAND ARGUMENTS…`, for an image of one process.
///
/// # Errors
///
/// No command, or more than one process.
pub fn single(image: &Image, words: &[OsString]) -> Result<Vec<Program>, ProgramError> {
    let (command, arguments) = words.split_first().ok_or(ProgramError::None)?;
    let [process] = image.processes.as_slice() else {
        return Err(ProgramError::OneForMany(image.processes.iter().map(|p| p.pid).collect()));
    };
    let (command, arguments) = (command.clone(), arguments.to_vec());
    Ok(vec![Program { pid: process.pid, command, arguments, path: None }])
}

/// The commands from `--exec PID=COMMAND…`, in the image's order.
///
/// # Errors
///
/// A value of another form; processes without a command and commands without a process, all at
/// once.
pub fn each(image: &Image, values: &[OsString]) -> Result<Vec<Program>, ProgramError> {
    let mut given: BTreeMap<Pid, Program> = BTreeMap::new();
    let mut twice = Vec::new();
    for value in values {
        let program =
            parse(value).ok_or_else(|| ProgramError::Syntax(value.display().to_string()))?;
        let pid = program.pid;
        if given.insert(pid, program).is_some() {
            twice.push(pid);
        }
    }
    let (mut programs, mut missing) = (Vec::new(), Vec::new());
    for process in &image.processes {
        match given.remove(&process.pid) {
            Some(program) => programs.push(program),
            None => missing.push(process.pid),
        }
    }
    let unknown: Vec<_> = given.into_keys().collect();
    if missing.is_empty() && unknown.is_empty() && twice.is_empty() {
        Ok(programs)
    } else {
        Err(ProgramError::Misfit { missing, unknown, twice })
    }
}

fn parse(value: &OsStr) -> Option<Program> {
    let bytes = value.as_bytes();
    let (pid, words) = bytes.split_at_checked(bytes.iter().position(|byte| *byte == b'=')?)?;
    let pid = Pid(std::str::from_utf8(pid).ok()?.trim().parse().ok()?);
    let mut lexer = shlex::bytes::Shlex::new(words.get(1..)?);
    let words: Vec<_> = lexer.by_ref().map(OsString::from_vec).collect();
    let (command, arguments) = words.split_first()?;
    let (command, arguments) = (command.clone(), arguments.to_vec());
    let program = Program { pid, command, arguments, path: None };
    (!lexer.had_error).then_some(program)
}

/// Why a program cannot be executed.
#[derive(Debug, thiserror::Error)]
#[error("execute `{}` for saved process {pid}: {source}", command.display())]
pub struct CommandError {
    /// For which process.
    pub pid: Pid,
    /// The program.
    pub command: OsString,
    /// Why not.
    pub source: io::Error,
}

/// Looks for every program as `execvp` does, and returns all that cannot be executed.
pub fn resolve(programs: &mut [Program]) -> Vec<CommandError> {
    let mut errors = Vec::new();
    for program in programs {
        match find(&program.command) {
            Ok(path) => program.path = Some(path),
            Err(source) => {
                let (pid, command) = (program.pid, program.command.clone());
                errors.push(CommandError { pid, command, source });
            }
        }
    }
    errors
}

fn find(command: &OsStr) -> io::Result<PathBuf> {
    if command.as_bytes().contains(&b'/') {
        let path = PathBuf::from(command);
        return executable(&path).map(|()| path);
    }
    if command.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let path = env::var_os("PATH").unwrap_or_else(|| USUAL_PATH.into());
    let mut refused = None;
    for directory in env::split_paths(&path) {
        // An empty entry is the working directory.
        let path = Path::new(".").join(directory).join(command);
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused = Some(error),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| io::Error::from_raw_os_error(libc::ENOENT)))
}

/// What `execve` checks first: a regular file that may be executed with the effective ids.
fn executable(path: &Path) -> io::Result<()> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?)
}
