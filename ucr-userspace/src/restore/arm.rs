//! Who is told of a socket's events by a signal (`F_SETOWN`, `F_SETSIG`, `O_ASYNC`): set as the last
//! thing of all, when the processes that take the place of the saved ones are there, and read back.
//!
//! A process of the image, its first thread, or a group that it led, becomes the process that takes
//! its place, or its group. Whoever else is told stays who it is, and has to be there.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{
    Pid as RawPid, getpgrp, getpid, setpgid, test_kill_process, test_kill_process_group,
};

use super::execute::Restored;
use super::plan::step::Step;
use crate::image::validate::STATUS_FLAGS;
use crate::image::{Image, Notification, Owner, SocketIndex};
use crate::model::Pid;
use crate::sys::notify::{self, OwnerEx};

/// Why somebody cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// There is no such process, thread or group.
    #[error("socket {} tells {owner} by a signal, which is gone", socket.0)]
    Gone {
        /// Which socket.
        socket: SocketIndex,
        /// Whom.
        owner: Owner,
    },
    /// The number belongs to somebody else, if to anybody.
    #[error("socket {} tells {owner} by a signal, which was one of another boot", socket.0)]
    OtherBoot {
        /// Which socket.
        socket: SocketIndex,
        /// Whom.
        owner: Owner,
    },
    /// The root's new process is in the group of somebody else.
    #[error(
        "socket {} tells {owner} by a signal, which the root led, and ucr leads no process group",
        socket.0
    )]
    NoLeader {
        /// Which socket.
        socket: SocketIndex,
        /// Whom.
        owner: Owner,
    },
}

impl OwnerError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Gone { .. } | Self::OtherBoot { .. } => {
                "dump the process that is told as well, with --tree, or take F_SETOWN away first"
            }
            Self::NoLeader { .. } => "start ucr restore with setsid, or from an interactive shell",
        }
    }
}

/// Why it is not set as it was.
#[derive(Debug, thiserror::Error)]
pub enum ArmError {
    /// A call of the system.
    #[error("{call} of socket {} (which tells {owner}) for", socket.0)]
    Call {
        /// Which one.
        call: &'static str,
        /// Which socket.
        socket: SocketIndex,
        /// Who is told.
        owner: Owner,
        /// What it says.
        #[source]
        source: io::Error,
    },
    /// It was set, and reading tells otherwise.
    #[error("read who is told of socket {}: wanted {wanted}, found {found}, for", socket.0)]
    Differs {
        /// Which socket.
        socket: SocketIndex,
        /// What was set.
        wanted: String,
        /// What is.
        found: String,
    },
}

/// Who takes the place of each saved process.
#[derive(Debug)]
pub struct People {
    new: HashMap<Pid, Pid>,
    root: Option<Pid>,
    /// They have their groups already.
    are_settled: bool,
}

impl People {
    /// The root, which is this process.
    #[must_use]
    pub fn of(image: &Image) -> Self {
        let root = image.processes.first().map(|process| process.pid);
        let own = Pid(getpid().as_raw_nonzero().get());
        let new = root.map(|root| (root, own)).into_iter().collect();
        Self { new, root, are_settled: false }
    }

    /// Processes that live: saved and new pid.
    #[must_use]
    pub fn living(people: impl IntoIterator<Item = (Pid, Pid)>) -> Self {
        Self { new: people.into_iter().collect(), root: None, are_settled: true }
    }

    /// Another one.
    pub fn add(&mut self, saved: Pid, new: i32) {
        self.new.insert(saved, Pid(new));
    }

    fn now(&self, owner: Owner) -> Owner {
        let now = |pid: Pid| self.new.get(&pid).copied().unwrap_or(pid);
        match owner {
            Owner::Nobody => Owner::Nobody,
            Owner::Thread(pid) => Owner::Thread(now(pid)),
            Owner::Process(pid) => Owner::Process(now(pid)),
            Owner::Group(pid) => Owner::Group(now(pid)),
        }
    }

    /// A child whose saved process led a group leads one, too.
    fn lead(&self, owner: Owner) -> io::Result<()> {
        match owner {
            Owner::Group(saved) if Some(saved) != self.root && !self.are_settled => {
                let child = self.new.get(&saved).and_then(|pid| RawPid::from_raw(pid.0));
                child.map_or(Ok(()), |child| Ok(setpgid(Some(child), Some(child))?))
            }
            _ => Ok(()),
        }
    }
}

fn raw(owner: Owner) -> OwnerEx {
    let (kind, pid) = match owner {
        Owner::Nobody => (notify::THREAD, 0),
        Owner::Thread(pid) => (notify::THREAD, pid.0),
        Owner::Process(pid) => (notify::PROCESS, pid.0),
        Owner::Group(pid) => (notify::GROUP, pid.0),
    };
    OwnerEx { kind, pid }
}

/// Everybody outside the image who is to be told and cannot be. `leads`: whether this process is to lead the group
/// that the saved root led.
#[must_use]
pub fn check(image: &Image, boot_id: &str, leads: bool) -> Vec<OwnerError> {
    let root = image.processes.first().map(|process| process.pid);
    let is_saved = |pid| image.processes.iter().any(|process| process.pid == pid);
    let told = (0..).map(SocketIndex).zip(&image.sockets);
    let told = told.filter_map(|(socket, saved)| Some((socket, saved.notification?.owner)));
    told.filter_map(|(socket, owner)| {
        let is_there = match owner {
            Owner::Nobody => return None,
            Owner::Group(pid) if leads && Some(pid) == root => {
                return (getpgrp() != getpid()).then_some(OwnerError::NoLeader { socket, owner });
            }
            Owner::Thread(pid) | Owner::Process(pid) | Owner::Group(pid) if is_saved(pid) => {
                return None;
            }
            _ if image.origin.boot_id != boot_id => {
                return Some(OwnerError::OtherBoot { socket, owner });
            }
            Owner::Thread(pid) | Owner::Process(pid) => {
                RawPid::from_raw(pid.0).map(test_kill_process)
            }
            Owner::Group(pid) => RawPid::from_raw(pid.0).map(test_kill_process_group),
        };
        // One that may not be sent a signal is there.
        let is_gone = matches!(is_there, None | Some(Err(rustix::io::Errno::SRCH)));
        is_gone.then_some(OwnerError::Gone { socket, owner })
    })
    .collect()
}

/// Sets owner and signal, and then the flags.
///
/// # Errors
///
/// The kernel's.
pub(super) fn set(
    socket: BorrowedFd<'_>,
    notification: Notification,
    flags: i32,
) -> io::Result<()> {
    notify::set(socket, raw(notification.owner), notification.signal)?;
    fcntl_setfl(socket, OFlags::from_bits_retain(flags.cast_unsigned()))?;
    Ok(())
}

/// From now on the signals that the sockets tell by do nothing to this process, nor to those that it
/// forks, until they run their programs.
pub(super) fn swallow(restored: &Restored) {
    for step in restored.arming() {
        if let Step::Notify { notification, .. } = step {
            notify::swallow(match notification.signal {
                0 => libc::SIGIO,
                signal => signal,
            });
        }
    }
}

/// Switches everything on.
///
/// # Errors
///
/// What the kernel refuses, and what is not as it was set.
pub fn arm(restored: &Restored, people: &People) -> Result<(), ArmError> {
    for step in restored.arming() {
        let Step::Notify { socket, notification, flags } = *step else { continue };
        let owner = notification.owner;
        let failed = |call| move |source| ArmError::Call { call, socket, owner, source };
        let found = restored.socket(socket).ok_or_else(|| io::ErrorKind::NotFound.into());
        let found = found.map_err(failed("find"))?;
        people.lead(owner).map_err(failed("setpgid for the owner"))?;
        let wanted = Notification { owner: people.now(owner), ..notification };
        set(found, wanted, flags).map_err(failed("fcntl F_SETSIG, F_SETOWN_EX, F_SETFL"))?;
        let (is, signal) = notify::get(found).map_err(failed("fcntl F_GETOWN_EX, F_GETSIG"))?;
        let flags_are =
            fcntl_getfl(found).map_err(|errno| failed("fcntl F_GETFL")(errno.into()))?;
        let flags_are = flags_are.bits().cast_signed() & STATUS_FLAGS;
        let wanted = (raw(wanted.owner), wanted.signal, flags);
        let is = (is, signal, flags_are);
        // Nobody is of no kind.
        let kind_is = |owner: OwnerEx| (owner.pid != 0).then_some(owner.kind);
        let same_owner = wanted.0.pid == is.0.pid && kind_is(wanted.0) == kind_is(is.0);
        if !same_owner || (wanted.1, wanted.2) != (is.1, is.2) {
            let (wanted, found) = (format!("{wanted:?}"), format!("{is:?}"));
            return Err(ArmError::Differs { socket, wanted, found });
        }
    }
    Ok(())
}
