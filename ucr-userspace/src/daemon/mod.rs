//! The daemon: follows the ring buffer for months, keeps the history, answers questions.
//!
//! The main thread lets clients in, serves the figures, and sees to it that the ledger is held against the
//! kernel ([`run`], [`server`]). One thread reads the ring buffer ([`follow`]), one writes the history
//! ([`keeper`]); a few more work on questions ([`answer`]). Nobody waits for who is slow: events that a
//! follower ([`hub`]) or the disk is too slow for are counted, and those who are concerned are told.

pub mod answer;
pub mod book;
pub mod client;
pub mod config;
pub mod figures;
pub mod follow;
pub mod frame;
mod guard;
pub mod http;
pub mod hub;
pub mod keeper;
pub mod log;
pub mod metrics;
pub mod notify;
mod prepare;
pub mod privileges;
pub mod protocol;
pub mod run;
pub mod schedule;
pub mod server;
pub mod shared;
pub mod status;

#[cfg(test)]
mod packaging;
