//! Turning things into text for people and JSON for programs.

pub mod check;
pub mod dump;
pub mod event;
pub mod features;
pub mod graph;
pub mod image;
pub mod json;
pub mod listing;
pub mod obstacle;
pub mod output;
pub mod terminal;
pub mod time;
pub mod who;
