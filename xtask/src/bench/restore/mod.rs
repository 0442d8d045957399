//! `cargo xtask bench restore`: bringing sockets back, against the least that it can take: a program that makes
//! the same sockets and queues, and does nothing else.

mod one;

use anyhow::Result;

use super::{
    Common,
    figures::Figures,
    place::{Place, Where},
    row::{Row, Target},
    sizes::Sizes,
    stage::Stage,
};

const BENCH: &str = "restore";
/// Half as much again as a bare loop.
const FLOOR: Target = Target::Within(1.5);
/// A quarter of what CRIU needs.
const RESTORED: Target = Target::Times(4.0);

/// Restore very many unix sockets
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    sizes: Sizes,
    #[command(flatten)]
    pub(super) place: Where,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Measures it all.
pub(super) fn run(args: &Args, stage: &Stage) -> Result<Vec<Row>> {
    let words =
        [BENCH.to_owned(), args.sizes.word(), format!("--repetitions={}", args.common.repetitions)];
    let figures = args.place.measure(&words, |place| Ok(measure(args, stage, place)))?;
    Ok(rows(args, &figures))
}

fn measure(args: &Args, stage: &Stage, place: Place) -> Figures {
    let mut figures = Figures::default();
    for set in args.sizes.sets() {
        println!("bench: restore of {} sockets: {}", set.sockets, set.name());
        one::run(stage, &set, place, args.common.repetitions, &mut figures);
    }
    figures
}

fn rows(args: &Args, figures: &Figures) -> Vec<Row> {
    let place = args.place.place();
    let sets = args.sizes.sets();
    let mut rows: Vec<Row> = sets.flat_map(|set| one::rows(&set, place, figures)).collect();
    rows.extend(args.sizes.growing().map(|set| one::growth(&set, place, figures)));
    rows
}
