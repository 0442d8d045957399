//! `cargo xtask bench restore`: bringing sockets back, against the least that it can take: a program that makes
//! the same sockets and queues, and does nothing else.

mod one;

use anyhow::Result;

use super::{
    Common,
    figures::Figures,
    holder::Set,
    place::{Place, Where},
    row::{Row, Target},
    stage::Stage,
};

const BENCH: &str = "restore";
/// As many are restored at most, and what is to be reached is about so many.
const MOST: u32 = 16_000;
/// From so many on time may grow by no more than [`GROWTH`].
const FEWER: u32 = 2000;
const GROWTH: Target = Target::Below(8.8);
/// Half as much again as a bare loop.
const FLOOR: Target = Target::Within(1.5);
/// A quarter of what CRIU needs.
const RESTORED: Target = Target::Times(4.0);

/// Restore very many unix sockets
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// How many sockets
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [2, FEWER, 8000, MOST])]
    sockets: Vec<u32>,
    #[command(flatten)]
    pub(super) place: Where,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Measures it all.
pub(super) fn run(args: &Args, stage: &Stage) -> Result<Vec<Row>> {
    let sizes: Vec<String> = args.sockets.iter().map(u32::to_string).collect();
    let words = [
        BENCH.to_owned(),
        format!("--sockets={}", sizes.join(",")),
        format!("--repetitions={}", args.common.repetitions),
    ];
    let figures = args.place.measure(&words, |place| Ok(measure(args, stage, place)))?;
    Ok(rows(args, &figures))
}

fn measure(args: &Args, stage: &Stage, place: Place) -> Figures {
    let mut figures = Figures::default();
    for set in args.sockets.iter().flat_map(|sockets| Set::kinds(*sockets)) {
        println!("bench: restore of {} sockets: {}", set.sockets, set.name());
        one::run(stage, &set, place, args.common.repetitions, &mut figures);
    }
    figures
}

fn rows(args: &Args, figures: &Figures) -> Vec<Row> {
    let place = args.place.place();
    let sets = args.sockets.iter().flat_map(|sockets| Set::kinds(*sockets));
    let mut rows: Vec<Row> = sets.flat_map(|set| one::rows(&set, place, figures)).collect();
    if [FEWER, MOST].iter().all(|sockets| args.sockets.contains(sockets)) {
        rows.extend(Set::kinds(MOST).iter().map(|set| one::growth(set, place, figures)));
    }
    rows
}
