//! Socket options read from and set on a live socket, by the table.

use std::io;
use std::os::fd::BorrowedFd;

use crate::image::SocketOption;
use crate::model::option_table::{Known, Set, known};
use crate::sys::sockopt;

/// Reads options of the table, in its order, as far as this kernel knows them.
///
/// # Errors
///
/// The option's name and what the kernel said, for anything but "unknown option".
pub fn read(
    socket: BorrowedFd<'_>,
    wanted: impl Iterator<Item = &'static Known>,
) -> Result<Vec<SocketOption>, (&'static str, io::Error)> {
    let mut options = Vec::new();
    for known in wanted {
        match sockopt::get(socket, known.number) {
            Ok(value) => options.push(SocketOption { name: known.number, value }),
            Err(error) if is_unknown(&error) => {}
            Err(error) => return Err((known.name, error)),
        }
    }
    Ok(options)
}

/// Whether the kernel says by this that it does not have the option for this kind of socket.
pub(super) fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP))
}

/// Sets an option so that reading it gives `option.value` again.
///
/// # Errors
///
/// The kernel's, and `InvalidInput` for an option that is not in the table or whose value has not
/// the shape that the option has: an image cannot set anything else.
pub fn set(socket: BorrowedFd<'_>, option: &SocketOption) -> io::Result<()> {
    let bad = || io::Error::from(io::ErrorKind::InvalidInput);
    let known = known(option.name).ok_or_else(bad)?;
    match known.set {
        Set::Plain => sockopt::set(socket, known.number, &option.value),
        Set::Halved { forced } => {
            let doubled = sockopt::as_int(&option.value).ok_or_else(bad)?;
            let half = (doubled / 2).to_ne_bytes();
            match sockopt::set(socket, forced, &half) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    sockopt::set(socket, known.number, &half)
                }
                result => result,
            }
        }
        Set::Linger => {
            let (&on, seconds) = option.value.split_first_chunk().ok_or_else(bad)?;
            if i32::from_ne_bytes(on) == 0 {
                let switched_on = [&1i32.to_ne_bytes(), seconds].concat();
                sockopt::set(socket, known.number, &switched_on)?;
            }
            sockopt::set(socket, known.number, &option.value)
        }
        Set::FirstInt => {
            let first = sockopt::as_int(&option.value).ok_or_else(bad)?;
            sockopt::set(socket, known.number, &first.to_ne_bytes())
        }
    }
}
