//! From an image back to sockets: a plan, its execution and its undoing, the check of the result,
//! and the programs that get the sockets.

pub mod arm;
pub mod collector;
mod deliver;
pub mod execute;
pub mod files;
mod forge;
pub mod identity;
pub mod inside;
pub mod into;
pub mod leftover;
pub mod names;
pub mod obstacle;
pub mod outside;
pub mod plan;
mod private;
pub mod program;
pub mod reserve;
pub mod target;
pub mod undo;
pub mod verify;
pub mod workers;
