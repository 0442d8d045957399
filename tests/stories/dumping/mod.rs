//! `ucr dump`: verdicts, what is refused, and that the target does not notice.

mod conflicts;
mod files;
mod namespaces;
mod obstacles;
mod output;
mod provenance;
mod sharing;
mod targets;
mod threads;
mod unseen;
mod verdicts;

use std::path::Path;

use serde_json::Value;
use ucr_tests::{Answer, Victim, World};

/// Dumps a victim as JSON, with further options.
pub(crate) fn dump(world: &World, victim: &Victim, image: &Path, options: &[&str]) -> Answer {
    let pid = victim.pid().to_string();
    let image = image.to_str().expect("text");
    world.ucr.run(&[&["dump", "--json", "--pid", &pid, "-o", image], options].concat())
}

/// The socket with this inode in what `dump --json` printed.
pub(crate) fn socket(report: &Value, inode: u32) -> &Value {
    let sockets = report["sockets"].as_array().expect("sockets");
    sockets.iter().find(|socket| socket["inode"] == inode).expect("the socket in the report")
}

/// How many sockets got a verdict.
pub(crate) fn count(report: &Value, verdict: &str) -> u64 {
    report["counts"][verdict].as_u64().expect("a number")
}
