//! Writing to standard output.

use std::io;

/// A reader that closed the pipe has seen enough: that is success.
///
/// # Errors
///
/// Every other error.
pub fn unless_broken_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
