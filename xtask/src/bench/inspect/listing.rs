//! All sockets with their owners.

use std::process::Command;

use super::{
    super::{
        race::{Contestant, race},
        row::{Peer, Row, Target},
        stage::{Stage, program},
    },
    command,
};
use crate::{commands, leftovers::Pins};

/// So many times faster than `ss -xap`.
const TARGET: Target = Target::Times(20.0);

/// With what was tracked, against everybody.
pub(super) fn traced(stage: &Stage, pins: &Pins, n: usize, repetitions: u32) -> Vec<Row> {
    let peers = [ss(), Contestant::new("lsof -U", program("lsof"), &["-U"]), lsfd()];
    compare("ls, traced", stage, pins, n, peers, repetitions)
}

/// Without: what others can do as well, it does by itself.
pub(super) fn untraced(stage: &Stage, pins: &Pins, n: usize, repetitions: u32) -> Vec<Row> {
    compare("ls, not traced", stage, pins, n, [ss()], repetitions)
}

fn ss() -> Contestant {
    Contestant::new("ss -xap", program("ss"), &["-xap"])
}

/// util-linux called the column by which unix sockets are known differently before 2.39.
fn lsfd() -> Contestant {
    let finds_any = |filter: &str| {
        let mut lsfd = Command::new("lsfd");
        let found = commands::run_quietly(lsfd.args(["--noheadings", "-Q", filter]));
        found.is_ok_and(|found| !found.trim().is_empty())
    };
    let filters = ["TYPE =~ \"UNIX.*\"", "PROTONAME =~ \"UNIX.*\""];
    let [newer, _] = filters;
    let filter = filters.into_iter().find(|filter| finds_any(filter)).unwrap_or(newer);
    Contestant::new("lsfd -Q UNIX", program("lsfd"), &["-Q", filter])
}

fn compare<const N: usize>(
    workload: &str,
    stage: &Stage,
    pins: &Pins,
    n: usize,
    peers: [Contestant; N],
    repetitions: u32,
) -> Vec<Row> {
    let own = stage.contestant(pins, &["ls"]);
    let mut all: Vec<Contestant> =
        [own].into_iter().chain(peers).map(|contestant| contestant.printing(n)).collect();
    let mut measured = race(&mut all, repetitions).into_iter();
    let ucr = measured.next().unwrap_or_else(|| Err("did not run".to_owned()));
    let names = all.into_iter().skip(1).map(|peer| peer.name);
    let peers = names.zip(measured).map(|(name, value)| Peer { name, value });
    peers
        .map(|peer| {
            let target = (peer.name == "ss -xap").then_some(TARGET);
            command(workload, n, ucr.clone(), peer, target)
        })
        .collect()
}
