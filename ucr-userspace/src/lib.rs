//! ucr: an eBPF-assisted unix socket tracer, dumper and restorer.
//!
//! The rooms, in the order in which data flows through them, and the rules that they keep, are in
//! `docs/ARCHITECTURE.md`.

pub mod causes;
pub mod cli;
pub mod crosscheck;
pub mod daemon;
pub mod dump;
pub mod features;
pub mod history;
pub mod image;
pub mod inspect;
pub mod kernel;
pub mod ledger;
pub mod lock;
pub mod model;
pub mod process;
pub mod query;
pub mod render;
pub mod restore;
pub mod snapshot;
pub mod sys;
pub mod tracer;
