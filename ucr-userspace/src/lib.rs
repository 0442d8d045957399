//! ucr: an eBPF-assisted unix socket tracer, dumper and restorer.
//!
//! The rooms, in the order in which data flows through them, and the rules that they keep, are in
//! `docs/ARCHITECTURE.md`.

pub mod image;
pub mod kernel;
pub mod model;
pub mod snapshot;
pub mod sys;
pub mod tracer;
