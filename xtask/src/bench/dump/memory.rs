//! What sockets take of memory: in the ledger, while they are dumped, and in the image.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use super::{
    super::{
        figures::Figures,
        holder::Set,
        place::Place,
        row::{Measured, Row},
        samples::Samples,
        sizes::of_most,
        stage::{Stage, until},
    },
    PEAK, row,
};
use crate::{
    commands,
    leftovers::{Pins, Process},
};

/// A value, or why there is none.
pub(super) fn measured(value: Result<f64>) -> Measured {
    value.map(Samples::one).map_err(|why| format!("{why:#}"))
}

/// Bytes that the maps of tracing take. `ucr trace` has all of them open, so that its `fdinfo` tells, which
/// counts what is in a hash map since Linux 6.4 (`htab_map_mem_usage`).
pub(super) fn ledger(stage: &Stage, pins: &Pins) -> Result<f64> {
    let mut trace = stage.ucr(pins, &["trace", "--json"]);
    trace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut trace = Process::start(&mut trace)?;
    let pid = trace.child().id();
    until("ucr trace to follow", || {
        let follower = stage.status(pins)?.get("follower").and_then(serde_json::Value::as_u64);
        Ok((follower == Some(pid.into())).then_some(()))
    })?;
    let folder = format!("/proc/{pid}/fdinfo");
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("list {folder}"))? {
        let path = entry.with_context(|| format!("list {folder}"))?.path();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        // Of one map there may be several descriptors.
        maps.extend(memory_of_map(&text));
    }
    let bytes: u64 = maps.values().sum();
    Ok(f64::from(u32::try_from(bytes).context("the size of all maps")?))
}

/// Number and size of a map.
fn memory_of_map(fdinfo: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let mut lines = fdinfo.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(own, _)| *own == name)?.1.trim().parse().ok()
    };
    Some((field("map_id")?, field("memlock")?))
}

/// How much memory a dump has at most, in bytes.
pub(super) fn peak_of(stage: &Stage, pins: &Pins, pid: u32, image: &Path) -> Result<f64> {
    let mut command = Command::new(stage.victim());
    command.args(["hold", "peak"]).arg(stage.program());
    command.args(["dump", "--pid", &pid.to_string(), "-o"]).arg(image);
    let said = commands::run_quietly(command.env("UCR_PIN_DIR", pins.path()))?;
    let kib: u32 = said.trim().parse().with_context(|| format!("`{}` is no size", said.trim()))?;
    Ok(f64::from(kib) * 1024.0)
}

/// What the dump of a set has of memory at most.
pub(super) fn peak(set: &Set, place: Place, figures: &Figures) -> Row {
    let peak = figures.get(&set.figure("peak")).map(|bytes| bytes.map(|bytes| bytes / 1_048_576.0));
    let workload = format!("{}: peak memory", set.name());
    let target = of_most(set, PEAK).filter(|_| set.bytes > 0);
    Row { target, ..row(&workload, place, set.sockets, "MiB", peak) }
}

/// What each socket takes that one of the two sets has more than the other.
pub(super) fn each(sets: [&Set; 2], place: Place, figures: &Figures) -> Vec<Row> {
    let [few, many] = sets;
    let more = f64::from(many.sockets - few.sockets);
    let whats = [("ledger", "in the ledger"), ("peak", "in the dump"), ("image", "in the image")];
    let row = |(what, place_of_it): (&str, &str)| {
        let names = [many.figure(what), few.figure(what)];
        let names = names.each_ref().map(String::as_str);
        let each = figures.of_both(names, |many, few| (many - few) / more);
        let workload = format!("{}: memory per socket {place_of_it}", many.name());
        row(&workload, place, many.sockets, "bytes", each)
    };
    whats.map(row).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_told_from_other_descriptors() {
        let map = "pos:\t0\nflags:\t02\nmap_type:\t1\nmemlock:\t11493480\nmap_id:\t164158\n";
        assert_eq!(memory_of_map(map), Some((164_158, 11_493_480)));
        assert_eq!(memory_of_map("pos:\t0\nflags:\t02\nprog_id:\t7\nmemlock:\t4096\n"), None);
    }

    #[test]
    fn each_socket_has_its_share_of_what_there_is_more() {
        let [few, ..] = Set::kinds(2);
        let [many, ..] = Set::kinds(1002);
        let mut figures = Figures::default();
        figures.set(few.figure("image"), Ok(Samples::one(500.0)));
        figures.set(many.figure("image"), Ok(Samples::one(50_500.0)));
        let rows = each([&few, &many], Place::Host, &figures);
        assert_eq!(rows.last().map(|row| row.ucr.clone()), Some(Ok(Samples::one(50.0))));
        assert!(rows.first().is_some_and(|row| row.ucr.is_err()));
    }
}
