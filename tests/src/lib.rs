//! The harness for testing ucr from outside: it runs the `ucr` program and victims, which are
//! programs that build worlds of sockets on command, and looks at what came of it through `/proc`
//! and sock_diag.
//!
//! | variable | meaning |
//! |---|---|
//! | `UCR_BIN` | the `ucr` to test; without it, it is built |
//! | `UCR_NO_SKIP` | a test that cannot run here fails |
//! | `UCR_SKIPPED` | a file to which a test that cannot run here adds a line: name, tab, reason |
//! | `UCR_SHARED` | a folder of the bpf file system: tests to which it does not matter share tracers there |
//! | `UCR_PATIENCE` | how many times longer than usual anything may take, on slow machines |
#![expect(clippy::panic, clippy::expect_used, reason = "how a test fails")]

pub mod backends;
pub mod control;
pub mod daemon;
pub mod doomed;
pub mod follower;
pub mod native;
pub mod needs;
pub mod network;
pub mod outside;
pub mod perl;
pub mod program;
pub mod storm;
pub mod ucr;
pub mod verifier;
pub mod victim;
pub mod wait;
pub mod world;

pub use self::{
    daemon::Daemon,
    follower::Follower,
    native::{I386, Uring},
    needs::Need,
    network::Host,
    perl::Perl,
    program::Program,
    storm::Storm,
    ucr::{Answer, Ucr},
    victim::Victim,
    world::World,
};
