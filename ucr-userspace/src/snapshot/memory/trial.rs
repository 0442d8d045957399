//! Finds out whether kernel memory is understood: with sockets of our own, whose content we know.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, setsockopt, socket,
    socketpair, sockopt,
};
use nix::unistd::{Pid, getegid, geteuid, getpid};
use ucr_common::descriptor::SocketDescriptor;

use super::pages::Pages;
use super::{Memory, MemoryError, RawFile, RawMessage, long};
use crate::model::inet::{Family, Over, Protocol};
use crate::model::{self, Credentials, UnixName};
use crate::snapshot::descriptors::Lister;

/// As long as to fill more than one page behind the first part.
const LONG: usize = 20_000;

/// Bytes by which a page is known again.
const KNOWN: usize = 256;

/// The kinds of internet sockets of which there are many.
const KINDS: [Over; 4] = [
    Over(Protocol::Tcp, Family::V4),
    Over(Protocol::Tcp, Family::V6),
    Over(Protocol::Udp, Family::V4),
    Over(Protocol::Udp, Family::V6),
];

fn call<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> MemoryError {
    move |error| MemoryError::Call { operation, source: error.into() }
}

/// Bytes that do not repeat.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_ne_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

impl Memory {
    /// Returns our own descriptors, those of the trial among them.
    pub(super) fn try_out(
        &mut self,
        lister: &mut Lister,
    ) -> Result<Vec<SocketDescriptor>, MemoryError> {
        let make = || {
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
                .map_err(call("make a socketpair"))
        };
        let (from, to) = make()?;
        let (long_from, long_to) = make()?;
        setsockopt(&to, sockopt::PassCred, &true).map_err(call("set SO_PASSCRED"))?;
        let words = b"ucr looks for this message";
        let (from, number) = (from.as_fd(), to.as_raw_fd());
        let files = [number, 0];
        send(from, words, &[])?;
        let has_input = send(from, words, &[ControlMessage::ScmRights(&files)]).is_ok();
        // Without standard input.
        if !has_input {
            send(from, words, &[ControlMessage::ScmRights(&files[..1])])?;
        }
        let seed = u64::from(std::process::id()) ^ long(std::ptr::from_ref(self).addr());
        let big = content(LONG, seed);
        send(long_from.as_fd(), &big, &[])?;
        let specimens: Vec<_> = KINDS.into_iter().filter_map(inet_specimen).collect();

        let own = model::Pid(getpid().as_raw());
        let listed = lister.sockets_of(own)?;
        let sk_of = |fd: BorrowedFd<'_>| {
            let fd = fd.as_raw_fd().cast_unsigned();
            let found = listed.iter().find(|d| d.fd == fd && d.tid == d.pid);
            found.map(|d| d.socket.sk).ok_or(MemoryError::Senseless("our own socket is not listed"))
        };
        let sk = sk_of(to.as_fd())?;
        self.find_ourselves(sk)?;
        let here = Credentials { pid: own, uid: geteuid().as_raw(), gid: getegid().as_raw() };
        let expected = |files| RawMessage {
            data: words.to_vec(),
            sender: 0,
            sender_name: UnixName::Unnamed,
            credentials: Some(here),
            files,
            out_of_band: false,
        };
        let mut found = self.queue(sk)?;
        let senders: Vec<u64> = found.iter_mut().map(|m| std::mem::take(&mut m.sender)).collect();
        let passed = found.get(1).and_then(|message| message.files.first().copied());
        let right = senders == [sk_of(from)?; 2]
            && passed == Some(RawFile::Socket(sk))
            && found.first() == Some(&expected(Vec::new()))
            && found.get(1).is_some_and(|message| message.data == words);
        if !right {
            return Err(MemoryError::Senseless("our own messages look different"));
        }
        self.find_pages(sk_of(long_to.as_fd())?, &big)?;
        let sk = sk_of(long_from.as_fd())?;
        self.specimen = Some((long_from, sk));
        for (kind, socket) in specimens {
            // Without it, nothing is tried out.
            let Ok(sk) = sk_of(socket.as_fd()) else { continue };
            self.inet_specimens.push((kind, socket, sk));
        }
        Ok(listed)
    }

    /// Our pid namespace, and what all sockets have as their file operations.
    fn find_ourselves(&mut self, sk: u64) -> Result<(), MemoryError> {
        let l = &self.layout;
        let sock = self.sock_block(sk)?;
        let pid = sock.u64(l.sock_peer_pid)?;
        let block = self.read("our own pid", pid, l.pid)?;
        let level = block.u32(l.pid_level)?;
        if level > 64 {
            return Err(MemoryError::Senseless("our own pid namespace is deeper than any"));
        }
        let at = l.pid_numbers + l.upid * usize::try_from(level).unwrap_or_default();
        let number = self.read("our own pid", pid + long(at), l.upid)?;
        if number.u32(l.upid_number)?.cast_signed() != Pid::this().as_raw() {
            return Err(MemoryError::Senseless("our own pid is another one"));
        }
        let namespace = number.u64(l.upid_namespace)?;
        let socket = self.read("our own socket", sock.u64(l.sock_socket)?, l.socket)?;
        let file = self.read("our own file", socket.u64(l.socket_file)?, l.file)?;
        let operations = file.u64(l.file_operations)?;
        self.namespace = (namespace, level);
        self.socket_operations = operations;
        Ok(())
    }

    fn find_pages(&mut self, sk: u64, big: &[u8]) -> Result<(), MemoryError> {
        let fragments = self.fragments_of(sk)?;
        let Some(&(page, offset, length)) = fragments.first() else {
            return Err(MemoryError::Senseless("a long message has no pages"));
        };
        let behind: usize = fragments.iter().map(|(_, _, length)| length).sum();
        let start = big.len().checked_sub(behind);
        let known = start.and_then(|start| big.get(start..start + KNOWN.min(length)));
        let known = known.ok_or(MemoryError::Senseless("a long message has too many pages"))?;
        self.pages = Pages::find(self, page, offset, known, self.somewhere(sk)?)?;
        if self.pages.is_none() {
            return Ok(());
        }
        let whole: Vec<u8> = self.queue(sk)?.into_iter().flat_map(|m| m.data).collect();
        if whole == big {
            Ok(())
        } else {
            Err(MemoryError::Senseless("our own long message looks different"))
        }
    }
}

/// A new socket of this kind; `None` if this kernel has none, or would look for a module that makes it.
fn inet_specimen(kind: Over) -> Option<(Over, OwnedFd)> {
    let Over(protocol, family) = kind;
    if family == Family::V6 && !Path::new("/proc/self/net/if_inet6").exists() {
        return None;
    }
    let family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let of = if protocol.is_datagram() { SockType::Datagram } else { SockType::Stream };
    let made = socket(family, of, SockFlag::SOCK_CLOEXEC, None);
    made.ok().map(|socket| (kind, socket))
}

fn send(to: BorrowedFd<'_>, words: &[u8], with: &[ControlMessage<'_>]) -> Result<(), MemoryError> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let parts = [io::IoSlice::new(words)];
    let sent = sendmsg::<()>(to.as_raw_fd(), &parts, with, flags, None);
    match sent.map_err(call("send to ourselves"))? {
        length if length == words.len() => Ok(()),
        _ => Err(MemoryError::Senseless("our own message does not fit")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_messages_are_found_again() {
        let mut lister = Lister::load().expect("the iterator");
        let memory = Memory::prepare(&mut lister).expect("kernel memory that makes sense");
        assert!(memory.reads_pages());
    }
}
