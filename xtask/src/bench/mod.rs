//! `cargo xtask bench`: how fast ucr is, side by side with what one would use otherwise.
//!
//! A bench gives [`row::Row`]s: a workload, what ucr needed, what a peer needed, and what was to be reached.
//! Whole commands take turns ([`race`]), against the clock or, where it is a standstill that is measured
//! (`refresh`), by what they tell of it; values are medians with their extremes, and where two ranges overlap
//! the difference is called noise. All that is measured is on this machine, which is named.

mod criu;
mod crowd;
mod dump;
mod figures;
mod follower;
mod holder;
mod inspect;
mod machine;
mod place;
mod plot;
mod race;
mod refresh;
mod restore;
mod row;
mod samples;
mod sizes;
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
    All(All),
    Dump(dump::Args),
    Inspect(inspect::Args),
    Refresh(refresh::Args),
    Restore(restore::Args),
    Trace(trace::Args),
}

/// Measure everything, one bench after the other
#[derive(Clone, Debug, clap::Args)]
struct All {
    /// Measure in the 6.12 guest what can be measured there: beside CRIU, and with both backends
    #[arg(long)]
    vm: bool,
    #[command(flatten)]
    common: Common,
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
    /// Draw cost against the number of sockets, as SVG, into this folder
    #[arg(long, value_name = "FOLDER", default_value = "docs/bench")]
    plots: PathBuf,
}

impl Args {
    /// Does it; fails if something could not be measured, or a target is missed.
    pub(crate) fn run(self) -> Result<ExitCode> {
        if self.bench.is_inside() {
            self.bench.measure()?;
            return Ok(ExitCode::SUCCESS);
        }
        setup::ensure()?;
        setup::ensure_bench()?;
        if !commands::is_root() {
            bail!("a benchmark traces, and looks at other processes' sockets: run it as root");
        }
        let machine = Machine::look()?;
        println!("bench: {}", machine.line());
        let rows = self.bench.measure()?;
        let common = self.bench.common();
        print!("\n{}", table::show(&rows));
        if let Some(file) = &common.json {
            write(file, &machine, common, &rows)?;
        }
        for picture in plot::draw(&rows, &machine.line(), &common.plots)? {
            println!("bench: drawn {picture}");
        }
        let is_good = |row: &Row| matches!(row.verdict(), Verdict::Met | Verdict::Measured);
        Ok(if rows.iter().all(is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Bench {
    /// Whether we have been started in a machine, to measure there.
    fn is_inside(&self) -> bool {
        match self {
            Self::Dump(args) => args.place.inside,
            Self::Restore(args) => args.place.inside,
            Self::All(_) | Self::Inspect(_) | Self::Refresh(_) | Self::Trace(_) => false,
        }
    }

    fn common(&self) -> &Common {
        match self {
            Self::All(args) => &args.common,
            Self::Dump(args) => &args.common,
            Self::Inspect(args) => &args.common,
            Self::Refresh(args) => &args.common,
            Self::Restore(args) => &args.common,
            Self::Trace(args) => &args.common,
        }
    }

    fn measure(&self) -> Result<Vec<Row>> {
        match self {
            Self::All(args) => args.measure(),
            Self::Dump(args) => dump::run(args, &args.place.stage()?),
            Self::Inspect(args) => inspect::run(args, &Stage::build()?),
            Self::Refresh(args) => refresh::run(args, &Stage::build()?),
            Self::Restore(args) => restore::run(args, &args.place.stage()?),
            Self::Trace(args) => trace::run(args, &Stage::build()?),
        }
    }
}

impl All {
    /// Each as it is when nothing is said but what was said to us.
    fn measure(&self) -> Result<Vec<Row>> {
        let repetitions = format!("--repetitions={}", self.common.repetitions);
        let mut rows = Vec::new();
        for (name, has_place) in [
            ("trace", true),
            ("dump", true),
            ("restore", true),
            ("refresh", false),
            ("inspect", false),
        ] {
            let mut words = vec!["bench", name, &repetitions];
            words.extend((self.vm && has_place).then_some("--vm"));
            let args = Args::try_parse(&words)?;
            rows.extend(args.bench.measure()?);
        }
        Ok(rows)
    }
}

impl Args {
    fn try_parse(words: &[&str]) -> Result<Self> {
        let command = <Self as clap::Args>::augment_args(clap::Command::new("bench"));
        let matches = command.try_get_matches_from(words)?;
        Ok(<Self as clap::FromArgMatches>::from_arg_matches(&matches)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_has_words_that_each_bench_understands() {
        for name in ["trace", "dump", "restore", "refresh", "inspect", "all"] {
            let words = ["bench", name, "--repetitions=7"];
            let args = Args::try_parse(&words).expect(name);
            assert_eq!(args.bench.common().repetitions, 7, "{name}");
        }
        for name in ["trace", "dump", "restore", "all"] {
            Args::try_parse(&["bench", name, "--vm"]).expect(name);
        }
    }
}
