//! How much room there is on standard output.

use std::{env, io};

use rustix::termios::tcgetwinsize;

/// The width of lines, in characters: what the variable `COLUMNS` says, or else the terminal that
/// standard output is. `None`, if it is no terminal, or does not know: then lines may be of any
/// length.
#[must_use]
pub fn terminal_width() -> Option<usize> {
    let variable = env::var("COLUMNS").ok();
    let said = variable.and_then(|columns| columns.trim().parse().ok());
    let told = || tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    said.filter(|width| *width > 0).or_else(|| told().filter(|width| *width > 0))
}
