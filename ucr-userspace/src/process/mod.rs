//! A live process: what can be read from it and its sockets, and how it is stopped.

pub mod beneath;
pub mod epoll;
pub mod files;
pub mod filter;
pub mod freeze;
pub mod inet;
pub mod netlink;
pub mod options;
pub mod own;
pub mod parasite;
pub mod peek;
pub mod procfs;
pub mod state;
pub mod states;
mod stops;
pub mod tcp;
