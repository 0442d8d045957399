//! The fence: the only room of user space where `unsafe` may stand. Each function here is safe to
//! call, wraps one system call that no crate at hand wraps, and decides nothing.

pub mod bpf;
pub mod readiness;
