//! The daemon: follows the ring buffer for months, keeps the history, answers questions.

pub mod config;
pub mod notify;
pub mod privileges;
