//! One process with so many sockets, and nobody else: with what was tracked and without, against `ss -xap`,
//! which only lists, or in the machine against CRIU.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    super::{
        criu,
        figures::Figures,
        holder::{Holder, Life, Set},
        place::Place,
        race::{Contestant, race_into},
        row::{Peer, Row},
        samples::Samples,
        sizes::{self, of_most},
        stage::{Stage, program},
    },
    DUMPED, LISTED, memory, row,
};
use crate::{commands, leftovers::Pins};

/// Everything of the image is checked, and what it is checked against.
pub(super) const WAYS: [&str; 2] = ["traced", "not traced"];

/// Where tracing is attached, and where it is not.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) traced: Pins,
    pub(super) untraced: Pins,
}

/// Says of what could not be measured why.
pub(super) fn failed(set: &Set, why: &anyhow::Error, figures: &mut Figures) {
    for way in WAYS {
        figures.set(set.figure(way), Err(format!("{why:#}")));
    }
}

/// Measures it.
pub(super) fn measure(
    stage: &Stage,
    pins: &Pinned,
    set: &Set,
    place: Place,
    repetitions: u32,
    figures: &mut Figures,
) -> Result<()> {
    let life = if place == Place::Machine { Life::Free } else { Life::Bound };
    let ledger = memory::ledger(stage, &pins.traced);
    let holder = Holder::start(stage, set, life)?;
    let more = memory::ledger(stage, &pins.traced);
    let grown = ledger.and_then(|before| Ok(more? - before));
    figures.set(set.figure("ledger"), memory::measured(grown));
    let image = holder.folder.join("image.ucr");
    let mut all = contestants(stage, pins, holder.pid, &image, set.count().sockets)?;
    let bare = match place {
        Place::Host => {
            let ss = Contestant::new("ss", program("ss"), &["-xap"]);
            all.push(ss.printing(usize::try_from(set.count().sockets)?));
            None
        }
        Place::Machine => {
            let bare = Holder::start(stage, &Set::BARE, life)?;
            for (holder, name) in [(&holder, "criu"), (&bare, "criu start")] {
                let images = stage.new_folder("criu")?;
                all.push(criu::dump(holder.pid, &images).named(name));
            }
            Some(bare)
        }
    };
    let names = all.into_iter().map(|contestant| {
        let name = set.figure(&contestant.name);
        contestant.named(&name)
    });
    race_into(figures, &mut names.collect::<Vec<_>>(), repetitions);
    drop(bare);
    ensure!(holder.ask()? == set.count(), "the process has not what it had before");
    check(stage, &pins.traced, &holder, set, &image)?;
    let bytes = fs::metadata(&image).context("look at the image")?.len();
    figures.set(set.figure("image"), Ok(Samples::one(f64::from(u32::try_from(bytes)?))));
    let peak = memory::peak_of(stage, &pins.traced, holder.pid, &image);
    figures.set(set.figure("peak"), memory::measured(peak));
    Ok(())
}

/// ucr, with what was tracked and without.
pub(super) fn contestants(
    stage: &Stage,
    pins: &Pinned,
    pid: u32,
    image: &Path,
    sockets: u32,
) -> Result<Vec<Contestant>> {
    let (pid, image) = (pid.to_string(), image.display().to_string());
    let lines = usize::try_from(sockets)?;
    let ways = WAYS.into_iter().zip([&pins.traced, &pins.untraced]);
    let contestant = |(way, pins)| {
        let contestant = stage.contestant(pins, &["dump", "--pid", &pid, "-o", &image]);
        contestant.named(way).printing(lines)
    };
    Ok(ways.map(contestant).collect())
}

/// Holds an image against what the process has: all of it was seen from its beginning, and is written.
fn check(stage: &Stage, pins: &Pins, holder: &Holder, set: &Set, image: &Path) -> Result<()> {
    let (pid, image) = (holder.pid.to_string(), image.display().to_string());
    let read = |command: &mut Command| -> Result<Value> {
        let said = commands::run_quietly(command)?;
        serde_json::from_str(&said).context("understand what ucr says as JSON")
    };
    let dumped = read(&mut stage.ucr(pins, &["dump", "--pid", &pid, "-o", &image, "--json"]))?;
    let confirmed = dumped.get("counts").and_then(|counts| counts.get("confirmed")?.as_u64());
    let shown = read(&mut stage.ucr(pins, &["show", "--json", &image]))?;
    let written = shown.get("sockets").and_then(|sockets| Some(sockets.as_array()?.len()));
    let sockets = set.count().sockets;
    ensure!(
        confirmed == Some(sockets.into()),
        "of {sockets} sockets {} were confirmed",
        confirmed.unwrap_or(0)
    );
    ensure!(
        written == Some(usize::try_from(sockets)?),
        "of {sockets} sockets {} are in the image",
        written.unwrap_or(0)
    );
    Ok(())
}

/// Its rows.
pub(super) fn rows(set: &Set, place: Place, figures: &Figures) -> Vec<Row> {
    let (peer, target) = match place {
        Place::Host => {
            let value = figures.get(&set.figure("ss"));
            (Peer { name: "ss -xap".to_owned(), value }, LISTED)
        }
        Place::Machine => {
            let value = figures.less(&set.figure("criu"), &set.figure("criu start"));
            (Peer { name: "criu dump less its start-up".to_owned(), value }, DUMPED)
        }
    };
    let row = |way| Row {
        peer: Some(peer.clone()),
        target: of_most(set, target),
        ..row(
            &format!("{}, {way}", set.name()),
            place,
            set.sockets,
            "ms",
            figures.get(&set.figure(way)),
        )
    };
    WAYS.map(row).into()
}

/// How many times longer the dump of a set takes than that of fewer sockets.
pub(super) fn growth(set: &Set, place: Place, figures: &Figures) -> Vec<Row> {
    let grown = |way| {
        let workload = format!("{}, {way}", set.name());
        let row = |workload: &str, unit, grown| row(workload, place, set.sockets, unit, grown);
        sizes::growth(set, sizes::FEWER, way, &workload, figures, row)
    };
    WAYS.map(grown).into()
}
