//! What a restore needs of processes that are not in the image: sockets and files that they have, and names
//! at which they answer.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType as Kind, socket_with};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::execute::{Restored, StepError};
use super::files::through_proc;
use super::names::Here;
use super::plan::Plan;
use super::plan::step::{Holder, Place, Step};
use crate::image::{Connection, ForeignFile, Image, Passed, SocketIndex};
use crate::model::name::Escaped;
use crate::model::{Pid, SocketState, SocketType, UnixName};
use crate::process::beneath;
use crate::sys::addr;

/// What is to be taken from a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A socket of the image, as it is.
    Socket(SocketIndex),
    /// A file in a message that this socket is to receive.
    File(ForeignFile, SocketIndex),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(index) => write!(f, "socket {}", index.0),
            Self::File(file, receiver) => {
                write!(f, "{}, in flight to socket {},", Escaped(&file.name), receiver.0)
            }
        }
    }
}

/// Why something cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// Pids and cookies mean something only within one boot.
    #[error(
        "{wanted} is to be taken from process {pid} (descriptor {fd}), which was one of another boot"
    )]
    OtherBoot {
        /// What.
        wanted: Wanted,
        /// Whose.
        pid: Pid,
        /// Which of its descriptors.
        fd: RawFd,
    },
    /// The process, or its descriptor, or the right to have it.
    #[error("{wanted} is to be taken from process {pid} (descriptor {fd}): {operation}: {source}")]
    Unreachable {
        /// What.
        wanted: Wanted,
        /// Whose.
        pid: Pid,
        /// Which of its descriptors.
        fd: RawFd,
        /// What was tried.
        operation: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The descriptor leads elsewhere by now.
    #[error(
        "{wanted} is to be taken from process {pid}, whose descriptor {fd} leads to something else now"
    )]
    Other {
        /// What.
        wanted: Wanted,
        /// Whose.
        pid: Pid,
        /// Which of its descriptors.
        fd: RawFd,
    },
    /// Nobody answers at a name.
    #[error("socket {} is to be connected anew to {place}: {reason}", socket.0)]
    Nobody {
        /// Which socket.
        socket: SocketIndex,
        /// To whom.
        place: Place,
        /// Why not.
        reason: String,
    },
}

impl OutsideError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::OtherBoot { .. } | Self::Other { .. } => {
                "what was left to another process is gone with it; dump again, with it or without"
            }
            Self::Unreachable { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                "run it as root, or with CAP_SYS_PTRACE"
            }
            Self::Unreachable { .. } => {
                "the process has to live and to hold it until the restore; dump again, with it or without"
            }
            Self::Nobody { .. } => "start the server first, or dump with --external dangling",
        }
    }
}

/// Looks for all that is to be taken, and for all who are to be connected to; nothing is changed, and the
/// servers do not notice.
#[must_use]
pub fn check(plan: &Plan, image: &Image, here: Here<'_>) -> Vec<OutsideError> {
    let is_same_boot = !image.origin.boot_id.is_empty() && image.origin.boot_id == here.boot_id;
    let mut errors = Vec::new();
    for step in &plan.steps {
        match step {
            &Step::Keep { socket, pid, fd } => {
                let wanted = Wanted::Socket(socket);
                if is_same_boot {
                    errors.extend(socket_of(image, socket, pid, fd).err());
                } else {
                    errors.push(OutsideError::OtherBoot { wanted, pid, fd });
                }
            }
            Step::Reconnect { socket, place } => {
                let socket_type = image.sockets.get(socket.get()).map(|s| s.socket_type);
                let socket_type = socket_type.unwrap_or_default();
                if let Err(reason) = answers(place, socket_type, plan.beneath.as_deref(), here) {
                    let (socket, place) = (*socket, place.clone());
                    errors.push(OutsideError::Nobody { socket, place, reason });
                }
            }
            _ => {}
        }
    }
    let kept: HashSet<_> = image.connections.iter().filter_map(Connection::kept).collect();
    for (receiver, socket) in (0..).map(SocketIndex).zip(&image.sockets) {
        for passed in socket.queue.iter().flat_map(|message| &message.files) {
            let Passed::File(file) = passed else { continue };
            let (pid, fd) = file.holder;
            let wanted = Wanted::File(file.clone(), receiver);
            if kept.contains(&receiver) {
                continue;
            } else if is_same_boot {
                errors.extend(file_of(file, receiver).err());
            } else {
                errors.push(OutsideError::OtherBoot { wanted, pid, fd });
            }
        }
    }
    errors
}

/// A descriptor of a process, and a duplicate of what is behind it.
fn take(wanted: &Wanted, pid: Pid, fd: RawFd) -> Result<OwnedFd, OutsideError> {
    let refused = |operation| {
        let wanted = wanted.clone();
        move |errno: Errno| {
            let source = errno.into();
            OutsideError::Unreachable { wanted, pid, fd, operation, source }
        }
    };
    let raw = rustix::process::Pid::from_raw(pid.0).ok_or(Errno::SRCH);
    let process = raw.and_then(|raw| pidfd_open(raw, PidfdFlags::empty()));
    let process = process.map_err(refused("open the process"))?;
    pidfd_getfd(process, fd, PidfdGetfdFlags::empty()).map_err(refused("duplicate the descriptor"))
}

/// A socket of the image, taken from a process that has it, if it is the very one.
fn socket_of(
    image: &Image,
    socket: SocketIndex,
    pid: Pid,
    fd: RawFd,
) -> Result<OwnedFd, OutsideError> {
    let wanted = Wanted::Socket(socket);
    let taken = take(&wanted, pid, fd)?;
    let saved = image.sockets.get(socket.get()).map(|saved| saved.cookie);
    match rustix::net::sockopt::socket_cookie(&taken) {
        Ok(cookie) if saved == Some(cookie) => Ok(taken),
        _ => Err(OutsideError::Other { wanted, pid, fd }),
    }
}

/// A file in flight, taken from a process that has it, if it is that file.
pub(super) fn file_of(file: &ForeignFile, receiver: SocketIndex) -> Result<OwnedFd, OutsideError> {
    let (pid, fd) = file.holder;
    let wanted = Wanted::File(file.clone(), receiver);
    let taken = take(&wanted, pid, fd)?;
    let facts = rustix::fs::fstat(&taken);
    let is_inode = facts.is_ok_and(|f| (f.st_dev, f.st_ino) == (file.device, file.inode));
    // All event counters, timers and the like have one inode; a path may have changed.
    let name = std::fs::read_link(format!("/proc/self/fd/{}", taken.as_raw_fd()));
    let is_called = file.name.starts_with(b"/")
        || name.is_ok_and(|name| name.as_os_str().as_encoded_bytes() == file.name);
    if is_inode && is_called { Ok(taken) } else { Err(OutsideError::Other { wanted, pid, fd }) }
}

/// Whether somebody is there to be connected to. Asked so that nobody notices: of a path, by a datagram
/// socket that connects (see [`super::names`]).
fn answers(
    place: &Place,
    socket_type: SocketType,
    beneath: Option<&[u8]>,
    here: Here<'_>,
) -> Result<(), String> {
    let is_datagram = socket_type == SocketType::Dgram;
    let nobody = || "nobody answers there".to_owned();
    let Some(path) = place.path() else {
        let is_it = |name: &UnixName, state| {
            *name == place.name && (is_datagram || state == SocketState::Listening)
        };
        let mut all = here.view.sockets.values();
        let found = all.any(|s| s.socket_type == socket_type && is_it(&s.name, s.state));
        return found.then_some(()).ok_or_else(nobody);
    };
    let file = beneath::anything(beneath, &path).map_err(|error| error.to_string())?;
    let probe = socket_with(AddressFamily::UNIX, Kind::DGRAM, SocketFlags::CLOEXEC, None);
    let probe = probe.map_err(|error| error.to_string())?;
    match (addr::connect(probe.as_fd(), &through_proc(&file)), is_datagram) {
        (Ok(()), true) => Ok(()),
        (Ok(()), false) => Err("a datagram socket is there".to_owned()),
        (Err(error), _) => match (error.raw_os_error(), is_datagram) {
            // Another type, or a datagram socket that has a peer.
            (Some(libc::EPROTOTYPE), false) => Ok(()),
            (Some(libc::EPROTOTYPE), true) => Err("it is no datagram socket".to_owned()),
            (Some(libc::EPERM), _) => Err("it has another peer".to_owned()),
            (Some(libc::ECONNREFUSED), _) => Err(nobody()),
            _ => Err(error.to_string()),
        },
    }
}

impl Restored {
    /// Takes a socket from a process that has it, if it is the very one.
    pub(super) fn take_over(
        &mut self,
        image: &Image,
        socket: SocketIndex,
        pid: Pid,
        fd: RawFd,
    ) -> Result<(), StepError> {
        let taken = socket_of(image, socket, pid, fd).map_err(|error| StepError::Call {
            call: "take it over",
            source: io::Error::other(error),
        })?;
        self.keep(Holder::Saved(socket), taken)
    }
}
