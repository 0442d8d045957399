//! A live process: what can be read from its sockets.

pub mod option_table;
pub mod options;
pub mod state;
