//! One image of so many sockets: the whole command, against a bare loop, and in the machine against CRIU.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::{
    super::{
        criu,
        figures::Figures,
        holder::{self, Count, Holder, Life, Set, Shape},
        place::Place,
        race::{Contestant, race_into},
        row::{Better, Measured, Peer, Row},
        samples::Samples,
        stage::Stage,
    },
    BENCH, FEWER, FLOOR, GROWTH, MOST, RESTORED,
};
use crate::{commands, leftovers::Pins};

/// What CRIU needs for a process without sockets is taken off.
const BARE: Set = Set { shape: Shape::Pairs, sockets: 0, bytes: 0 };

fn name(set: &Set, who: &str) -> String {
    format!("{} {}: {who}", set.sockets, set.name())
}

/// Measures it. If that fails the figures say so.
pub(super) fn run(stage: &Stage, set: &Set, place: Place, repetitions: u32, figures: &mut Figures) {
    if let Err(why) = measure(stage, set, place, repetitions, figures) {
        figures.set(name(set, "ucr"), Err(format!("{why:#}")));
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
        let mut bare = Holder::start(stage, &BARE, life)?;
        let both = [(&mut victim, set, "criu"), (&mut bare, &BARE, "criu start")];
        for (victim, set, who) in both {
            all.push(dumped_by_criu(stage, victim, set)?.named(who));
        }
        bare.end()?;
    }
    let folder = victim.end()?;
    let listener = holder::listener(&folder);
    let tidy = without_listener(&folder);
    let file = image.display().to_string();
    let restore = stage.contestant(&pins, &["restore", &file, "--", "true"]);
    let [shape, sockets, bytes, made_in] = set.words(&folder);
    let words = ["hold", "make", &shape, &sockets, &bytes, &made_in];
    let floor = Contestant::new("floor", stage.victim().as_os_str(), &words);
    all.push(restore.named("ucr").printing(0).then(&tidy));
    all.push(floor.printing(0).then(&tidy));
    check(stage, &pins, set, &image)?;
    if listener.exists() {
        fs::remove_file(&listener).context("remove a listener's file")?;
    }
    let all = all.into_iter().map(|contestant| {
        let name = name(set, &contestant.name);
        contestant.named(&name)
    });
    race_into(figures, &mut all.collect::<Vec<_>>(), repetitions);
    figures.set(name(set, "peak"), peak(stage, &pins, &file));
    if listener.exists() {
        fs::remove_file(&listener).context("remove a listener's file")?;
    }
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
    // What was bound stays behind, whoever has bound it.
    let end = format!("{} && {}", criu::end(victim.pid), without_listener(&victim.folder));
    let restored = criu::restore(&images).then(&end);
    let mut once = criu::restore_once(&images);
    commands::run_quietly(&mut once)?;
    let found = holder::ask(victim.pid, &victim.folder)?;
    commands::run_quietly(Command::new("sh").args(["-c", &end]))?;
    ensure!(found == set.count(), "what CRIU restores is not what it has dumped");
    Ok(restored)
}

/// For the shell: removes the file of a listener, if there is one.
fn without_listener(folder: &Path) -> String {
    format!("rm -f '{}'", holder::listener(folder).display())
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
    Row {
        bench: BENCH,
        workload: format!("{workload}{place}"),
        n: set.sockets.into(),
        unit,
        better: Better::Less,
        ucr,
        peer: None,
        target: None,
    }
}

/// Its rows.
pub(super) fn rows(set: &Set, place: Place, figures: &Figures) -> Vec<Row> {
    let of_most = |target| (set.sockets == MOST).then_some(target);
    let ucr = figures.get(&name(set, "ucr"));
    let compared = |peer: &str, value, target| Row {
        peer: Some(Peer { name: peer.to_owned(), value }),
        target: of_most(target),
        ..row(&set.name(), place, set, "ms", ucr.clone())
    };
    let mut rows = vec![compared("a bare loop", figures.get(&name(set, "floor")), FLOOR)];
    if place == Place::Machine {
        let value = figures.less(&name(set, "criu"), &name(set, "criu start"));
        rows.push(compared("criu restore less its start-up", value, RESTORED));
    }
    let workload = format!("{}: peak memory", set.name());
    rows.push(row(&workload, place, set, "MiB", figures.get(&name(set, "peak"))));
    rows
}

/// How many times longer the restore of a set takes than that of [`FEWER`].
pub(super) fn growth(set: &Set, place: Place, figures: &Figures) -> Row {
    let fewer = Set { sockets: FEWER, ..*set };
    let names = [name(set, "ucr"), name(&fewer, "ucr")];
    let grown = figures.of_both(names.each_ref().map(String::as_str), |all, few| all / few);
    let workload = format!("{}: time, as against {FEWER}", set.name());
    Row { target: Some(GROWTH), ..row(&workload, place, set, "times", grown) }
}
