//! The test of random worlds: processes and sockets of all kinds are made by chance, dumped, killed,
//! restored and dumped again; the two images have to be equal, but for what identifies a process, a socket
//! or a file. A world that fails is made smaller and told as a story.

mod build;
mod generate;
mod normal;
mod op;
mod report;
mod shrink;
mod trial;

use std::{
    env,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use ucr::kernel::interrupts::HeldBack;
use ucr_tests::{Ucr, ucr::DONE};

use crate::{
    generate::generate,
    report::Tally,
    trial::{How, Outcome},
};

/// A test: dump, restore and dump random worlds of sockets again
#[derive(Parser)]
struct Worlds {
    /// How many
    #[arg(long, default_value_t = 200)]
    count: u64,
    /// What chance begins with; the worlds after the first have the numbers that follow
    #[arg(long)]
    seed: Option<u64>,
    /// How many at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Do not trace the half of them
    #[arg(long)]
    untraced: bool,
    /// Stop after so many that did not come out equal
    #[arg(long, default_value_t = 5)]
    failures: u64,
    /// Falsify what comes back, to see that it is noticed
    #[arg(long, hide = true)]
    plant: bool,
    /// Print how often each operation took place, and what was in the images
    #[arg(long)]
    verbose: bool,
}

/// Not all were equal, or it could not be found out.
const UNEQUAL: u8 = 1;

fn main() -> ExitCode {
    match run(&Worlds::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(UNEQUAL),
        Err(error) => {
            eprintln!("worlds: {error:#}");
            ExitCode::from(UNEQUAL)
        }
    }
}

fn run(options: &Worlds) -> Result<bool> {
    // From before there are threads: a signal ends it between two worlds.
    let signals = HeldBack::begin().context("hold signals back")?;
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(0..1 << 32));
    eprintln!("worlds: --seed {seed} --count {}", options.count);
    let victim = env::current_exe().context("find out where the test is")?;
    let victim = victim.with_file_name("victim").into_os_string().into_string();
    let victim = victim.ok().context("a path that is text")?;
    let tracer = if options.untraced { None } else { Tracer::attach()? };
    let run = Run {
        options,
        seed,
        // For as long as the program runs.
        victim: Box::leak(victim.into_boxed_str()),
        pins: tracer.as_ref().map(|tracer| tracer.0.pins().to_owned()),
        next: AtomicU64::new(0),
        tally: Mutex::default(),
    };
    thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| run.work(&|| signals.came().is_some()));
        }
    });
    drop(tracer);
    let tally = run.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    if options.verbose {
        eprintln!("{}", tally.tables());
    }
    eprintln!("worlds: {} operations took place", tally.operations());
    writeln!(io::stdout(), "{tally}").context("print the outcome")?;
    if let Some(signal) = signals.came() {
        bail!("ended by {signal}");
    }
    Ok(tally.equal == options.count)
}

/// Tracing, for all worlds that are traced.
struct Tracer(Ucr);

impl Tracer {
    /// Attaches it, where the kernel lets us.
    fn attach() -> Result<Option<Self>> {
        let ucr = Ucr::default();
        let answer = ucr.run(&["attach"]);
        if answer.code != Some(DONE) {
            bail!("tracing could not be attached (--untraced does without): {}", answer.stderr);
        }
        Ok(Some(Self(ucr)))
    }
}

struct Run<'a> {
    options: &'a Worlds,
    seed: u64,
    victim: &'static str,
    pins: Option<PathBuf>,
    next: AtomicU64,
    tally: Mutex<Tally>,
}

impl Run<'_> {
    /// Tries one world after the other.
    fn work(&self, is_over: &dyn Fn() -> bool) {
        while !is_over() && !self.has_failed_enough() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.options.count {
                return;
            }
            self.one(self.seed.wrapping_add(number));
        }
    }

    fn one(&self, seed: u64) {
        let plan = generate(seed, self.pins.is_some());
        let pins: Option<&Path> = self.pins.as_deref().filter(|_| plan.traced);
        let how = How { victim: self.victim, pins, plant: self.options.plant };
        let tried = trial::try_out(&plan, how);
        self.tally().add(&plan, &tried);
        if matches!(tried.outcome, Outcome::Equal) {
            return;
        }
        let (plan, tried) = shrink::shrink(&plan, tried, |plan| trial::try_out(plan, how));
        eprintln!("\n{}", report::story(&plan, &tried, &self.again(seed)));
    }

    /// The options that bring a world again.
    fn again(&self, seed: u64) -> String {
        let untraced = if self.options.untraced { " --untraced" } else { "" };
        format!("--seed {seed} --count 1{untraced}")
    }

    fn has_failed_enough(&self) -> bool {
        let tally = self.tally();
        tally.refused + tally.failed >= self.options.failures
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
