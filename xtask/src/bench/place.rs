//! Where a bench measures: here, or in a machine with a stock kernel, where CRIU runs.
//!
//! In the machine runs this same program with `--inside`; it measures, and hands its figures over in a line.

use std::{env, ffi::OsString, fmt, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{figures::Figures, machine::Machine, stage::Stage};
use crate::vm::{self, Destination, Job, Kernel};

/// The one that CRIU is measured on.
const KERNEL: Kernel = Kernel::Debian612;
/// How the line with the figures begins.
const LINE: &str = "bench-figures ";
/// As many descriptors as a program may need.
const ENOUGH: u64 = 20_000;
/// In MiB: very many sockets, and the file systems in memory.
const MEMORY: u32 = 3072;
/// For all that is measured in one machine.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// What can be said on the command line.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Where {
    /// Measure in a machine with Debian's kernel 6.12, beside CRIU (which is slower there, as is all else)
    #[arg(long)]
    vm: bool,
    /// We are in that machine
    #[arg(long, hide = true)]
    pub(super) inside: bool,
}

/// Where it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Host,
    Machine,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => Ok(()),
            Self::Machine => write!(f, " (Linux {} in a VM)", KERNEL.name()),
        }
    }
}

impl Where {
    /// Where that is.
    pub(super) fn place(&self) -> Place {
        if self.vm || self.inside { Place::Machine } else { Place::Host }
    }

    /// Measures there. `words` say the same as the command line did, without where it is.
    pub(super) fn measure(
        &self,
        words: &[String],
        measure: impl FnOnce(Place) -> Result<Figures>,
    ) -> Result<Figures> {
        raise_limit()?;
        if self.inside {
            println!("bench: {}", Machine::look()?.line());
            let figures = measure(Place::Machine)?;
            println!("{LINE}{}", figures.write());
            return Ok(figures);
        }
        if self.vm { in_machine(words) } else { measure(Place::Host) }
    }

    /// Where the programs are.
    pub(super) fn stage(&self) -> Result<Stage> {
        if self.inside { Stage::copied() } else { Stage::build() }
    }
}

/// A program that is given very many sockets has to be able to open one more, and has the limit that it is
/// started with.
pub(super) fn raise_limit() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("ask for the limit of files")?;
    let enough = ENOUGH.min(hard);
    if soft < enough {
        setrlimit(Resource::RLIMIT_NOFILE, enough, hard).context("raise the limit of files")?;
    }
    Ok(())
}

fn in_machine(words: &[String]) -> Result<Figures> {
    vm::prepare(KERNEL)?;
    let own = env::current_exe().context("find out where xtask is")?;
    let mut command: Vec<OsString> = vec![own.into(), "bench".into()];
    command.extend(words.iter().map(OsString::from));
    command.push("--inside".into());
    let mut job = Job::new(&command);
    job.memory = MEMORY;
    job.timeout = TIMEOUT;
    job.destination = Destination::ShownWithout(LINE);
    let outcome = vm::run(KERNEL, &job)?;
    for line in outcome.console.oddities() {
        eprintln!("bench: the kernel says: {line}");
    }
    let status = outcome.status()?;
    ensure!(status == 0, "the bench in the machine ended with status {status}");
    let said = String::from_utf8_lossy(&outcome.output);
    let line = said.lines().find_map(|line| line.strip_prefix(LINE));
    Figures::read(line.context("the bench in the machine has told no figures")?)
}
