//! The verbs of the command line, one file each. They decide nothing: they read arguments, call the
//! library, and print.

pub mod exit;
pub mod restore;
pub mod show;
