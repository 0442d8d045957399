//! `cargo xtask bench inspect`: who is on the other end, asked on a machine with very many unix sockets.

mod asking;
mod listing;
mod memory;

use anyhow::Result;

use super::{
    Common,
    crowd::Crowd,
    row::{Better, Measured, Peer, Row, Target},
    stage::Stage,
};

const BENCH: &str = "inspect";

/// Ask who holds which unix socket, among very many: ls, who, the daemon's memory
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// How many unix sockets
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    sockets: usize,
    /// Only such parts
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// `ucr ls`, traced and not, against ss, lsof and lsfd
    Listing,
    /// `ucr who`, against ss and lsof
    Asking,
    /// What the daemon takes of memory
    Memory,
}

/// Measures it all.
pub(super) fn run(args: &Args, stage: &Stage) -> Result<Vec<Row>> {
    let has = |part| args.only.is_empty() || args.only.contains(&part);
    let repetitions = args.common.repetitions;
    let mut rows = Vec::new();
    if has(Part::Listing) || has(Part::Asking) {
        let pins = stage.pins("traced");
        stage.attach(&pins)?;
        let mut crowd = Crowd::new();
        crowd.pairs(stage, args.sockets / 2)?;
        crowd.connections(stage, args.sockets / 2)?;
        let mark = crowd.mark()?;
        let few = crowd.few(stage)?;
        println!("bench: {} unix sockets, traced from their beginning", crowd.sockets());
        if has(Part::Asking) {
            rows.extend(asking::run(stage, &pins, &mut crowd, &mark, &few, repetitions)?);
        }
        if has(Part::Listing) {
            rows.extend(listing::traced(stage, &pins, crowd.sockets(), repetitions));
            pins.detach();
            rows.extend(listing::untraced(stage, &pins, crowd.sockets(), repetitions));
        }
    }
    if has(Part::Memory) {
        rows.extend(memory::run(stage, args.sockets));
    }
    Ok(rows)
}

/// A row of commands: milliseconds.
fn command(workload: &str, n: usize, ucr: Measured, peer: Peer, target: Option<Target>) -> Row {
    Row {
        bench: BENCH,
        workload: workload.to_owned(),
        n: u64::try_from(n).unwrap_or(u64::MAX),
        unit: "ms",
        better: Better::Less,
        ucr,
        peer: Some(peer),
        target,
    }
}
