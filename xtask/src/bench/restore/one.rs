//! One image of so many sockets: the whole command, against a bare loop, and in the machine against CRIU.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};

use super::{
    super::{
        criu,
        figures::Figures,
        holder::{self, Count, Holder, Life, Set},
        place::Place,
        race::{Contestant, race_into},
        row::{Measured, Peer, Row},
        samples::Samples,
        sizes::{self, of_most},
        stage::Stage,
    },
    BENCH, FLOOR, RESTORED,
};
use crate::{commands, leftovers::Pins};

/// Measures it. If that fails the figures say so.
pub(super) fn run(stage: &Stage, set: &Set, place: Place, repetitions: u32, figures: &mut Figures) {
    if let Err(why) = measure(stage, set, place, repetitions, figures) {
        figures.set(set.figure("ucr"), Err(format!("{why:#}")));
    }
}

fn measure(
    stage: &Stage,
    set: &Set,
    place: Place,
    repetitions: u32,
    figures: &mut Figures,
) -> Result<()> {
    // Who restores does not trace.
    let pins = stage.pins("none");
    let life = if place == Place::Machine { Life::Free } else { Life::Bound };
    let mut victim = Holder::start(stage, set, life)?;
    let (pid, image) = (victim.pid, victim.folder.join("image.ucr"));
    dump(stage, &pins, pid, &image)?;
    let mut all = Vec::new();
    if place == Place::Machine {
        let mut bare = Holder::start(stage, &Set::BARE, life)?;
        let both = [(&mut victim, set, "criu"), (&mut bare, &Set::BARE, "criu start")];
        for (victim, set, who) in both {
            all.push(dumped_by_criu(stage, victim, set)?.named(who));
        }
        bare.end()?;
    }
    let folder = victim.end()?;
    let tidy = || {
        let folder = folder.clone();
        move || holder::remove_listener(&folder)
    };
    let file = image.display().to_string();
    let restore = stage.contestant(&pins, &["restore", &file, "--", "true"]);
    let [shape, sockets, bytes, made_in] = set.words(&folder);
    let words = ["hold", "make", &shape, &sockets, &bytes, &made_in];
    let floor = Contestant::new("floor", stage.victim().as_os_str(), &words);
    all.push(restore.named("ucr").printing(0).then(tidy()));
    all.push(floor.printing(0).then(tidy()));
    check(stage, &pins, set, &image)?;
    holder::remove_listener(&folder)?;
    let all = all.into_iter().map(|contestant| {
        let name = set.figure(&contestant.name);
        contestant.named(&name)
    });
    race_into(figures, &mut all.collect::<Vec<_>>(), repetitions);
    figures.set(set.figure("peak"), peak(stage, &pins, &file));
    holder::remove_listener(&folder)?;
    Ok(())
}

fn dump(stage: &Stage, pins: &Pins, pid: u32, image: &Path) -> Result<()> {
    let (pid, image) = (pid.to_string(), image.display().to_string());
    commands::run_quietly(&mut stage.ucr(pins, &["dump", "--pid", &pid, "-o", &image])).map(drop)
}

/// Lets a program that is given the sockets look what it has.
fn check(stage: &Stage, pins: &Pins, set: &Set, image: &Path) -> Result<()> {
    let (image, victim) = (image.display().to_string(), stage.victim().display().to_string());
    let words = ["restore", &image, "--", &victim, "hold", "count"];
    let found = commands::run_quietly(&mut stage.ucr(pins, &words))?;
    ensure!(Count::read(&found)? == set.count(), "what is restored is not what was dumped");
    Ok(())
}

/// Dumps a process with CRIU, which ends it, brings it back once, and looks what it has.
fn dumped_by_criu(stage: &Stage, victim: &mut Holder, set: &Set) -> Result<Contestant> {
    let images = stage.new_folder("criu")?;
    commands::run_quietly(&mut criu::dump_and_kill(victim.pid, &images))?;
    victim.reap()?;
    let (pid, folder) = (victim.pid, victim.folder.clone());
    let end = move || criu::end(pid).and_then(|()| holder::remove_listener(&folder));
    let mut once = criu::restore_once(&images);
    commands::run_quietly(&mut once)?;
    let found = holder::ask(victim.pid, &victim.folder)?;
    end()?;
    ensure!(found == set.count(), "what CRIU restores is not what it has dumped");
    Ok(criu::restore(&images).then(end))
}

/// How much memory a restore has at most, in MiB.
fn peak(stage: &Stage, pins: &Pins, image: &str) -> Measured {
    let mut command = Command::new(stage.victim());
    command.args(["hold", "peak"]).arg(stage.program()).args(["restore", image, "--", "true"]);
    let said = commands::run_quietly(command.env("UCR_PIN_DIR", pins.path()));
    let said = said.map_err(|why| format!("{why:#}"))?;
    let kib: u32 = said.trim().parse().map_err(|_| format!("`{}` is no size", said.trim()))?;
    Ok(Samples::one(f64::from(kib) / 1024.0))
}

fn row(workload: &str, place: Place, set: &Set, unit: &'static str, ucr: Measured) -> Row {
    Row::alone(BENCH, format!("{workload}{place}"), set.sockets.into(), unit, ucr)
}

/// Its rows.
pub(super) fn rows(set: &Set, place: Place, figures: &Figures) -> Vec<Row> {
    let ucr = figures.get(&set.figure("ucr"));
    let compared = |peer: &str, value, target| Row {
        peer: Some(Peer { name: peer.to_owned(), value }),
        target: of_most(set, target),
        ..row(&set.name(), place, set, "ms", ucr.clone())
    };
    let mut rows = vec![compared("a bare loop", figures.get(&set.figure("floor")), FLOOR)];
    if place == Place::Machine {
        let value = figures.less(&set.figure("criu"), &set.figure("criu start"));
        rows.push(compared("criu restore less its start-up", value, RESTORED));
    }
    let workload = format!("{}: peak memory", set.name());
    rows.push(row(&workload, place, set, "MiB", figures.get(&set.figure("peak"))));
    rows
}

/// How many times longer the restore of a set takes than that of fewer sockets.
pub(super) fn growth(set: &Set, place: Place, figures: &Figures) -> Row {
    let row = |workload: &str, unit, grown| row(workload, place, set, unit, grown);
    sizes::growth(set, sizes::FEWER, "ucr", &set.name(), figures, row)
}
