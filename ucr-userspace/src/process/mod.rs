//! A live process: what can be read from its sockets.

pub mod options;
pub mod state;
