//! `ucr restore`: what was dumped stands again, in other programs, and nothing else was touched.

mod beneath;
mod credentials;
mod datagrams;
mod endings;
mod external;
mod images;
mod kept;
mod names;
mod passed;
mod places;
mod programs;
mod queues;
mod refusals;
mod settings;
mod signals;
mod stock;
mod trees;
mod waiting;

use std::path::PathBuf;

use ucr_tests::{Victim, World};

use crate::dumping::dump;

/// Dumps a victim with its tree and ends it; the image.
fn take(world: &World, victim: Victim) -> PathBuf {
    let image = world.path("image");
    let _written = dump(world, &victim, &image, &["--tree", "--kill"]).done();
    let _status = victim.ended();
    image
}

/// Restores an image of one process into another victim.
fn bring_back(world: &World, image: &std::path::Path) -> Victim {
    let (mut victims, restore) = world.restore(image, &[0]);
    let victim = victims.pop().expect("one victim");
    assert_eq!(victim.pid(), restore.pid(), "ucr has become the program");
    let said = restore.complaint();
    assert!(said.contains("verified: 0 differences"), "{said}");
    world.keep(restore);
    victim
}
