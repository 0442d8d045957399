//! `cargo xtask truth`: a hostile workload, and the ledger held against the kernel, here and on stock
//! kernels. The test itself is the program `truth` of the package `ucr-tests`.

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{Command, ExitCode},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    commands, setup,
    vm::{self, Destination, Job, Kernel},
};

/// What a machine needs beside the time of the test itself: it starts, loads the programs, and kills
/// the workload.
const MARGIN: Duration = Duration::from_secs(300);
/// How long a number of operations may take in a machine: as if each took so long.
const SLOWEST: Duration = Duration::from_millis(4);

/// Hold what is traced against the kernel, under a hostile workload
#[derive(clap::Args)]
pub(crate) struct Args {
    /// End after so many seconds (10 if nothing is said), or after --operations if that is sooner
    #[arg(long)]
    seconds: Option<u64>,
    /// End after so many operations of the workload
    #[arg(long)]
    operations: Option<u64>,
    /// How the ledger is filled: trampoline or tracepoint; without it, the best the kernel offers
    #[arg(long)]
    backend: Option<String>,
    /// Where: host, 6.1, 6.12, or all, one after the other
    #[arg(long, default_value = "host", value_name = "KERNEL")]
    kernel: Choice,
    /// Processors of a virtual machine: with one there are few races
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// More options of the test: `truth --help` lists them
    #[arg(last = true)]
    rest: Vec<OsString>,
}

/// A kernel that the test runs on.
#[derive(Clone, Copy, Debug)]
enum Place {
    Host,
    Machine(Kernel),
}

#[derive(Clone, Debug)]
struct Choice(Vec<Place>);

impl FromStr for Choice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let machines = Kernel::ALL.into_iter().map(Place::Machine);
        match name {
            "host" => Ok(Self(vec![Place::Host])),
            "all" => Ok(Self([Place::Host].into_iter().chain(machines).collect())),
            name => name.parse().map(|kernel| Self(vec![Place::Machine(kernel)])),
        }
    }
}

impl Args {
    /// Does it; fails if the ledger is not the truth on one of the kernels.
    pub(crate) fn run(self) -> Result<ExitCode> {
        setup::ensure()?;
        if self.kernel.0.iter().any(|place| matches!(place, Place::Machine(_))) {
            setup::ensure_vms()?;
        }
        if !commands::is_root() {
            bail!(
                "the truth test loads eBPF programs and makes network namespaces: run it as root"
            );
        }
        let mut command = vec![build()?.into_os_string()];
        command.extend(self.options());
        let mut is_true = true;
        for place in &self.kernel.0 {
            let status = match place {
                Place::Host => here(&command),
                Place::Machine(kernel) => self.in_machine(*kernel, &command),
            };
            // The other kernels have their say all the same.
            is_true &= status.unwrap_or_else(|error| {
                eprintln!("truth: {error:#}");
                false
            });
        }
        Ok(if is_true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn options(&self) -> Vec<OsString> {
        let numbers = [("--seconds", self.seconds), ("--operations", self.operations)];
        let mut words: Vec<OsString> = numbers
            .into_iter()
            .filter_map(|(flag, value)| Some([flag.into(), value?.to_string().into()]))
            .flatten()
            .collect();
        if let Some(backend) = &self.backend {
            words.extend(["--backend".into(), backend.into()]);
        }
        words.extend(self.rest.iter().cloned());
        words
    }

    /// Runs it on a stock kernel; its line and its complaints are shown as they come.
    fn in_machine(&self, kernel: Kernel, command: &[OsString]) -> Result<bool> {
        // From the memory of the machine: it runs itself again for each worker, and what comes from the
        // host's file system is read anew each time.
        let copied = "cp \"$0\" /tmp/truth && exec /tmp/truth \"$@\"";
        let words = ["sh", "-c", copied].into_iter().map(OsString::from);
        let mut job = Job::new(&words.chain(command.iter().cloned()).collect::<Vec<_>>());
        job.cpus = self.cpus;
        job.memory = 2048;
        let operations = u32::try_from(self.operations.unwrap_or(0)).unwrap_or(u32::MAX);
        job.timeout = match self.seconds {
            Some(seconds) => Duration::from_secs(seconds) * 2,
            None => SLOWEST * operations,
        } + MARGIN;
        job.destination = Destination::Shown;
        let outcome = vm::run(kernel, &job)?;
        for line in outcome.console.oddities() {
            eprintln!("truth: the kernel says: {line}");
        }
        Ok(outcome.status()? == 0)
    }
}

/// Runs it on the kernel that we run on.
fn here(command: &[OsString]) -> Result<bool> {
    let (program, arguments) = command.split_first().context("a program")?;
    let status = Command::new(program).args(arguments).status().context("run the truth test")?;
    Ok(status.success())
}

/// Builds the test, optimised: it is the workload that shall take its time.
fn build() -> Result<PathBuf> {
    let mut build = commands::cargo();
    build.args(["build", "--release", "--package", "ucr-tests", "--bin", "truth"]);
    if !build.status().context("run cargo")?.success() {
        bail!("the truth test could not be built");
    }
    // Cargo puts the programs of one profile in one folder, and those folders beside each other.
    let own = env::current_exe().context("find out where xtask is")?;
    let profiles =
        own.parent().and_then(|folder| folder.parent()).context("a folder of profiles")?;
    Ok(profiles.join("release/truth"))
}
