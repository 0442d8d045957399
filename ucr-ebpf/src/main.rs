//! ucr's eBPF programs: they watch unix sockets being born, named, paired and closed, keep the
//! ledger in maps and report to a ring buffer.
//!
//! `hooks` are the places where the kernel calls us, one folder entry for each backend;
//! everything that a hook does to the maps is in `ledger`, so that every backend does the same.
//! `kernel` and `memory` are the only places that read kernel memory.

#![no_std]
#![no_main]

mod emit;
mod frame;
mod hooks;
mod iterators;
mod kernel;
mod ledger;
mod maps;
mod memory;
mod paths;
mod search;
mod sight;
mod task;
