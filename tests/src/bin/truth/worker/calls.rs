//! The system calls of the workload, counted. An error is nothing special: what is wanted here is
//! that calls race, and one of the two that race often fails.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::Duration,
};

use fastrand::Rng;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown,
    SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect_unspec, listen, recv, send,
    sendmsg, sendmsg_addr, sendto, shutdown, socket_with, socketpair,
    sockopt::{Timeout, set_socket_passcred, set_socket_timeout},
};
use ucr::sys::addr;

use crate::tally::Counter;

/// What a call that failed leaves: nothing.
pub(super) type Made<T> = Option<T>;

/// Makes the calls.
pub(super) struct Calls {
    pub(super) rng: Rng,
    pub(super) counter: Counter,
}

impl Calls {
    /// Counts one operation and forgets why it failed.
    pub(super) fn count<T, E>(&mut self, result: Result<T, E>) -> Made<T> {
        self.counter.add(1);
        result.ok()
    }

    /// One of the three types; streams are the most.
    pub(super) fn any_type(&mut self) -> SocketType {
        match self.rng.u8(0..8) {
            0..4 => SocketType::STREAM,
            4..6 => SocketType::SEQPACKET,
            _ => SocketType::DGRAM,
        }
    }

    /// A type that connects.
    pub(super) fn connecting_type(&mut self) -> SocketType {
        if self.rng.u8(0..3) == 0 { SocketType::SEQPACKET } else { SocketType::STREAM }
    }

    /// Nothing blocks; what is closed on exec is left to chance.
    pub(super) fn flags(&mut self) -> SocketFlags {
        let mut flags = SocketFlags::NONBLOCK;
        flags.set(SocketFlags::CLOEXEC, self.rng.bool());
        flags
    }

    pub(super) fn socket(&mut self, socket_type: SocketType) -> Made<OwnedFd> {
        let flags = self.flags();
        let made = socket_with(AddressFamily::UNIX, socket_type, flags, None);
        self.count(made)
    }

    /// A socket whose calls wait, but not for ever.
    pub(super) fn patient_socket(
        &mut self,
        socket_type: SocketType,
        patience: Duration,
    ) -> Made<OwnedFd> {
        let made = socket_with(AddressFamily::UNIX, socket_type, SocketFlags::CLOEXEC, None);
        let fd = self.count(made)?;
        let set = set_socket_timeout(&fd, Timeout::Send, Some(patience));
        self.count(set)?;
        Some(fd)
    }

    pub(super) fn pair(&mut self, socket_type: SocketType) -> Made<(OwnedFd, OwnedFd)> {
        let flags = self.flags();
        let made = socketpair(AddressFamily::UNIX, socket_type, flags, None);
        self.count(made)
    }

    pub(super) fn bind(&mut self, fd: impl AsFd, name: &[u8]) -> Made<()> {
        self.count(addr::bind(fd.as_fd(), name))
    }

    /// With nothing but the family, so that the kernel chooses a name.
    pub(super) fn autobind(&mut self, fd: impl AsFd) -> Made<()> {
        self.count(bind(fd, &SocketAddrUnix::new_unnamed()))
    }

    pub(super) fn listen(&mut self, fd: impl AsFd) -> Made<()> {
        let backlog = self.rng.i32(0..6);
        self.count(listen(fd, backlog))
    }

    /// Bound and listening.
    pub(super) fn listener(&mut self, socket_type: SocketType, name: &[u8]) -> Made<OwnedFd> {
        let fd = self.socket(socket_type)?;
        self.bind(&fd, name)?;
        self.listen(&fd)?;
        Some(fd)
    }

    pub(super) fn connect(&mut self, fd: impl AsFd, name: &[u8]) -> Made<()> {
        self.count(addr::connect(fd.as_fd(), name))
    }

    /// `AF_UNSPEC`: a datagram socket has no peer afterwards.
    pub(super) fn disconnect(&mut self, fd: impl AsFd) -> Made<()> {
        self.count(connect_unspec(fd))
    }

    /// A socket that is connected.
    pub(super) fn client(&mut self, socket_type: SocketType, name: &[u8]) -> Made<OwnedFd> {
        let fd = self.socket(socket_type)?;
        self.connect(&fd, name)?;
        Some(fd)
    }

    pub(super) fn accept(&mut self, fd: impl AsFd) -> Made<OwnedFd> {
        let flags = self.flags();
        self.count(accept_with(fd, flags))
    }

    pub(super) fn shutdown(&mut self, fd: impl AsFd) -> Made<()> {
        let how = match self.rng.u8(0..3) {
            0 => Shutdown::Read,
            1 => Shutdown::Write,
            _ => Shutdown::Both,
        };
        self.count(shutdown(fd, how))
    }

    /// Asks for credentials, which makes the kernel give the socket a name when it connects or sends.
    pub(super) fn want_credentials(&mut self, fd: impl AsFd) -> Made<()> {
        self.count(set_socket_passcred(fd, true))
    }

    pub(super) fn send(&mut self, fd: impl AsFd) -> Made<usize> {
        self.count(send(fd, b"truth", SendFlags::NOSIGNAL | SendFlags::DONTWAIT))
    }

    pub(super) fn receive(&mut self, fd: impl AsFd) -> Made<()> {
        let mut buffer = [0_u8; 64];
        self.count(recv(fd, &mut buffer, RecvFlags::DONTWAIT).map(drop))
    }

    /// A datagram to a name.
    pub(super) fn send_to(&mut self, fd: impl AsFd, name: &[u8]) -> Made<usize> {
        let to = named(name);
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        self.count(to.and_then(|to| sendto(fd, b"truth", flags, &to)))
    }

    /// Descriptors in a message, over a connection or to a name.
    pub(super) fn pass(
        &mut self,
        fds: &[&OwnedFd],
        over: impl AsFd,
        name: Option<&[u8]>,
    ) -> Made<usize> {
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        let fits = message.push(SendAncillaryMessage::ScmRights(&fds));
        debug_assert!(fits, "at most 8 descriptors");
        let data = [io::IoSlice::new(b"x")];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = match name {
            None => sendmsg(over, &data, &mut message, flags),
            Some(name) => {
                named(name).and_then(|to| sendmsg_addr(over, &to, &data, &mut message, flags))
            }
        };
        self.count(sent)
    }

    /// A name in the file system is free again; the socket keeps it.
    pub(super) fn unlink(&mut self, path: &Path) -> Made<()> {
        self.count(fs::remove_file(path))
    }
}

fn named(name: &[u8]) -> rustix::io::Result<SocketAddrUnix> {
    match name.split_first() {
        Some((0, rest)) => SocketAddrUnix::new_abstract_name(rest),
        _ => SocketAddrUnix::new(name),
    }
}
