//! Images made by hand: encoded, planned, restored in this process and looked at.
//!
//! `cfg(test)` tells clippy that helpers, too, may unwrap.

#[cfg(test)]
mod callers;
#[cfg(test)]
mod execution;
#[cfg(test)]
mod file;
#[cfg(test)]
mod format;
mod hooks;
#[cfg(test)]
mod inet_option_list;
#[cfg(test)]
mod internet;
#[cfg(test)]
mod names;
#[cfg(test)]
mod option_list;
#[cfg(test)]
mod options;
#[cfg(test)]
mod outside;
#[cfg(test)]
mod places;
#[cfg(test)]
mod planning;
#[cfg(test)]
mod programs;
mod queues;
#[cfg(test)]
mod support;
