//! Directories as the kernel's dentries spell them, from the leaf upwards.

use crate::shared;

/// Room for a working directory, in bytes. A power of two: the eBPF program masks with it.
pub const CWD_MAX: usize = 1024;
/// Room for a root directory, in bytes. A power of two: the eBPF program masks with it.
pub const ROOT_MAX: usize = 512;
/// How many directory levels are followed at most.
pub const LEVELS_MAX: u32 = 64;

/// The path is longer or deeper than there is room for: its upper end is missing.
pub const PATH_TRUNCATED: u32 = 1;
/// A read of kernel memory failed on the way: its upper end is missing.
pub const PATH_UNREADABLE: u32 = 2;

shared! {
    /// The working directory and the root directory of a task, each as `leaf/parent/…/top/` (so
    /// the components stand in reverse; none at all is the root of the mount namespace).
    pub struct BindPaths: 1808 {
        /// How many bytes of `cwd` count.
        pub cwd_len: u32,
        /// `PATH_*` bits.
        pub cwd_flags: u32,
        /// How many bytes of `root` count.
        pub root_len: u32,
        /// `PATH_*` bits.
        pub root_flags: u32,
        /// Working directory.
        pub cwd: [u8; CWD_MAX],
        /// Root directory.
        pub root: [u8; ROOT_MAX],
        /// Room for a component that begins at the very end of `root`. Nothing in it counts.
        pub slack: [u8; 256],
    }
}
