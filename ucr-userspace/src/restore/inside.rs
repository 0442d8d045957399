//! A live process that is to get sockets, and makes those calls itself that others will know it by.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use super::identity::same_groups;
use super::plan::step::Identity;
use crate::kernel::netns;
use crate::model::Pid;
use crate::model::inet::{Family, Protocol};
use crate::process::inet;
use crate::process::parasite::{Else, File, Parasite, ParasiteError};
use crate::process::procfs::{self, ProcError};
use crate::sys::addr;
use crate::sys::worker::{Call, Ends};

/// Such a process.
#[derive(Debug)]
pub struct Inside {
    parasite: Parasite,
    /// Effective user, group, and groups.
    ids: (u32, u32, Vec<u32>),
}

fn other(error: ParasiteError) -> io::Error {
    match error {
        ParasiteError::Refused { source, .. } => source,
        error => io::Error::other(error),
    }
}

impl Inside {
    /// One that is stopped and entered.
    ///
    /// # Errors
    ///
    /// `/proc` does not tell who it is.
    pub fn new(parasite: Parasite) -> Result<Self, ProcError> {
        let ids = procfs::ids(parasite.pid())?;
        Ok(Self { parasite, ids })
    }

    /// Its pid, now.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.parasite.pid()
    }

    /// What makes calls in it.
    #[must_use]
    pub fn into_parasite(self) -> Parasite {
        self.parasite
    }

    /// Whether it is in the network namespace that we are in.
    pub(super) fn is_in_our_network(&self) -> bool {
        let of = |path: &str| fs::metadata(path).map(|facts| facts.ino()).ok();
        let theirs = of(&format!("/proc/{}/ns/net", self.pid()));
        theirs.is_some() && theirs == of(netns::OWN)
    }

    /// A duplicate of one of its descriptors.
    pub(super) fn duplicate(&self, fd: i32) -> io::Result<OwnedFd> {
        self.parasite.duplicate(fd).map_err(other)
    }

    /// Whether what it calls now is seen under these ids.
    pub(super) fn is(&self, wanted: &Identity) -> bool {
        let (uid, gid, groups) = &self.ids;
        let in_groups = |wanted: &Vec<u32>| same_groups(wanted, groups);
        (*uid, *gid) == (wanted.uid, wanted.gid) && wanted.groups.as_ref().is_none_or(in_groups)
    }

    /// Makes a call. `None`: it cannot reach what it is to connect to, and nothing was done.
    pub(super) fn make(&mut self, call: Call<'_>) -> io::Result<Option<Vec<Ends>>> {
        match call {
            Call::Listen(socket, backlog) => {
                self.listen(socket, backlog).map(|()| Some(Vec::new()))
            }
            Call::Connect(clients, name, file) => {
                Ok(self.connect(clients, name, file)?.then(Vec::new))
            }
            Call::Pairs(socket_type, count) => self.pairs(socket_type, count).map(Some),
        }
    }

    fn listen(&mut self, socket: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
        let parasite = &mut self.parasite;
        let mut order = parasite.order();
        let received = order.receive(parasite.channel(), 1);
        let mut listen = None;
        for socket in received {
            let backlog = i64::from(backlog).cast_unsigned();
            listen = Some(order.call(libc::SYS_listen, socket, &[backlog], Else::GoOn));
            order.close(socket);
        }
        let results = parasite.perform(&mut order, &[vec![socket]]).map_err(other)?;
        self.succeeded("listen", &results, listen)
    }

    fn succeeded(&self, call: &'static str, results: &[i64], at: Option<usize>) -> io::Result<()> {
        // One that was not made: it had no room for a descriptor.
        let full = -i64::from(libc::EMFILE);
        let result = at.and_then(|at| results.get(at)).copied().unwrap_or(full);
        self.parasite.check(call, result).map(drop).map_err(other)
    }

    fn connect(
        &mut self,
        clients: &[BorrowedFd<'_>],
        name: &[u8],
        file: Option<BorrowedFd<'_>>,
    ) -> io::Result<bool> {
        let parasite = &mut self.parasite;
        let mut order = parasite.order();
        let sent: Vec<_> = clients.iter().copied().chain(file).collect();
        let received = order.receive(parasite.channel(), sent.len());
        parasite.perform(&mut order, &[sent]).map_err(other)?;
        let mut name = name.to_vec();
        if file.is_some() {
            let last = received.last().copied().into_iter().collect::<Vec<_>>();
            let number = parasite.numbers(&last).map_err(other)?.first().copied().unwrap_or(-1);
            name = format!("/proc/self/fd/{number}").into_bytes();
        }
        let (address, length) = addr::bytes(&name)?;
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
        let address = order.put(address.get(..length).unwrap_or_default());
        let length = u64::try_from(length).unwrap_or_default();
        let mut calls = Vec::new();
        for client in received.iter().take(clients.len()) {
            calls.push(order.call(libc::SYS_connect, *client, &[address, length], Else::Stop));
        }
        let results = parasite.perform(&mut order, &[]).map_err(other)?;
        received.iter().for_each(|file| order.close(*file));
        parasite.perform(&mut order, &[]).map_err(other)?;
        // It may have no /proc, a root directory from which nothing is reached, or may not (AppArmor).
        let first = results.first().map(|result| -result).and_then(|e| i32::try_from(e).ok());
        if file.is_some()
            && matches!(first, Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES | libc::EPERM))
        {
            return Ok(false);
        }
        calls.into_iter().try_for_each(|at| self.succeeded("connect", &results, Some(at)))?;
        Ok(true)
    }

    /// New internet sockets.
    pub(super) fn sockets(&mut self, kinds: &[(Family, Protocol)]) -> io::Result<Vec<OwnedFd>> {
        let parasite = &mut self.parasite;
        let (mut order, mut calls) = (parasite.order(), Vec::new());
        for (family, protocol) in kinds {
            let (domain, kind, protocol) = inet::arguments(*family, *protocol);
            let kind = (kind | libc::SOCK_CLOEXEC).cast_unsigned();
            let rest = [u64::from(kind), u64::from(protocol.cast_unsigned())];
            calls.push(order.open(libc::SYS_socket, domain, &rest, Else::Stop));
        }
        let results = parasite.perform(&mut order, &[]).map_err(other)?;
        let files: Vec<File> = calls.iter().map(|call| order.opened(*call)).collect();
        let numbers = parasite.numbers(&files).map_err(other)?;
        let made = numbers.iter().filter(|number| **number >= 0);
        let made: Vec<_> = made.map(|number| parasite.duplicate(*number).map_err(other)).collect();
        files.iter().for_each(|file| order.close(*file));
        parasite.perform(&mut order, &[]).map_err(other)?;
        calls.into_iter().try_for_each(|at| self.succeeded("socket", &results, Some(at)))?;
        made.into_iter().collect()
    }

    fn pairs(&mut self, socket_type: i32, count: usize) -> io::Result<Vec<Ends>> {
        let parasite = &mut self.parasite;
        let mut order = parasite.order();
        let kind = (socket_type | libc::SOCK_CLOEXEC).cast_unsigned();
        let mut ends = Vec::new();
        let mut calls = Vec::new();
        for _ in 0..count {
            let at = order.put(&[0xff; 8]);
            for end in [File::At(at), File::At(at + 4)] {
                order.close_finally(end);
                ends.push(end);
            }
            let rest = [u64::from(kind), 0, at];
            let family = File::Number(libc::AF_UNIX);
            calls.push(order.call(libc::SYS_socketpair, family, &rest, Else::Stop));
        }
        let results = parasite.perform(&mut order, &[]).map_err(other)?;
        let numbers = parasite.numbers(&ends).map_err(other)?;
        let made: Result<Vec<_>, _> = numbers
            .chunks_exact(2)
            .filter(|pair| !pair.contains(&-1))
            .map(|pair| {
                let take = |number: Option<&i32>| {
                    parasite.duplicate(number.copied().unwrap_or(-1)).map_err(other)
                };
                Ok::<_, io::Error>((take(pair.first())?, take(pair.last())?))
            })
            .collect();
        ends.iter().for_each(|end| order.close(*end));
        parasite.perform(&mut order, &[]).map_err(other)?;
        calls.into_iter().try_for_each(|at| self.succeeded("socketpair", &results, Some(at)))?;
        made
    }
}
