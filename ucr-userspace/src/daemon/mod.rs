//! The daemon: follows the ring buffer for months, keeps the history, answers questions.

pub mod config;
pub mod http;
pub mod metrics;
pub mod notify;
pub mod privileges;

#[cfg(test)]
mod packaging;
