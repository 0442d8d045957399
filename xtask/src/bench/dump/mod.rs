//! `cargo xtask bench dump`: writing the sockets of a process to an image.

mod foreign;
mod memory;
mod one;

use anyhow::Result;

use super::{
    Common,
    figures::Figures,
    holder::Set,
    place::{Place, Where},
    row::{Better, Measured, Row, Target},
    stage::Stage,
};

const BENCH: &str = "dump";
/// As many are dumped at most, and what is to be reached is about so many.
const MOST: u32 = 16_000;
/// From so many on time may grow by no more than [`GROWTH`].
const FEWER: u32 = 2000;
const GROWTH: Target = Target::Below(8.8);
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
    /// How many sockets the process has
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [2, FEWER, 8000, MOST])]
    sockets: Vec<u32>,
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
    let sizes: Vec<String> = args.sockets.iter().map(u32::to_string).collect();
    let words = [
        BENCH.to_owned(),
        format!("--sockets={}", sizes.join(",")),
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
    for set in args.sockets.iter().flat_map(|sockets| Set::kinds(*sockets)) {
        println!("bench: dump of {} sockets: {}", set.sockets, set.name());
        one::run(stage, &pins, &set, place, repetitions, &mut figures);
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
    for set in args.sockets.iter().flat_map(|sockets| Set::kinds(*sockets)) {
        rows.extend(one::rows(&set, place, figures));
        rows.push(memory::peak(&set, place, figures));
    }
    let least = args.sockets.iter().copied().min().unwrap_or(0);
    let most = args.sockets.iter().copied().max().unwrap_or(0);
    if least < most {
        for kind in Set::kinds(most) {
            let less = Set { sockets: least, ..kind };
            rows.extend(memory::each([&less, &kind], place, figures));
        }
    }
    if [FEWER, MOST].iter().all(|sockets| args.sockets.contains(sockets)) {
        rows.extend(Set::kinds(MOST).iter().flat_map(|set| one::growth(set, place, figures)));
    }
    if args.foreign > 0 {
        rows.extend(foreign::rows(args.foreign, place, figures));
    }
    rows
}

/// A row without peer and target.
fn row(workload: &str, place: Place, n: u32, unit: &'static str, ucr: Measured) -> Row {
    Row {
        bench: BENCH,
        workload: format!("{workload}{place}"),
        n: n.into(),
        unit,
        better: Better::Less,
        ucr,
        peer: None,
        target: None,
    }
}
