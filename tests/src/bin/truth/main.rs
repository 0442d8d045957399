//! The truth test: a hostile workload runs while its sockets are traced; at random moments it is
//! frozen, and the ledger is held, field by field, against what an iterator reads in the kernel.
//!
//! The program runs itself again for every other part of the test:
//!
//! | part | what it does |
//! |---|---|
//! | `foreman` | starts workers, kills them, replaces them |
//! | `work` | does hostile things with sockets, until it is killed |
//! | `fork` | becomes a perl that does what a safe program cannot |
//! | `bystander` | has sockets that stand still, and is never frozen |
//! | `guard` | ends everything and removes it, when the test itself is gone |

mod bystander;
mod chronicle;
mod foreman;
mod forker;
mod freezer;
mod guard;
mod judge;
mod options;
mod plant;
mod report;
mod run;
mod tally;
mod worker;

use std::{
    io,
    path::PathBuf,
    process::{Command, ExitCode},
};

use clap::{Parser, Subcommand};
use nix::sys::{prctl::set_pdeathsig, signal::Signal};

/// A test: hold what is traced against the kernel
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Truth {
    #[command(flatten)]
    options: options::Options,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What it runs itself again for.
#[derive(Subcommand)]
#[command(hide = true)]
enum Part {
    Foreman(foreman::Orders),
    Work(worker::Task),
    Fork { folder: PathBuf, seed: u64 },
    Bystander { folder: PathBuf },
    Guard { folder: PathBuf },
}

/// The ledger is not the truth, or it could not be found out.
const UNTRUE: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let truth = Truth::parse();
    let done = match truth.part {
        None => return tell(&truth.options),
        Some(Part::Guard { folder }) => guard::run(&folder),
        Some(part) => die_with_parent().and_then(|()| match part {
            Part::Foreman(orders) => foreman::run(&orders),
            Part::Work(task) => worker::run(task),
            Part::Fork { folder, seed } => forker::run(&folder, seed),
            Part::Bystander { folder } => bystander::run(&folder),
            Part::Guard { .. } => Ok(()),
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("truth: process {}: {error:#}", std::process::id());
            ExitCode::from(UNTRUE)
        }
    }
}

fn tell(options: &options::Options) -> ExitCode {
    if let Err(problem) = options.check() {
        eprintln!("truth: {problem}");
        return ExitCode::from(USAGE);
    }
    match run::run(options) {
        Ok(report::Outcome::True) => ExitCode::SUCCESS,
        Ok(report::Outcome::Untrue) => ExitCode::from(UNTRUE),
        Err(error) => {
            eprintln!("truth: {error:#}");
            ExitCode::from(UNTRUE)
        }
    }
}

/// Nobody is left to look after us once our parent is gone. It may be gone already: then the guard
/// finds us.
fn die_with_parent() -> anyhow::Result<()> {
    Ok(set_pdeathsig(Signal::SIGKILL)?)
}

/// A command that runs a part of the test.
fn own_program(part: &str) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(part);
    Ok(command)
}
