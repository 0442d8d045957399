//! `cargo xtask bench dump`: writing the sockets of a process to an image.

mod foreign;
mod memory;
mod one;

use anyhow::Result;

use super::{
    Common,
    figures::Figures,
    place::{Place, Where},
    row::{Measured, Row, Target},
    sizes::Sizes,
    stage::Stage,
};

const BENCH: &str = "dump";
/// As long as `ss -xap` needs to list them.
const LISTED: Target = Target::Times(1.0);
/// A tenth of what CRIU needs.
const DUMPED: Target = Target::Times(10.0);
/// In MiB.
const PEAK: Target = Target::Below(128.0);
/// A fifth more at most, for sockets of others.
const FOREIGN: Target = Target::Within(1.2);

/// Dump processes with very many unix sockets, and one with few among very many of others
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    sizes: Sizes,
    /// How many sockets other processes have meanwhile; 0: this part is left out
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    foreign: usize,
    #[command(flatten)]
    pub(super) place: Where,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Measures it all.
pub(super) fn run(args: &Args, stage: &Stage) -> Result<Vec<Row>> {
    let words = [
        BENCH.to_owned(),
        args.sizes.word(),
        format!("--foreign={}", args.foreign),
        format!("--repetitions={}", args.common.repetitions),
    ];
    let figures = args.place.measure(&words, |place| measure(args, stage, place))?;
    Ok(rows(args, &figures))
}

fn measure(args: &Args, stage: &Stage, place: Place) -> Result<Figures> {
    let mut figures = Figures::default();
    let repetitions = args.common.repetitions;
    let pins = one::Pinned { traced: stage.pins("traced"), untraced: stage.pins("untraced") };
    stage.attach(&pins.traced)?;
    for set in args.sizes.sets() {
        println!("bench: dump of {} sockets: {}", set.sockets, set.name());
        if let Err(why) = one::measure(stage, &pins, &set, place, repetitions, &mut figures) {
            one::failed(&set, &why, &mut figures);
        }
    }
    if args.foreign > 0 {
        println!(
            "bench: dump of {} sockets among {} of others",
            foreign::OWN.sockets,
            args.foreign
        );
        foreign::run(stage, &pins, args.foreign, place, repetitions, &mut figures)?;
    }
    Ok(figures)
}

fn rows(args: &Args, figures: &Figures) -> Vec<Row> {
    let place = args.place.place();
    let mut rows = Vec::new();
    for set in args.sizes.sets() {
        rows.extend(one::rows(&set, place, figures));
        rows.push(memory::peak(&set, place, figures));
    }
    for [least, most] in args.sizes.ends() {
        rows.extend(memory::each([&least, &most], place, figures));
    }
    rows.extend(args.sizes.growing().flat_map(|set| one::growth(&set, place, figures)));
    if args.foreign > 0 {
        rows.extend(foreign::rows(args.foreign, place, figures));
    }
    rows
}

/// A row without peer and target.
fn row(workload: &str, place: Place, n: u32, unit: &'static str, ucr: Measured) -> Row {
    Row::alone(BENCH, format!("{workload}{place}"), n.into(), unit, ucr)
}
