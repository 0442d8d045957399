//! Into processes that live: what stands at the descriptor numbers of an image is replaced.
//!
//! The new sockets are made while the old ones live, in this process. Files take the place of files
//! (`plan::in_place`). Then every process receives what it is to have and waits at one barrier; whoever
//! opens it, opens it for all, and from there each goes on by itself, also if nobody is left to watch
//! ([`crate::process::parasite`]). So there are either the old sockets or the new ones.

pub mod ahead;
mod place;
mod ports;
mod stale;
mod standing;

use std::collections::BTreeMap;
use std::io;

pub use self::place::{Placed, Unplaced, place};
pub use self::stale::{lock, stale};
pub use self::standing::{Descriptor, Standing, look};

use super::inside::Inside;
use crate::image::{Image, SocketIndex};
use crate::model::inet::Endpoint;
use crate::model::name::Escaped;
use crate::model::{Count, Pid};
use crate::process::freeze::Frozen;
use crate::process::parasite::{Known, Parasite, ParasiteError};
use crate::process::procfs::ProcError;
use crate::snapshot::descriptors::DescriptorError;
use crate::snapshot::diag::DiagError;

/// Memory for orders, in bytes: always, and for each descriptor and each registration of an event poll. (A call in a
/// list takes 72; each has some.)
const ROOM: usize = 64 * 1024;
const ROOM_EACH: usize = 512;
/// Descriptors that a process has for the calls that are made in it, at most: a row of pairs, or of sockets that connect.
const SPARE: u64 = 64;

/// A process of the image, and the one that gets its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its pid in the image.
    pub saved: Pid,
    /// The live process.
    pub pid: Pid,
}

/// Why sockets cannot be replaced in a live process.
#[derive(Debug, thiserror::Error)]
pub enum IntoError {
    /// Its port can be had by one socket only.
    #[error(
        "socket {} is a netlink socket: its port is not free as long as the one that it replaces lives",
        socket.0
    )]
    Netlink {
        /// Which socket.
        socket: SocketIndex,
    },
    /// The kernel would choose between the new ones and the old ones.
    #[error("socket {} shares {} with others (SO_REUSEPORT or SO_REUSEADDR)", socket.0, local)]
    Shares {
        /// Which socket.
        socket: SocketIndex,
        /// Its address.
        local: Endpoint,
    },
    /// They can be let in by the old one only.
    #[error("{} at socket {} ({local}), which the program has not accepted", Count(*count, "connection"), socket.0)]
    Waited {
        /// Which socket.
        socket: SocketIndex,
        /// Its address.
        local: Endpoint,
        /// How many.
        count: usize,
    },
    /// The image is not what the socket is any more.
    #[error(
        "descriptor {fd} of process {pid} has sent or received something since the image was made"
    )]
    Stale {
        /// Whose.
        pid: Pid,
        /// Which.
        fd: i32,
    },
    /// It has the address that the image's is to have.
    #[error(
        "descriptor {fd} of process {pid} is another socket than when the image was made, and has its address, {local}"
    )]
    Replaced {
        /// Whose.
        pid: Pid,
        /// Which.
        fd: i32,
        /// The address.
        local: Endpoint,
    },
    /// It could not be looked at.
    #[error("read the state of the socket at descriptor {fd} of process {pid}")]
    State {
        /// Whose.
        pid: Pid,
        /// Which.
        fd: i32,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is asked of the kernel to find out.
    #[error("find out who else has the ports of the sockets")]
    Ports(#[from] DiagError),
    /// There is no such descriptor.
    #[error("descriptor {fd} of process {pid} is not open: there is nothing to replace")]
    NotOpen {
        /// Whose.
        pid: Pid,
        /// Which.
        fd: i32,
    },
    /// It is no socket.
    #[error("descriptor {fd} of process {pid} is no socket but {}", Escaped(what))]
    NoSocket {
        /// Whose.
        pid: Pid,
        /// Which.
        fd: i32,
        /// What it is, as the kernel calls it.
        what: Vec<u8>,
    },
    /// The old one would live on.
    #[error(
        "descriptor {fd} of process {pid} is a socket that is to be replaced elsewhere, and the image has none for it"
    )]
    HeldAlso {
        /// Whose.
        pid: Pid,
        /// Which.
        fd: i32,
    },
    /// Two sockets of the image for one that lives.
    #[error(
        "descriptor {fd} of process {pid} is one socket with others that the image has as several"
    )]
    Shared {
        /// Whose.
        pid: Pid,
        /// Which.
        fd: i32,
    },
    /// They cannot all be made at once.
    #[error(
        "descriptor {fd} of process {pid} is a socket of another network namespace than others that are to be replaced"
    )]
    Namespaces {
        /// Whose.
        pid: Pid,
        /// Which.
        fd: i32,
    },
    /// Nobody is there by whom it could be entered.
    #[error(
        "descriptor {fd} of process {pid} is a socket of a network namespace that the process has left"
    )]
    Left {
        /// Whose.
        pid: Pid,
        /// Which.
        fd: i32,
    },
    /// A thread has descriptors of its own.
    #[error("thread {thread} of process {pid} has a table of descriptors of its own")]
    OwnTable {
        /// Which process.
        pid: Pid,
        /// Which thread.
        thread: Pid,
    },
    /// Requests may hold sockets that no descriptor leads to.
    #[error(
        "descriptor {fd} of process {pid} is an io_uring, whose requests and files may hold the old sockets"
    )]
    Ring {
        /// Whose.
        pid: Pid,
        /// Which.
        fd: i32,
    },
    /// It waits to be armed again, and no registration begins so.
    #[error(
        "event poll {poll} of process {pid} has told once of descriptor {fd} and is to be told when to do so \
         again (EPOLLONESHOT): no new registration begins like that"
    )]
    Spent {
        /// Whose.
        pid: Pid,
        /// Which event poll.
        poll: i32,
        /// The number that it was registered under.
        fd: i32,
    },
    /// The number leads elsewhere by now.
    #[error(
        "event poll {poll} of process {pid} watches a socket by the number {fd}, which leads elsewhere by now"
    )]
    Elsewhere {
        /// Whose.
        pid: Pid,
        /// Which event poll.
        poll: i32,
        /// The number that it was registered under.
        fd: i32,
    },
    /// The process makes no calls for us.
    #[error(transparent)]
    Parasite(#[from] ParasiteError),
    /// `/proc` could not be read.
    #[error(transparent)]
    Proc(#[from] ProcError),
    /// Descriptors could not be listed.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// A link of `/proc` could not be read.
    #[error("read what descriptor {fd} of process {pid} is")]
    Look {
        /// Whose.
        pid: Pid,
        /// Which.
        fd: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl IntoError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Netlink { .. } | Self::Shares { .. } => Some(
                "ucr does not replace such a socket in a live process; dump --kill and restore do",
            ),
            Self::Waited { .. } => Some("try again when it has"),
            Self::NotOpen { .. }
            | Self::NoSocket { .. }
            | Self::HeldAlso { .. }
            | Self::Replaced { .. }
            | Self::Shared { .. } => {
                Some("the process has changed since the image was made: dump it again")
            }
            Self::Stale { .. } => {
                Some("dump it again; with --leave-stopped its TCP connections are locked meanwhile")
            }
            Self::Spent { .. } => {
                Some("try again: it is armed again when the program has seen to it")
            }
            Self::Parasite(error) => error.hint(),
            _ => None,
        }
    }
}

/// Enters every process, so that it makes calls.
///
/// # Errors
///
/// The first that cannot be entered; all are as they were.
pub fn enter(
    frozen: &mut Frozen,
    targets: &[Target],
    standing: &Standing,
    known: &mut Known,
) -> Result<BTreeMap<Pid, Inside>, IntoError> {
    let mut entered = BTreeMap::new();
    for target in targets {
        let size = standing.size_of(target.pid);
        let room = ROOM + ROOM_EACH * size;
        let numbers = standing.numbers_of(target.pid) + SPARE;
        let parasite = Parasite::enter(frozen, target.pid, room, numbers, known)?;
        entered.insert(target.saved, Inside::new(parasite)?);
    }
    Ok(entered)
}

/// Whether a socket of the image is left to whoever has it.
fn kept(image: &Image) -> impl Fn(SocketIndex) -> bool + use<> {
    let kept: std::collections::BTreeSet<_> =
        image.connections.iter().filter_map(crate::image::Connection::kept).collect();
    move |socket| kept.contains(&socket)
}
