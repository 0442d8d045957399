//! What user space tells the programs at run time, and what they count.

use crate::shared;

shared! {
    /// The only element of the `LEASE` map, which only a follower writes.
    pub struct Lease: 16 {
        /// Events go into the ring buffer until this moment (`CLOCK_BOOTTIME` nanoseconds): a
        /// follower renews it, so a follower that was killed leaves no buffer to run full. [`FOREVER`]: also while
        /// nobody reads, until it is full: a daemon that means to come back. 0: no
        /// follower.
        pub until: u64,
        /// Process that follows.
        pub follower: u32,
        /// When that process began, in clock ticks since boot (low half): its pid can be used again.
        pub started: u32,
    }
}

/// The lease of a follower that is to find everything when it comes back.
pub const FOREVER: u64 = u64::MAX;

shared! {
    /// The only element of the `CONTROL` map, which only he writes who holds the lock on the pins.
    pub struct Control: 40 {
        /// When tracing was attached, `CLOCK_BOOTTIME` nanoseconds.
        pub attached_at: u64,
        /// When the seeding pass was done and the ledger complete, `CLOCK_BOOTTIME` nanoseconds; 0
        /// until then.
        pub seeded_at: u64,
        /// When the ledger was last reconciled with the kernel, `CLOCK_BOOTTIME` nanoseconds; 0: never.
        pub reconciled_at: u64,
        /// Process that attached.
        pub attached_by: u32,
        /// Version of the shapes in this crate that the pinned maps hold: [`SHAPES`].
        pub shapes: u32,
        /// 1 if `attach` mounted the bpf file system itself, so that `detach` may unmount it.
        pub mounted_bpffs: u32,
        /// Which programs are attached: one of [`backend`].
        pub backend: u32,
    }
}

/// Version of the shapes in this crate. To be raised with every change of a shape: pinned maps of
/// another version are not read.
pub const SHAPES: u32 = 7;

/// Sets of hooks that fill the ledger.
pub mod backend {
    /// `tp_btf` programs on system calls and task ends.
    pub const TRACEPOINT: u32 = 1;
    /// `fentry` and `fexit` programs on the unix family's own functions.
    pub const TRAMPOLINE: u32 = 2;
}

/// Indices into the per-CPU array `COUNTERS`.
pub mod counter {
    /// Events written to the ring buffer.
    pub const EMITTED: u32 = 0;
    /// Events lost because the ring buffer was full.
    pub const LOST: u32 = 1;
    /// Sockets not recorded because the ledger was full.
    pub const LEDGER_FULL: u32 = 2;
    /// Directories of a pathname bind not recorded because their map was full.
    pub const PATHS_FULL: u32 = 3;
    /// Reads of kernel or user memory that failed where they should not.
    pub const UNREADABLE: u32 = 4;
    /// Calls made through the 32-bit entry, whose numbers and arguments are not decoded.
    pub const COMPAT: u32 = 5;
    /// Records that were still there when a new socket took the same address: a close was missed.
    pub const STALE: u32 = 6;
    /// Sockets that were first seen in the middle of their life.
    pub const LATE: u32 = 7;
    /// Sockets that a reconciliation found, and the ledger did not have.
    pub const FOUND: u32 = 8;
    /// Records that a reconciliation corrected.
    pub const REPAIRED: u32 = 9;
    /// Sockets that did not fit into a census.
    pub const CENSUS_FULL: u32 = 10;
    /// Sockets not recorded because the kernel had no memory for it at that moment.
    pub const NO_MEMORY: u32 = 11;
    /// How many there are.
    pub const COUNT: u32 = 12;
    /// What each is called in output, and what it counts; by index.
    pub const MEANINGS: [(&str, &str); 12] = [
        ("emitted", "events written to the ring buffer"),
        ("lost", "events lost because the ring buffer was full"),
        ("ledger_full", "sockets not recorded because the ledger was full"),
        ("paths_full", "directories of a bind not recorded because their map was full"),
        ("unreadable", "reads of memory that failed where they should not"),
        ("compat", "calls by the 32-bit entry, not decoded"),
        ("stale", "records of sockets whose end was missed, replaced by a new one"),
        ("late", "sockets first seen in the middle of their life"),
        ("found", "sockets that only a reconciliation found"),
        ("repaired", "records that a reconciliation corrected"),
        ("census_full", "sockets that did not fit into a census"),
        ("no_memory", "sockets not recorded because the kernel had no memory at that moment"),
    ];

    const _: () = assert!(MEANINGS.len() == COUNT as usize);
}
