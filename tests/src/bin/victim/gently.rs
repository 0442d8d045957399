//! Orders that never wait, whoever holds the socket besides: `gently accept FD`, `gently connect FD NAME`.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{SockFlag, accept4},
};
use ucr::sys::addr;
use ucr_tests::world::unhex;

use super::world::{Done, World};

/// Obeys one line, if it is one of these.
pub(crate) fn obey(world: &World, words: &[&str]) -> Option<Done> {
    Some(match words {
        ["gently", "accept", fd] => world.with(fd, |fd| {
            unblocked(fd, || Ok(accept4(fd.as_raw_fd(), SockFlag::empty())?.to_string()))
        }),
        ["gently", "connect", fd, name] => unhex(name).and_then(|name| {
            world.with(fd, |fd| unblocked(fd, || addr::connect(fd, &name).map(|()| String::new())))
        }),
        _ => return None,
    })
}

/// Does something with `O_NONBLOCK` set meanwhile.
fn unblocked(fd: BorrowedFd<'_>, act: impl FnOnce() -> io::Result<String>) -> io::Result<String> {
    let before = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(before | OFlag::O_NONBLOCK))?;
    let done = act();
    fcntl(fd, FcntlArg::F_SETFL(before))?;
    done
}
