//! Orders about files that are no sockets. They stay open: the victim goes by their numbers.

use std::{
    io,
    os::fd::{AsFd as _, IntoRawFd as _, OwnedFd},
};

use nix::unistd::{pipe, read, write};
use rustix::event::{EventfdFlags, eventfd};

use super::world::{Done, World};

/// Obeys one line, if it is one of these.
pub(crate) fn obey(world: &World, words: &[&str]) -> Option<Done> {
    let said = |error: io::Error| error.to_string();
    let number = |fd: OwnedFd| fd.into_raw_fd().to_string();
    Some(match words {
        ["pipe"] => match pipe() {
            Ok((from, to)) => Ok(format!("{} {}", number(from), number(to))),
            Err(errno) => Err(format!("{errno:?}")),
        },
        ["open", path] => {
            let file = std::fs::OpenOptions::new().read(true).append(true).create(true).open(path);
            file.map(|file| number(file.into())).map_err(said)
        }
        ["eventfd"] => {
            eventfd(0, EventfdFlags::NONBLOCK).map(number).map_err(|errno| said(errno.into()))
        }
        ["read", fd] => world.with(fd, |fd| {
            let mut buffer = [0; 64];
            let length = read(fd.as_fd(), &mut buffer)?;
            Ok(ucr_tests::world::hex(buffer.get(..length).unwrap_or_default()))
        }),
        ["write", fd, digits] => world.with(fd, |fd| {
            let data = ucr_tests::world::unhex(digits).map_err(io::Error::other)?;
            Ok(write(fd.as_fd(), &data)?.to_string())
        }),
        _ => return None,
    })
}
