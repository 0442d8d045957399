//! The daemon: follows the ring buffer for months, keeps the history, answers questions.

pub mod client;
pub mod config;
pub mod frame;
pub mod hub;
pub mod notify;
pub mod privileges;
pub mod protocol;
pub mod status;
