//! `cargo xtask bench refresh`: for how long a program stands still whose sockets are replaced in place, against the
//! stop of a dump of the same program.

mod one;

use anyhow::Result;

use super::{
    Common,
    figures::Figures,
    holder::{Set, Shape},
    place::raise_limit,
    row::{Row, Target},
    stage::Stage,
};

const BENCH: &str = "refresh";
/// How the sockets come to be; nothing waits at any of them.
const SHAPES: [Shape; 3] = [Shape::Pairs, Shape::Accepted, Shape::Tcp];
/// What is to be reached is about so many, and from so many on it may grow in proportion to [`MOST`].
const SOME: u32 = 1000;
const MOST: u32 = 8000;
/// The median, in milliseconds.
const STOPPED: Target = Target::Below(100.0);

/// Replace the sockets of a running program: for how long it stands still, beside `ucr dump`
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// How many sockets
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [250, SOME, 2000, MOST])]
    sockets: Vec<u32>,
    #[command(flatten)]
    pub(super) common: Common,
}

impl Args {
    /// All that is measured.
    fn sets(&self) -> impl Iterator<Item = Set> {
        self.sockets.iter().flat_map(|sockets| kinds(*sockets))
    }

    /// Those of which is to be said how the stop grows; none if that was not measured.
    fn growing(&self) -> impl Iterator<Item = Set> {
        let is_known = [SOME, MOST].iter().all(|sockets| self.sockets.contains(sockets));
        kinds(MOST).into_iter().filter(move |_| is_known)
    }
}

fn kinds(sockets: u32) -> [Set; SHAPES.len()] {
    SHAPES.map(|shape| Set { shape, sockets, bytes: 0 })
}

/// Measures it all.
pub(super) fn run(args: &Args, stage: &Stage) -> Result<Vec<Row>> {
    raise_limit()?;
    let mut figures = Figures::default();
    for set in args.sets() {
        println!("bench: refresh of {} sockets: {}", set.sockets, set.name());
        one::run(stage, &set, args.common.repetitions, &mut figures);
    }
    Ok(rows(args, &figures))
}

fn rows(args: &Args, figures: &Figures) -> Vec<Row> {
    let mut rows: Vec<Row> = args.sets().map(|set| one::row(&set, figures)).collect();
    rows.extend(args.growing().map(|set| one::growth(&set, figures)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{row::Verdict, samples::Samples};

    #[test]
    fn a_thousand_are_held_to_the_target_and_eight_thousand_to_a_thousand() {
        let words = ["bench", "--sockets=250,1000,8000"];
        let command = <Args as clap::Args>::augment_args(clap::Command::new("bench"));
        let matches = command.try_get_matches_from(words).expect("words");
        let args = <Args as clap::FromArgMatches>::from_arg_matches(&matches).expect("args");
        let mut figures = Figures::default();
        for set in args.sets() {
            let stop = f64::from(set.sockets) / 11.0;
            figures.set(set.figure(one::REFRESH), Ok(Samples::one(stop)));
            figures.set(set.figure(one::DUMP), Ok(Samples::one(stop / 2.0)));
        }
        let rows = rows(&args, &figures);
        let verdicts: Vec<_> = rows.iter().map(|row| (row.n, row.verdict())).collect();
        let [free, met] = [Verdict::Measured, Verdict::Met];
        let each = [(250, free), (1000, met), (8000, free), (8000, met)];
        let expected: Vec<(u64, Verdict)> =
            each.into_iter().flat_map(|of| [of; SHAPES.len()]).collect();
        assert_eq!(verdicts, expected);
        assert!(rows.iter().all(|row| row.bench == "refresh"));
        assert_eq!(rows[0].ratio(), Some(0.5));
        assert_eq!(Args { sockets: vec![250, 8000], ..args }.growing().count(), 0);
    }
}
