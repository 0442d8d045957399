//! Where the kernel calls us, one file for each kind of hook. Each hook carries the prototype
//! of what it hangs on, and says what it cannot see.

pub(crate) mod numbers;
mod passing;
mod probes;
mod syscalls;
mod tasks;
mod trampolines;
