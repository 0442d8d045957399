//! Ways into and out of the kernel beside the plain system calls: io_uring, the 32-bit entry, messages
//! that carry descriptors, and what the kernel does to sockets by itself.

pub(crate) mod compat;
pub(crate) mod datagrams;
mod embryos;
mod fallbacks;
pub(crate) mod io_uring;
pub(crate) mod passing;

use serde_json::Value;
use ucr_common::record::Record;
use ucr_tests::{World, outside};

/// The cookie of a socket in an event: also those have one that were never accepted.
fn cookie(value: &Value) -> u64 {
    value["cookie"].as_u64().unwrap_or_default()
}

/// The record of the socket behind a descriptor.
fn record(world: &World, pid: i32, fd: i32) -> Option<Record> {
    world.ucr.record(outside::inode(pid, fd).expect("a socket"))
}
