//! The fence: the only room of user space where `unsafe` may stand. Each function here is safe to
//! call, wraps one system call that no crate at hand offers in the form needed, and decides
//! nothing.

pub mod addr;
pub mod bpf;
pub mod compare;
pub mod descriptor;
pub mod filter;
pub mod gate;
pub mod guard;
pub mod heap;
pub mod janitor;
pub mod load;
pub mod message;
pub mod notify;
pub mod parasite;
pub mod peer;
pub mod readiness;
pub mod repair;
pub mod sockopt;
pub mod spawn;
pub mod tracee;
pub mod types;
pub mod worker;
