//! Stories of users: a victim with a few sockets, what ucr said of it, what came back.
//!
//! Each test has its own world (a folder, names, a pin directory) and runs beside the others. What
//! takes longer than a few seconds is in `slow`, which `cargo xtask test --quick` leaves out.
//!
//! `cfg(test)` tells clippy that helpers, too, may unwrap.

#[cfg(test)]
mod asking;
#[cfg(test)]
mod backends;
#[cfg(test)]
mod checking;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod doors;
#[cfg(test)]
mod dumping;
#[cfg(test)]
mod families;
#[cfg(test)]
mod features;
#[cfg(test)]
mod internet;
#[cfg(test)]
mod refreshing;
#[cfg(test)]
mod restoring;
#[cfg(test)]
mod services;
#[cfg(test)]
mod slow;
#[cfg(test)]
mod tracing;

/// A world for one test.
#[cfg(test)]
fn world() -> ucr_tests::World {
    ucr_tests::World::new(env!("CARGO_BIN_EXE_victim"))
}

/// A world for a test that makes thousands of sockets.
#[cfg(test)]
fn world_alone() -> ucr_tests::World {
    ucr_tests::World::alone(env!("CARGO_BIN_EXE_victim"))
}

/// A world that a certain backend watches, which other tests may share.
#[cfg(test)]
fn watched(backend: ucr::tracer::hooks::Backend) -> ucr_tests::World {
    let mut world = world();
    world.ucr.watch_as(backend);
    world
}
