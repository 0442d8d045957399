//! `cargo xtask bench trace`: what tracing costs whoever is traced, how many events are followed, and how
//! much the verifier has to do.

mod events;
mod overhead;
mod verifier;

use anyhow::Result;

use super::{Common, row::Row, stage::Stage};
use crate::vm::Kernel;

const BENCH: &str = "trace";

/// The guest in which is measured what this kernel refuses.
const GUEST: Kernel = Kernel::Debian612;

/// Measure what tracing costs: system calls, events, the verifier
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Measure system calls in the 6.12 guest, with both backends. Without, only those backends are
    /// measured there that this kernel refuses
    #[arg(long)]
    vm: bool,
    /// How many rounds of (nothing, empty programs, ucr) one repetition has
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Write what the verifier counts into the table that tests compare with
    #[arg(long)]
    write_table: bool,
    /// Only such parts
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// System calls: traced, with empty programs in the same places, and with nothing
    Overhead,
    /// How many events the daemon follows without loss, and what that takes
    Events,
    /// How many instructions the verifier follows in each program, in the guests
    Verifier,
}

/// Measures it all.
pub(super) fn run(args: &Args, stage: &Stage) -> Result<Vec<Row>> {
    let has = |part| args.only.is_empty() || args.only.contains(&part);
    let repetitions = args.common.repetitions;
    let mut rows = Vec::new();
    if has(Part::Overhead) {
        rows.extend(overhead::run(stage, args.vm, repetitions, args.rounds));
    }
    if has(Part::Events) {
        rows.extend(events::run(stage, repetitions)?);
    }
    if has(Part::Verifier) {
        rows.extend(verifier::run(stage, args.write_table)?);
    }
    Ok(rows)
}
