//! Pieces of kernel memory that a program copies for user space.

/// Size of one piece at most, in bytes.
pub const PIECE: usize = 1 << 16;
