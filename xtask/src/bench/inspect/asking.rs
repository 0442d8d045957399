//! Who is on the other end of one socket.

use std::path::Path;

use anyhow::Result;

use super::{
    super::{
        crowd::{Crowd, Mark},
        race::{Contestant, race},
        row::{Peer, Row, Target},
        stage::{Stage, program},
    },
    command,
};
use crate::leftovers::Pins;

/// Milliseconds.
const TARGET: Target = Target::Below(50.0);

/// By inode, by path and by descriptor. `mark` is one of very many sockets of its process; `few` a listener
/// with few connections, whose process was the last to join the crowd.
pub(super) fn run(
    stage: &Stage,
    pins: &Pins,
    crowd: &mut Crowd,
    mark: &Mark,
    few: &Path,
    repetitions: u32,
) -> Result<Vec<Row>> {
    let Mark { pid, fd, inode } = mark;
    let path = few.display().to_string();
    let holder = crowd.mark()?.pid;
    let questions = [
        ("who inode:N", format!("inode:{inode}"), format!("ss -xap | grep -w {inode}"), *pid),
        ("who PATH", path.clone(), format!("ss -xap | grep -F {path}"), holder),
        ("who PID:FD", format!("{pid}:{fd}"), format!("ss -xap | grep pid={pid},fd={fd}\\)"), *pid),
    ];
    let mut all: Vec<Contestant> = Vec::new();
    for (_, target, line, _) in &questions {
        all.extend([stage.contestant(pins, &["who", target]), Contestant::shell(line)]);
    }
    for pid in [*pid, holder] {
        let pid = pid.to_string();
        let name = format!("lsof +E -aU -p {pid}");
        all.push(Contestant::new(&name, program("lsof"), &["+E", "-aU", "-p", &pid]));
    }
    let measured = race(&mut all, repetitions);
    let result = |name: &str| {
        let mut named = all.iter().zip(&measured);
        let found = named.find(|(contestant, _)| contestant.name == name);
        found.map_or_else(|| Err("did not run".to_owned()), |(_, measured)| measured.clone())
    };
    let mut rows = Vec::new();
    for (workload, target, line, pid) in questions {
        let ucr = result(&format!("ucr who {target}"));
        let short = ["ss -xap | grep", "lsof +E -aU -p PID"];
        for (name, short) in [line, format!("lsof +E -aU -p {pid}")].into_iter().zip(short) {
            let peer = Peer { name: short.to_owned(), value: result(&name) };
            rows.push(command(workload, crowd.sockets(), ucr.clone(), peer, Some(TARGET)));
        }
    }
    Ok(rows)
}
