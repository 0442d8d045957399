//! `cargo xtask bench`: how fast ucr is, side by side with what one would use otherwise.
//!
//! A bench gives [`row::Row`]s: a workload, what ucr needed, what a peer needed, and what was to be reached.
//! Whole commands take turns ([`race`]); values are medians with their extremes, and where two ranges overlap
//! the difference is called noise. All that is measured is on this machine, which is named.

mod crowd;
mod follower;
mod inspect;
mod machine;
mod race;
mod row;
mod samples;
mod stage;
mod table;
mod trace;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{commands, setup};
use machine::Machine;
use row::{Row, Verdict};
use stage::Stage;

/// Measure ucr against what one would use otherwise
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    Inspect(inspect::Args),
    Trace(trace::Args),
}

/// What every bench can be told.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// How often each command is run, after a first time that does not count
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Write machine and rows to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Args {
    /// Does it; fails if something could not be measured, or a target is missed.
    pub(crate) fn run(self) -> Result<ExitCode> {
        setup::ensure()?;
        setup::ensure_bench()?;
        if !commands::is_root() {
            bail!("a benchmark traces, and looks at other processes' sockets: run it as root");
        }
        let stage = Stage::build()?;
        let machine = Machine::look()?;
        println!("bench: {}", machine.line());
        let (common, rows) = match self.bench {
            Bench::Inspect(args) => (args.common.clone(), inspect::run(&args, &stage)?),
            Bench::Trace(args) => (args.common.clone(), trace::run(&args, &stage)?),
        };
        print!("\n{}", table::show(&rows));
        if let Some(file) = &common.json {
            write(file, &machine, &common, &rows)?;
        }
        let is_good = |row: &Row| matches!(row.verdict(), Verdict::Met | Verdict::Measured);
        Ok(if rows.iter().all(is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn write(file: &Path, machine: &Machine, common: &Common, rows: &[Row]) -> Result<()> {
    let value = json!({
        "machine": machine.json(),
        "repetitions": common.repetitions,
        "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
    });
    fs::write(file, format!("{value:#}\n")).with_context(|| format!("write {}", file.display()))
}
