//! The fence: the only place in user space with `unsafe`. Thin wrappers around system calls that
//! no crate offers in the form that is needed here; they decide nothing.

pub mod addr;
pub mod descriptor;
pub mod sockopt;
pub mod spawn;
