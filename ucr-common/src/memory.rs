//! Pieces of kernel memory that a program copies for user space, many in one run.

use crate::shared;

/// Size of one piece at most, in bytes.
pub const PIECE: usize = 1 << 16;

/// Most pieces in one run: a power of two.
pub const BATCH: usize = 1 << 9;

/// How many bytes the pieces of one run may have together but for the last, each rounded up to [`ALIGN`]: a power
/// of two.
pub const ROOM: usize = 1 << 20;

/// What the place of each piece is a multiple of.
pub const ALIGN: usize = 8;

/// Size of the map that the pieces are put in.
pub const MEMORY: usize = ROOM + PIECE;

/// Size of the map in which user space keeps, as long as tracing is attached, where the kernel keeps what.
pub const LAYOUT: usize = 8192;

shared! {
    /// A piece that is wanted.
    pub struct Want: 16 {
        /// Where it begins.
        pub address: u64,
        /// Its length.
        pub length: u32,
        /// What came of it: 0, or a negative errno.
        pub result: i32,
    }
}
