//! `ucr check`: what a dump would come to is known before, and nothing is done for it.

mod advice;
mod answers;
mod targets;

use serde_json::Value;
use ucr_tests::{Answer, Victim, World};

/// Checks a victim, with further options.
pub(crate) fn check(world: &World, victim: &Victim, options: &[&str]) -> Answer {
    world.ucr.run(&[&["check", &victim.pid().to_string()], options].concat())
}

/// The obstacle at a descriptor.
fn at(report: &Value, fd: i32) -> &Value {
    let obstacles = report["obstacles"].as_array().expect("a list");
    let found = obstacles.iter().find(|obstacle| obstacle["fd"] == fd);
    found.unwrap_or_else(|| panic!("no obstacle at {fd}: {report:#}"))
}
