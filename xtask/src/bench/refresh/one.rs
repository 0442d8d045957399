//! One program with so many sockets, which are replaced again and again, and dumped in between: it has as many
//! afterwards, at the same descriptors, so that one serves for all repetitions.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    super::{
        crowd::sockets_of,
        figures::Figures,
        holder::{Holder, Life, Set},
        race::race_into,
        row::{Measured, Peer, Row},
        sizes,
        stage::Stage,
    },
    BENCH, SOME, STOPPED,
};

/// What the figures are called by.
pub(super) const REFRESH: &str = "refresh";
pub(super) const DUMP: &str = "dump";

/// Measures it. If that fails the figures say so.
pub(super) fn run(stage: &Stage, set: &Set, repetitions: u32, figures: &mut Figures) {
    if let Err(why) = measure(stage, set, repetitions, figures) {
        figures.set(set.figure(REFRESH), Err(format!("{why:#}")));
    }
}

fn measure(stage: &Stage, set: &Set, repetitions: u32, figures: &mut Figures) -> Result<()> {
    // Nobody has to trace for either.
    let pins = stage.pins("none");
    let holder = Holder::start(stage, set, Life::Bound)?;
    let before = sockets_of(holder.pid)?;
    let (pid, sockets) = (holder.pid.to_string(), set.count().sockets);
    let image = holder.folder.join("image.ucr").display().to_string();
    let refresh = stage.contestant(&pins, &["refresh", "--json", "--pid", &pid]);
    let dump = stage.contestant(&pins, &["dump", "--json", "--pid", &pid, "-o", &image]);
    let mut all = [
        refresh.named(&set.figure(REFRESH)).telling(move |said| refreshed(said, sockets)),
        dump.named(&set.figure(DUMP)).printing(usize::try_from(sockets)?).telling(stopped),
    ];
    race_into(figures, &mut all, repetitions);
    if figures.get(&set.figure(REFRESH)).is_err() {
        // It is known why.
        return Ok(());
    }
    check(&holder, set, &before)
}

/// Milliseconds for which the program stood still, the last time that it was stopped. (To make a listener ahead, a
/// refresh stops it once more before; then it goes on.)
fn stopped(said: &str) -> Result<f64> {
    stop_of(&understood(said)?)
}

/// The same of a refresh that has replaced so many sockets.
fn refreshed(said: &str, sockets: u32) -> Result<f64> {
    let report = understood(said)?;
    let replaced = report.get("replaced").and_then(Value::as_u64).context("what was replaced")?;
    ensure!(replaced == u64::from(sockets), "of {sockets} sockets {replaced} were replaced");
    stop_of(&report)
}

fn understood(said: &str) -> Result<Value> {
    serde_json::from_str(said).context("understand what ucr says as JSON")
}

fn stop_of(report: &Value) -> Result<f64> {
    report.get("stopped_ms").and_then(Value::as_f64).context("how long it stood still")
}

/// Whatever ucr says: the program has what it had, at the same descriptors, and none of the sockets of before.
fn check(holder: &Holder, set: &Set, before: &BTreeMap<u32, u32>) -> Result<()> {
    ensure!(holder.ask()? == set.count(), "the process has not what it had before");
    let after = sockets_of(holder.pid)?;
    ensure!(after.keys().eq(before.keys()), "the sockets are at other descriptors than before");
    let old = before.iter().filter(|&(fd, inode)| after.get(fd) == Some(inode)).count();
    ensure!(old == 0, "{old} of {} sockets are those of before", before.len());
    Ok(())
}

fn workload(set: &Set) -> String {
    format!("{}, stopped", set.name())
}

/// Its row. A dump is what a refresh begins with, but it also writes, and syncs, a file: it is no floor.
pub(super) fn row(set: &Set, figures: &Figures) -> Row {
    let value = figures.get(&set.figure(DUMP));
    Row {
        peer: Some(Peer { name: "ucr dump's stop".to_owned(), value }),
        target: (set.sockets == SOME).then_some(STOPPED),
        ..alone(&workload(set), set, "ms", figures.get(&set.figure(REFRESH)))
    }
}

/// How many times longer the stop is than with fewer sockets.
pub(super) fn growth(set: &Set, figures: &Figures) -> Row {
    let row = |workload: &str, unit, grown| alone(workload, set, unit, grown);
    sizes::growth(set, SOME, REFRESH, &workload(set), figures, row)
}

fn alone(workload: &str, set: &Set, unit: &'static str, ucr: Measured) -> Row {
    Row::alone(BENCH, workload.to_owned(), set.sockets.into(), unit, ucr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_counts_only_if_all_is_replaced() {
        let said = r#"{ "sockets": 7, "replaced": 6, "kept": 1, "stopped_ms": 12.5 }"#;
        assert_eq!(refreshed(said, 6).expect("all of them"), 12.5);
        assert_eq!(stopped(said).expect("a stop"), 12.5);
        let error = refreshed(said, 7).expect_err("one is kept");
        assert_eq!(error.to_string(), "of 7 sockets 6 were replaced");
        for wrong in ["", "{}", r#"{ "replaced": 7 }"#] {
            assert!(refreshed(wrong, 7).is_err() && stopped(wrong).is_err(), "{wrong}");
        }
    }
}
