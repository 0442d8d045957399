//! A process with few sockets among very many of other processes, and the same alone.

use anyhow::{Result, ensure};

use super::{
    super::{
        criu,
        crowd::Crowd,
        figures::Figures,
        holder::{Holder, Life, Set, Shape},
        place::Place,
        race::race_into,
        row::{Peer, Row},
        stage::Stage,
    },
    FOREIGN,
    one::{Pinned, WAYS, contestants},
    row,
};

/// What is dumped.
pub(super) const OWN: Set = Set { shape: Shape::Pairs, sockets: 2, bytes: 0 };

/// What the figures are called by, in the order in which they are taken.
const BEFORE: &str = "before the others";
const AMONG: &str = "among the others";
const AFTER: &str = "after the others";

fn name(who: &str, when: &str) -> String {
    format!("foreign: {who} {when}")
}

/// Measures it before the others come, while they are there, and when they have gone.
pub(super) fn run(
    stage: &Stage,
    pins: &Pinned,
    others: usize,
    place: Place,
    repetitions: u32,
    figures: &mut Figures,
) -> Result<()> {
    let life = if place == Place::Machine { Life::Free } else { Life::Bound };
    let holder = Holder::start(stage, &OWN, life)?;
    let image = holder.folder.join("image.ucr");
    let images = stage.new_folder("criu")?;
    let mut at = |when| -> Result<()> {
        let mut all = contestants(stage, pins, holder.pid, &image, OWN.sockets)?;
        if place == Place::Machine {
            all.push(criu::dump(holder.pid, &images).named("criu"));
        }
        let all = all.into_iter().map(|contestant| {
            let name = name(&contestant.name, when);
            contestant.named(&name)
        });
        race_into(figures, &mut all.collect::<Vec<_>>(), repetitions);
        ensure!(holder.ask()? == OWN.count(), "the process has not what it had before");
        Ok(())
    };
    at(BEFORE)?;
    let mut crowd = Crowd::new();
    crowd.pairs(stage, others / 2)?;
    crowd.connections(stage, others / 2)?;
    at(AMONG)?;
    drop(crowd);
    at(AFTER)
}

/// Its rows.
pub(super) fn rows(others: usize, place: Place, figures: &Figures) -> Vec<Row> {
    let n = u32::try_from(others).unwrap_or(u32::MAX);
    let mut rows = Vec::new();
    for way in WAYS {
        let among = figures.get(&name(way, AMONG));
        let alone = figures.get(&name(way, BEFORE)).and_then(|before| {
            let after = figures.get(&name(way, AFTER))?;
            Ok(before.with(&after))
        });
        let workload = format!("{} sockets among those of others, {way}", OWN.sockets);
        let row = row(&workload, place, n, "ms", among);
        let peer = Peer { name: "the same alone".to_owned(), value: alone };
        rows.push(Row { peer: Some(peer), target: Some(FOREIGN), ..row.clone() });
        if place == Place::Machine {
            let value = figures.get(&name("criu", AMONG));
            let peer = Peer { name: "criu dump".to_owned(), value };
            rows.push(Row { peer: Some(peer), ..row });
        }
    }
    rows
}
