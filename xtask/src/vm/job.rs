//! A command that runs in a guest, and what came of it.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io::{self, ErrorKind, Write},
    path::PathBuf,
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    Kernel, cache,
    console::{Console, Output, State},
    machine::{Line, Machine},
};

/// How long a kernel may take to start its first program, beside others that do the same.
const BOOT: Duration = Duration::from_secs(120);

/// What is to be done in a guest.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The program and its arguments, with the workspace as working directory.
    pub(crate) command: Vec<OsString>,
    /// Variables, beside `PATH`, `HOME` and `TERM`.
    pub(crate) env: Vec<(String, OsString)>,
    /// Processors. With one everything but races is quicker.
    pub(crate) cpus: u32,
    /// Memory in MiB.
    pub(crate) memory: u32,
    /// How long the command may take.
    pub(crate) timeout: Duration,
    /// What becomes of its output.
    pub(crate) destination: Destination,
}

/// What becomes of a command's output, as it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// It is kept in the outcome.
    Kept,
    /// It is kept, and also goes to our standard output.
    Shown,
    /// The same, but for lines that begin like this.
    ShownWithout(&'static str),
    /// It is kept, and also goes to a file, with the kernel's messages in the end.
    Logged(PathBuf),
}

impl Job {
    /// A command in a small machine, for at most two minutes.
    pub(crate) fn new(command: &[impl AsRef<OsStr>]) -> Self {
        Self {
            command: command.iter().map(|word| word.as_ref().to_owned()).collect(),
            env: Vec::new(),
            cpus: 1,
            memory: 1024,
            timeout: Duration::from_secs(120),
            destination: Destination::Kept,
        }
    }
}

/// What differs from what is usual for a job.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Limits {
    /// Processors (usually 1: with more, only races are quicker)
    #[arg(long)]
    cpus: Option<u32>,
    /// Memory in MiB (usually 1024, for the tests 1536)
    #[arg(long)]
    memory: Option<u32>,
    /// How many seconds the command may take (usually 120, the tests 1800)
    #[arg(long)]
    timeout: Option<u64>,
}

impl Limits {
    /// Changes a job.
    pub(crate) fn apply(self, job: &mut Job) {
        job.cpus = self.cpus.unwrap_or(job.cpus);
        job.memory = self.memory.unwrap_or(job.memory);
        job.timeout = self.timeout.map_or(job.timeout, Duration::from_secs);
    }
}

/// What came of a job.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// What the command wrote, to either of its outputs.
    pub(crate) output: Vec<u8>,
    /// The kernel's messages.
    pub(crate) console: Console,
    /// The kernel, as `uname -r` says it.
    pub(crate) release: String,
    /// How long it took until the command began.
    pub(crate) boot: Duration,
    /// How long it took altogether.
    pub(crate) whole: Duration,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The command did, with this status.
    Exited(u8),
    /// The kernel gave up.
    Panicked,
    /// The command had not begun in time, or never began. What virtiofsd said may be why.
    NotBooted(String),
    /// The command took longer than it may.
    TimedOut(Duration),
    /// The machine went off without a word.
    Vanished,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "the command ended with status {status}"),
            Self::Panicked => write!(f, "the kernel panicked"),
            Self::NotBooted(why) if why.is_empty() => write!(f, "the machine did not boot"),
            Self::NotBooted(why) => write!(f, "the machine did not boot; virtiofsd says: {why}"),
            Self::TimedOut(limit) => {
                write!(f, "the command did not end within {} s", limit.as_secs())
            }
            Self::Vanished => write!(f, "the machine went off, and no result was seen"),
        }
    }
}

impl Outcome {
    /// The command's status.
    ///
    /// # Errors
    /// If there is none; the error shows the console's last lines.
    pub(crate) fn status(&self) -> Result<u8> {
        match &self.end {
            End::Exited(status) => Ok(*status),
            end => bail!("Linux {}: {end}; {}", self.release, self.console.tail()),
        }
    }
}

/// Boots a kernel, runs a job and switches the machine off.
///
/// # Errors
/// If the machine could not be switched on; all else is an outcome.
pub(crate) fn run(kernel: Kernel, job: &Job) -> Result<Outcome> {
    let files = cache::prepare(kernel)?;
    let release = files.release();
    let token = token()?;
    let mut copy = job.destination.open()?;
    let start = Instant::now();
    let mut machine = Machine::start(&files, job, &token)
        .with_context(|| format!("start a machine with Linux {release}"))?;
    let mut output = Output::new(token);
    let mut console = Console::default();
    let mut written = Vec::new();
    let mut boot = BOOT;
    let mut deadline = start + BOOT;
    let in_time = loop {
        match machine.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Line::Console(line)) => console.line(&line),
            Ok(Line::Output(line)) => {
                let before = output.state();
                let line = output.line(&line);
                written.extend_from_slice(line);
                let shown = if job.destination.leaves_out(line) { &[] } else { line };
                match copy.write_all(shown).and_then(|()| copy.flush()) {
                    // Nobody has to listen.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                        copy = Box::new(io::sink());
                    }
                    written => written.context("pass a guest's output on")?,
                }
                if before == State::Booting && output.state() != State::Booting {
                    machine.has_started();
                    boot = start.elapsed();
                    deadline = Instant::now() + job.timeout;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    machine.kill();
    if let Destination::Logged(_) = job.destination {
        write!(copy, "\n{console}").context("write a guest's console to a file")?;
    }
    let end = match output.state() {
        _ if console.has_panicked() => End::Panicked,
        State::Booting => End::NotBooted(machine.complaints()),
        State::Ended(status) => End::Exited(status),
        State::Running(_) if in_time => End::Vanished,
        State::Running(_) => End::TimedOut(job.timeout),
    };
    Ok(Outcome { end, output: written, console, release, boot, whole: start.elapsed() })
}

impl Destination {
    /// Whether a line is only kept.
    fn leaves_out(&self, line: &[u8]) -> bool {
        matches!(self, Self::ShownWithout(start) if line.starts_with(start.as_bytes()))
    }

    /// Where a copy of the output goes.
    fn open(&self) -> Result<Box<dyn Write>> {
        Ok(match self {
            Self::Kept => Box::new(io::sink()),
            Self::Shown | Self::ShownWithout(_) => Box::new(io::stdout()),
            Self::Logged(path) => {
                let file = File::create(path);
                Box::new(file.with_context(|| format!("create {}", path.display()))?)
            }
        })
    }
}

/// 128 random bits in hexadecimal.
fn token() -> Result<String> {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid");
    Ok(uuid.context("get a random number")?.trim().replace('-', ""))
}
