//! Which sockets are tracked, and how a descriptor leads to one.

use super::{AF_UNIX, Pointer, any_sock_of, file_of, inet, offset, probed};

/// A sock that is tracked.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    pub(crate) sk: Pointer,
    /// Of `AF_UNIX`, not of the internet.
    pub(crate) is_unix: bool,
}

/// The sock behind a file if that is a socket of a kind that is tracked.
#[inline(always)]
pub(crate) fn known_sock_of(file: Pointer) -> Option<Known> {
    let sk = any_sock_of(file)?;
    let family = probed::<u16>(sk, offset!(sk_family))?;
    if family == AF_UNIX {
        Some(Known { sk, is_unix: true })
    } else if inet::is_tracked(sk, family) {
        Some(Known { sk, is_unix: false })
    } else {
        None
    }
}

/// The same behind a descriptor of the current task.
#[inline(always)]
pub(crate) fn known_sock_at(fd: u32) -> Option<Known> {
    known_sock_of(file_of(fd)?)
}
