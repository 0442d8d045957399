//! Turning things into text for people and JSON for programs.

pub mod image;
pub mod json;
pub mod output;
pub mod time;
