//! Takes stock of the live sockets of the machine: passes of iterators, their owners, what was tracked.

pub mod columns;
pub mod graph;
pub mod people;
pub mod picture;
pub mod tracked;
pub mod who;
