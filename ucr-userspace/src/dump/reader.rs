//! Sockets' own states, read through duplicates of the processes' descriptors.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use ucr_common::descriptor::SocketDescriptor;

use super::DumpError;
use crate::{
    model::{Pid, SocketType, UnixName},
    process::{
        files::BoundFile,
        state::{Defaults, SocketDetails, read as read_state},
    },
};

/// Reads states through duplicates of a process's descriptors, one process and one new socket of
/// each type for all of them.
#[derive(Default)]
pub(super) struct StateReader {
    processes: HashMap<u32, OwnedFd>,
    defaults: HashMap<SocketType, Defaults>,
}

impl StateReader {
    /// A duplicate of a process's descriptor.
    pub(super) fn duplicate(
        &mut self,
        descriptor: &SocketDescriptor,
    ) -> Result<OwnedFd, DumpError> {
        let (pid, fd) = owner(descriptor);
        let refused = |operation| {
            move |errno: rustix::io::Errno| DumpError::Duplicate {
                operation,
                pid,
                fd,
                source: errno.into(),
            }
        };
        let process = match self.processes.entry(descriptor.pid) {
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
        pidfd_getfd(process, fd, PidfdGetfdFlags::empty()).map_err(refused("duplicate descriptor"))
    }

    /// What a socket says, and the file that it is bound to.
    pub(super) fn read(
        &mut self,
        descriptor: &SocketDescriptor,
        socket: BorrowedFd<'_>,
    ) -> Result<(SocketDetails, Option<BoundFile>), DumpError> {
        let (pid, fd) = owner(descriptor);
        let kind = i32::try_from(descriptor.socket_type).ok().and_then(SocketType::from_raw);
        let failed = |source| DumpError::State { pid, fd, source };
        let kind = kind.unwrap_or(SocketType::Stream);
        let defaults = match self.defaults.entry(kind) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(none) => {
                none.insert(Defaults::probe(kind).map_err(failed)?)
            }
        };
        let details = read_state(socket.as_fd(), defaults).map_err(failed)?;
        if details.cookie != descriptor.socket.cookie {
            return Err(DumpError::OtherSocket { pid, fd });
        }
        let asked = matches!(details.name, UnixName::Pathname(_));
        let file = if asked { BoundFile::of(socket.as_fd()) } else { Ok(None) };
        let file = file.map_err(|source| DumpError::File { pid, fd, source })?;
        Ok((details, file))
    }
}

fn owner(descriptor: &SocketDescriptor) -> (Pid, i32) {
    (Pid(descriptor.pid.cast_signed()), descriptor.fd.cast_signed())
}
