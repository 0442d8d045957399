//! What is gone: closed sockets and past events, in an embedded database.
//!
//! Entries are packed into blocks ([`block`]), blocks are rows of an `SQLite` file ([`store`]), which one
//! process writes and any number read ([`search`]).

pub mod block;
pub mod entry;
pub mod row;
pub mod step;
pub mod stock;

#[cfg(test)]
mod samples;
