//! Tracing: load the eBPF object, attach and pin it, seed the ledger, follow the events.
//!
//! Everything that lasts is in pinned maps and links (`pins`), so no process has to stay behind.

pub mod census;
pub mod demand;
pub mod error;
pub mod event;
pub mod filter;
pub mod follow;
pub mod hooks;
pub(crate) mod loader;
pub mod missed;
pub mod object;
pub mod pairs;
pub mod pass;
pub mod pins;
pub mod programs;
pub mod reconcile;
pub mod ring;
pub mod session;
pub mod store;

pub use error::TracerError;
