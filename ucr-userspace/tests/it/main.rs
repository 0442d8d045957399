//! Images made by hand: encoded, planned, restored in this process and looked at.

mod execution;
mod file;
mod format;
mod options;
mod planning;
mod programs;
mod support;
