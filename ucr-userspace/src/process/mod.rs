//! A live process: what can be read from it and its sockets, and how it is stopped.

pub mod files;
pub mod filter;
pub mod freeze;
pub mod options;
pub mod procfs;
pub mod state;
