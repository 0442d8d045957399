//! What the kernel says now: all sockets by sock_diag, a process's descriptors by an iterator, and what only
//! its memory tells.

pub mod descriptors;
pub mod diag;
pub mod memory;
