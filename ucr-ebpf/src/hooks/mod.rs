//! Where the kernel calls us, one file for each kind of hook. Each hook carries the prototype
//! of what it hangs on, and says what it cannot see.

mod inet;
pub(crate) mod numbers;
mod passing;
mod probes;
mod states;
mod syscalls;
mod tasks;
mod trampolines;
