//! A run, from the first process to the last.

use std::{
    io::{BufRead as _, BufReader, PipeWriter},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use fastrand::Rng;
use nix::{
    poll::{PollTimeout, poll},
    unistd::Pid,
};
use ucr::kernel::interrupts::HeldBack;

use crate::{
    chronicle::Chronicle,
    freezer::{self, Freezer},
    guard::Guard,
    judge::{Judge, Tracing},
    options::Options,
    own_program,
    plant::Plants,
    report::{Outcome, Reporter},
    tally::Tally,
    worker::Names,
};

/// Longest time without an operation; also in an emulated machine.
const STANDSTILL: Duration = Duration::from_secs(60);
/// How often it is looked for signals and operations, in milliseconds.
const GLANCE: u8 = 20;

/// Makes one.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    let held_back = HeldBack::begin().context("hold signals back")?;
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    let folder =
        tempfile::Builder::new().prefix("ucr-truth-").tempdir().context("make a folder")?;
    // From now on the guard removes it.
    let folder = folder.keep();
    eprintln!("truth: --seed {seed}, in {}", folder.display());
    let mut guard = Guard::start(&folder)?;
    let outcome = guarded(options, seed, &folder, &mut guard, &held_back);
    let dismissed = guard.dismiss();
    let outcome = outcome?;
    dismissed?;
    Ok(outcome)
}

fn guarded(
    options: &Options,
    seed: u64,
    folder: &Path,
    guard: &mut Guard,
    held_back: &HeldBack,
) -> Result<Outcome> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let mut freezer = Freezer::prepare(options.freezer, &name)?;
    guard.tell(&freezer)?;
    let mut tracing = Tracing::begin(options)?;
    let before = tracing.namespaces()?;
    let chronicle = Chronicle::begin(&mut tracing)?;
    let plants = Plants::new(options.plant, Names::new(folder).door());
    let mut judge = Judge::new(tracing, plants);

    let _bystander = Bystander::start(folder)?;
    let (tally, output) = Tally::new().context("make a pipe")?;
    let mut workload = Workload::start(options, seed, folder, &freezer, output)?;
    freezer.is_led_by(workload.pid()?);
    guard.tell(&freezer)?;

    let mut reporter = Reporter::new();
    let mut scene =
        Scene { options, judge: &mut judge, freezer: &freezer, held_back, tally, operations: 0 };
    let judged = scene.watch(&mut workload, seed, &mut reporter, &chronicle);
    let operations = scene.operations;
    freezer.end()?;
    workload.gone()?;
    judged?;
    reporter.tell(&judge.last_check(&before)?, &chronicle);
    eprintln!("heard: {}", chronicle.summary());
    reporter.conclude(&judge, operations, options.json)
}

/// The run while the workload is there.
struct Scene<'a> {
    options: &'a Options,
    judge: &'a mut Judge,
    freezer: &'a Freezer,
    held_back: &'a HeldBack,
    tally: Tally,
    operations: u64,
}

impl Scene<'_> {
    fn watch(
        &mut self,
        workload: &mut Workload,
        seed: u64,
        reporter: &mut Reporter,
        chronicle: &Chronicle,
    ) -> Result<()> {
        // The workload has chances of its own.
        let mut rng = Rng::with_seed(!seed);
        let (time, operations) = self.options.limits();
        let begun = Instant::now();
        loop {
            let is_late = time.is_some_and(|time| begun.elapsed() >= time)
                && self.operations >= self.options.at_least;
            let is_enough = operations.is_some_and(|enough| self.operations >= enough);
            if (is_late || is_enough) && !self.judge.has_plans() {
                return Ok(());
            }
            // From nothing to twice the mean.
            let pause = rng.f64() * 2.0 / self.options.checks_per_second;
            self.let_work(workload, Duration::from_secs_f64(pause))?;
            self.freezer.freeze()?;
            let found = self.judge.check();
            self.freezer.thaw()?;
            reporter.tell(&found?, chronicle);
        }
    }

    /// Lets the workload work for this time, and at least until it has done something.
    fn let_work(&mut self, workload: &mut Workload, time: Duration) -> Result<()> {
        let begun = Instant::now();
        let before = self.operations;
        loop {
            let left =
                time.saturating_sub(begun.elapsed()).min(Duration::from_millis(GLANCE.into()));
            // A signal that comes meanwhile is as good as a time-out.
            poll(&mut [], PollTimeout::try_from(left)?).ok();
            self.operations = self.tally.sum().context("count the operations")?;
            if let Some(signal) = self.held_back.came() {
                bail!("ended by {signal} after {} operations", self.operations);
            }
            workload.is_there()?;
            if self.operations > before && begun.elapsed() >= time {
                return Ok(());
            }
            if begun.elapsed() > time + STANDSTILL {
                for line in freezer::account(workload.pid()?)? {
                    eprintln!("{line}");
                }
                bail!("the workload stands still after {} operations", self.operations);
            }
        }
    }
}

/// The workload, by its root.
struct Workload {
    foreman: Child,
}

impl Workload {
    fn start(
        options: &Options,
        seed: u64,
        folder: &Path,
        freezer: &Freezer,
        output: PipeWriter,
    ) -> Result<Self> {
        let mut command = own_program("foreman")?;
        command.arg("--folder").arg(folder).arg("--seed").arg(seed.to_string());
        command.arg("--workers").arg(options.workers.to_string());
        if !options.only.is_empty() {
            command.arg("--only").arg(options.only.join(","));
        }
        if let Some(file) = freezer.joined_by() {
            command.arg("--join").arg(file);
        }
        command.stdin(Stdio::null()).stdout(output).process_group(0);
        Ok(Self { foreman: command.spawn().context("start the workload")? })
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.foreman.id())?))
    }

    fn is_there(&mut self) -> Result<()> {
        match self.foreman.try_wait().context("look for the workload")? {
            None => Ok(()),
            Some(status) => bail!("the workload has ended by itself ({status})"),
        }
    }

    fn gone(mut self) -> Result<()> {
        self.foreman.wait().map(drop).context("wait for the workload")
    }
}

/// See [`crate::bystander`].
struct Bystander {
    process: Child,
}

impl Bystander {
    fn start(folder: &Path) -> Result<Self> {
        let mut command = own_program("bystander")?;
        command.arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut process = command.spawn().context("start the bystander")?;
        let greeting = process.stdout.take().context("its output")?;
        let mut line = String::new();
        BufReader::new(greeting).read_line(&mut line).context("hear the bystander")?;
        if line != "ready\n" {
            bail!("the bystander could not take its place");
        }
        Ok(Self { process })
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        // One that has ended already is as good.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
