//! Exit codes.

/// All went well. A reader that closed the pipe early is no failure.
pub const OK: u8 = 0;

/// Something failed; the reason is on standard error.
pub const FAILED: u8 = 1;

/// The command line makes no sense (clap uses the same code).
pub const USAGE: u8 = 2;

/// Refused: what is in the way has been listed, all of it, and nothing was done.
pub const REFUSED: u8 = 3;
