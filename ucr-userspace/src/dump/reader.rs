//! Sockets' own states, read from the kernel's memory and, as far as it does not lie there, through duplicates of
//! the processes' descriptors.

use foldhash::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::sockopt::socket_cookie;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use ucr_common::descriptor::SocketDescriptor;

use super::{DumpError, owner_of as owner};
use crate::{
    model::UnixName,
    process::{
        files::BoundFile,
        state::SocketDetails,
        states::{States, Unknown},
    },
    snapshot::memory::{Memory, Sock},
};

/// Duplicates of processes' descriptors: a process is opened once.
#[derive(Default)]
pub(super) struct Duplicates(HashMap<u32, OwnedFd>);

impl Duplicates {
    /// A duplicate of a process's descriptor.
    pub(super) fn of(&mut self, descriptor: &SocketDescriptor) -> Result<OwnedFd, DumpError> {
        let (pid, fd) = owner(descriptor);
        let refused = |operation| {
            move |errno: rustix::io::Errno| DumpError::Duplicate {
                operation,
                pid,
                fd,
                source: errno.into(),
            }
        };
        let process = match self.0.entry(descriptor.pid) {
            std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::hash_map::Entry::Vacant(none) => {
                let raw = rustix::process::Pid::from_raw(pid.0).ok_or(DumpError::Duplicate {
                    operation: "open process",
                    pid,
                    fd,
                    source: std::io::ErrorKind::InvalidInput.into(),
                })?;
                none.insert(pidfd_open(raw, PidfdFlags::empty()).map_err(refused("open process"))?)
            }
        };
        let socket = pidfd_getfd(process, fd, PidfdGetfdFlags::empty())
            .map_err(refused("duplicate descriptor"))?;
        match socket_cookie(&socket) {
            Ok(cookie) if cookie == descriptor.socket.cookie => Ok(socket),
            Ok(_) | Err(_) => Err(DumpError::OtherSocket { pid, fd }),
        }
    }
}

/// Reads states.
pub(super) struct StateReader<'a> {
    states: States<'a>,
    duplicates: Duplicates,
    /// Files that sockets are bound to, by where the name is kept.
    files: HashMap<u64, Option<BoundFile>>,
}

impl<'a> StateReader<'a> {
    pub(super) fn new(memory: &'a Memory) -> Self {
        Self {
            states: States::new(memory),
            duplicates: Duplicates::default(),
            files: HashMap::default(),
        }
    }

    /// A duplicate of a process's descriptor.
    pub(super) fn duplicate(
        &mut self,
        descriptor: &SocketDescriptor,
    ) -> Result<OwnedFd, DumpError> {
        self.duplicates.of(descriptor)
    }

    /// What a socket says, and the file that it is bound to.
    pub(super) fn read(
        &mut self,
        descriptor: &SocketDescriptor,
        sock: &Sock,
    ) -> Result<(SocketDetails, Option<BoundFile>), DumpError> {
        let Self { states, duplicates, files } = self;
        Self::ask(states, files, descriptor, sock, || duplicates.of(descriptor))
    }

    /// The same of one that we have a descriptor of.
    pub(super) fn read_own(
        &mut self,
        descriptor: &SocketDescriptor,
        sock: &Sock,
        socket: &OwnedFd,
    ) -> Result<(SocketDetails, Option<BoundFile>), DumpError> {
        let (pid, fd) = owner(descriptor);
        let again = || {
            socket.try_clone().map_err(|source| DumpError::Duplicate {
                operation: "duplicate descriptor",
                pid,
                fd,
                source,
            })
        };
        Self::ask(&mut self.states, &mut self.files, descriptor, sock, again)
    }

    fn ask(
        states: &mut States<'_>,
        files: &mut HashMap<u64, Option<BoundFile>>,
        descriptor: &SocketDescriptor,
        sock: &Sock,
        mut reach: impl FnMut() -> Result<OwnedFd, DumpError>,
    ) -> Result<(SocketDetails, Option<BoundFile>), DumpError> {
        let (pid, fd) = owner(descriptor);
        let (details, socket) =
            states.read(sock, descriptor, &mut reach).map_err(|unknown| match unknown {
                Unknown::OutOfReach(error) => error,
                Unknown::Refused(source) => DumpError::State { pid, fd, source },
                Unknown::Senseless(error) => error.into(),
            })?;
        if let Some(known) = files.get(&sock.name_address()) {
            return Ok((details, known.clone()));
        }
        let file = match (&details.name, socket) {
            (UnixName::Pathname(_), Some(socket)) => BoundFile::of(socket.as_fd()),
            (UnixName::Pathname(_), None) => BoundFile::of(reach()?.as_fd()),
            _ => Ok(None),
        };
        let file = file.map_err(|source| DumpError::File { pid, fd, source })?;
        files.insert(sock.name_address(), file.clone());
        Ok((details, file))
    }
}
