//! Why a socket cannot be dumped, by name. All of them are gathered before a dump is refused.

use std::{collections::HashSet, fmt};

use serde::Serialize;

use super::stranger::Stranger;
use crate::model::{
    Count, Pid, Shutdown, UnixName,
    inet::{Endpoint, TcpState},
    name::{Escaped, exact},
};

/// One reason at one descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// Whose descriptor.
    pub pid: Pid,
    /// Its number.
    pub fd: i32,
    /// The socket's inode.
    pub inode: u32,
    /// What is in the way.
    #[serde(flatten)]
    pub reason: Reason,
}

impl Obstacle {
    /// Whether it goes away by itself when the program goes on: somebody outside waits to be let in, has just left,
    /// or looks.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match &self.reason {
            Reason::Waiting { .. }
            | Reason::RemoteWaiting { .. }
            | Reason::WaitingIn { .. }
            | Reason::ClosedMeanwhile
            // Whoever looks at a process's descriptors holds one for a moment.
            | Reason::HeldElsewhere { .. } => true,
            _ => false,
        }
    }

    /// Whether another ucr holds the socket, or whoever sets back what one had changed that was killed. One who has ended
    /// while he was looked for is nobody that can be named.
    fn is_of_ucr(&self) -> bool {
        match &self.reason {
            Reason::SharedOutside { holders } => {
                holders.iter().all(|holder| ["ucr", "?"].contains(&holder.comm.as_str()))
            }
            Reason::HeldElsewhere { .. } => true,
            _ => false,
        }
    }
}

/// Whether sockets may be in the hands of a ucr for a moment, and nothing is in the way that would stay when it has let
/// go of them. As long as it has them they may be set differently: what was read of them is nothing to build on.
#[must_use]
pub fn are_of_ucr(obstacles: &[Obstacle]) -> bool {
    let of_ucr = obstacles.iter().filter(|obstacle| obstacle.is_of_ucr());
    let sockets: HashSet<u32> = of_ucr.map(|obstacle| obstacle.inode).collect();
    let goes_with_it = |obstacle: &Obstacle| {
        let is_set = matches!(obstacle.reason, Reason::Setting { .. });
        obstacle.is_passing() || obstacle.is_of_ucr() || is_set && sockets.contains(&obstacle.inode)
    };
    !sockets.is_empty() && obstacles.iter().all(goes_with_it)
}

/// What is in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// Of a family, a type or a protocol that is not dumped.
    Family {
        /// `AF_*`.
        family: u32,
        /// `SOCK_*`.
        socket_type: u32,
        /// `SO_PROTOCOL`.
        protocol: i32,
    },
    /// The descriptor is one of a thread that has a descriptor table of its own.
    OwnTable {
        /// The thread.
        thread: Pid,
    },
    /// A listener has connections that it has not accepted.
    Waiting {
        /// How many.
        connections: u32,
        /// Whose: the holders of the connecting ends.
        clients: Vec<Party>,
    },
    /// A TCP listener has a connection that it has not accepted, and whose other end is not dumped.
    RemoteWaiting {
        /// That end.
        #[serde(serialize_with = "shown")]
        remote: Endpoint,
    },
    /// A TCP listener has a connection that it has not accepted, and that cannot be made again.
    WaitingIn {
        /// The other end, which is dumped.
        #[serde(serialize_with = "shown")]
        remote: Endpoint,
        /// The state of the end that waits.
        state: TcpState,
    },
    /// A TCP connection whose end would not go unnoticed.
    Connection {
        /// This end.
        #[serde(serialize_with = "shown")]
        local: Endpoint,
        /// The other end.
        #[serde(serialize_with = "shown")]
        remote: Endpoint,
        /// Its state.
        state: TcpState,
        /// What was tried and refused.
        why: String,
    },
    /// Its connection has not been accepted.
    NotAccepted {
        /// The holders of the listener.
        listener: Vec<Party>,
    },
    /// The peer belongs to a process that is not dumped.
    ExternalPeer {
        /// The peer's inode.
        peer: u32,
        /// The peer's name.
        #[serde(serialize_with = "exact")]
        name: UnixName,
        /// Who holds it.
        holders: Vec<Party>,
    },
    /// Datagram sockets of processes that are not dumped are connected to it.
    ExternalSenders {
        /// Who holds them.
        holders: Vec<Party>,
    },
    /// Processes that are not dumped hold the same socket.
    SharedOutside {
        /// Who.
        holders: Vec<Party>,
    },
    /// Something that is no process's descriptor holds it: a message in flight, or io_uring.
    HeldElsewhere {
        /// References to its file that nothing explains.
        references: u64,
    },
    /// Another process shares the whole descriptor table (`CLONE_FILES`).
    SharedTable {
        /// Tasks that share it.
        users: u32,
        /// How many of them are threads of this process.
        threads: usize,
    },
    /// It lives in another network namespace than its process.
    OtherNamespace {
        /// Inode number of that namespace.
        netns: u32,
    },
    /// It is bound to a path, and its process has another mount namespace than ucr.
    OtherMounts {
        /// The name.
        #[serde(serialize_with = "exact")]
        name: UnixName,
    },
    /// It is bound to a path, and its process has a root directory that ucr cannot reach.
    OtherRoot {
        /// The name.
        #[serde(serialize_with = "exact")]
        name: UnixName,
    },
    /// Its socket file is neither under its name nor where the kernel says that it is.
    Moved {
        /// The name.
        #[serde(serialize_with = "exact")]
        name: UnixName,
        /// What the kernel calls the file, safe to show.
        now: String,
    },
    /// Its socket file has other names besides.
    Linked {
        /// The name.
        #[serde(serialize_with = "exact")]
        name: UnixName,
        /// How many in all.
        links: u32,
    },
    /// What it and its peer have shut down is not each other's mirror image.
    OneSidedShutdown {
        /// Its own.
        own: Shutdown,
        /// Its peer's.
        peer: Shutdown,
    },
    /// It is bound to a relative path, and nobody knows any more relative to what.
    UnknownDirectory {
        /// The name.
        #[serde(serialize_with = "exact")]
        name: UnixName,
    },
    /// A setting that cannot be given to another socket.
    Setting {
        /// Which, with its value.
        setting: String,
    },
    /// A message that it is to receive carries an open file that is no unix socket.
    FileInFlight {
        /// What `/proc` calls it, safe to show.
        name: String,
    },
    /// A message on a connection that was not accepted yet carries a socket that nobody else has.
    SocketOutOfReach,
    /// Its peer, which is not dumped, has closed while it was being read.
    ClosedMeanwhile,
    /// It is to be connected anew, and its peer has no name, or it is the end that was accepted.
    NobodyToReconnect {
        /// The peer's name.
        #[serde(serialize_with = "exact")]
        name: UnixName,
    },
    /// It is to be connected anew, which would lose what it has not received.
    LostQueue {
        /// How much.
        bytes: usize,
    },
    /// It is to be taken over as it is, and nobody has it any more.
    NobodyKeeps,
    /// It is to be taken over as it is, and what waits at it carries sockets that no descriptor leads to.
    KeptWithSockets,
    /// sock_diag does not report it, so what it is connected to cannot be known.
    NotReported,
}

/// A process that has to do with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Party {
    /// Process.
    pub pid: Pid,
    /// Its command, safe to show.
    pub comm: String,
    /// Its descriptor.
    pub fd: u32,
}

impl Party {
    /// From raw bytes.
    #[must_use]
    pub fn new(pid: Pid, comm: &[u8], fd: u32) -> Self {
        Self { pid, comm: Escaped(comm).to_string(), fd }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) fd {}", self.pid, self.comm, self.fd)
    }
}

/// As it is shown.
fn shown<S: serde::Serializer>(endpoint: &Endpoint, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(endpoint)
}

/// A list of parties in a sentence.
struct Parties<'a>(&'a [Party]);

impl fmt::Display for Parties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        if self.0.is_empty() {
            return f.write_str("no process that can be seen");
        }
        f.write_str("pid ")?;
        for (index, party) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{party}", if index == 0 { "" } else { ", pid " })?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} fd {} (inode {}): {}", self.pid, self.fd, self.inode, self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Family { family, socket_type, protocol } => {
                Stranger { family: *family, socket_type: *socket_type, protocol: *protocol }.fmt(f)
            }
            Self::OwnTable { thread } => {
                write!(f, "thread {thread} has a descriptor table of its own")
            }
            Self::Waiting { connections, clients } => write!(
                f,
                "{} not accepted yet, from {}",
                Count(*connections, "connection"),
                Parties(clients)
            ),
            Self::RemoteWaiting { remote } => {
                write!(f, "it has not accepted a connection from {remote}, which is not dumped")
            }
            Self::WaitingIn { remote, state } => write!(
                f,
                "it has not accepted a connection from {remote}, which cannot be made again: the end that waits is in \
                 state {state}, or what came does not go with what was sent"
            ),
            Self::Connection { local, remote, state, why } => write!(
                f,
                "a TCP connection over IPv6 ({local} with {remote}, {state}): when its process has ended, \
                 the kernel would answer the other end with a reset ({why})"
            ),
            Self::NotAccepted { listener } => {
                write!(f, "its connection waits to be accepted by {}", Parties(listener))
            }
            Self::ExternalPeer { peer, name, holders } => write!(
                f,
                "its peer (inode {peer}, name {name}) is held by {}, which is not dumped",
                Parties(holders)
            ),
            Self::ExternalSenders { holders } => write!(
                f,
                "it is the peer of datagram sockets held by {}, which is not dumped",
                Parties(holders)
            ),
            Self::SharedOutside { holders } => {
                write!(f, "it is also held by {}, which is not dumped", Parties(holders))
            }
            Self::HeldElsewhere { references } => write!(
                f,
                "{} more than descriptors: a message in flight or io_uring holds it",
                Count(*references, "reference")
            ),
            Self::SharedTable { users, threads } => write!(
                f,
                "its descriptor table is shared by {users} tasks, and only {threads} of them are \
                 threads of this process"
            ),
            Self::OtherNamespace { netns } => {
                write!(f, "it lives in network namespace {netns}, its process in another one")
            }
            Self::OtherMounts { name } => write!(
                f,
                "it is bound to {name}, and its process has another mount namespace than ucr, in which \
                 that path leads elsewhere"
            ),
            Self::OtherRoot { name } => write!(
                f,
                "it is bound to {name}, and its process has a root directory that no path of ucr's \
                 leads to"
            ),
            Self::Moved { name, now } => write!(
                f,
                "its socket file {name} has been renamed, and is not where the kernel says ({now}): it \
                 lies under a name that was linked to it, which the kernel does not tell, or below a mount"
            ),
            Self::Linked { name, links } => write!(
                f,
                "its socket file {name} has {links} names, and the kernel does not tell the others"
            ),
            Self::OneSidedShutdown { own, peer } => write!(
                f,
                "what it has shut down ({own}) does not mirror its peer's ({peer}): it was shut \
                 down before it was connected"
            ),
            Self::UnknownDirectory { name } => write!(
                f,
                "it is bound to the relative path {name}, and nobody saw relative to what"
            ),
            Self::Setting { setting } => {
                write!(f, "{setting} cannot be given to another socket")
            }
            Self::FileInFlight { name } => write!(
                f,
                "a message that it is to receive carries {name}, which is no unix socket, and no \
                 process that goes on has it open"
            ),
            Self::SocketOutOfReach => f.write_str(
                "a message on a connection that it has not accepted carries a socket that no \
                 descriptor leads to",
            ),
            Self::ClosedMeanwhile => f.write_str(
                "its peer has closed while it was being looked at: what it sent last may be missing",
            ),
            Self::NobodyToReconnect { name } => write!(
                f,
                "it cannot be connected anew: it did not connect itself, or its peer has no name \
                 (name {name})"
            ),
            Self::LostQueue { bytes } => write!(
                f,
                "it cannot be connected anew without losing {} that it has not received",
                Count(*bytes, "byte")
            ),
            Self::NobodyKeeps => {
                f.write_str("it is to be kept, and only processes that end hold it")
            }
            Self::KeptWithSockets => f.write_str(
                "it is to be kept, and a message that it is to receive carries a socket that no descriptor \
                 leads to",
            ),
            Self::NotReported => f.write_str("sock_diag does not report it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_ucr_holds_is_waited_for_unless_something_stays_in_the_way() {
        let held = |inode, comm: &str| {
            let holders = vec![Party { pid: Pid(7), comm: comm.to_owned(), fd: 5 }];
            Obstacle { pid: Pid(1), fd: 3, inode, reason: Reason::SharedOutside { holders } }
        };
        let set = |inode| {
            let reason = Reason::Setting { setting: "a program".to_owned() };
            Obstacle { pid: Pid(1), fd: 3, inode, reason }
        };
        assert!(are_of_ucr(&[held(1, "ucr")]));
        assert!(are_of_ucr(&[set(1), held(1, "ucr"), held(2, "ucr")]));
        assert!(are_of_ucr(&[set(1), held(1, "?")]));
        let elsewhere = Reason::HeldElsewhere { references: 2 };
        let elsewhere = Obstacle { pid: Pid(1), fd: 3, inode: 1, reason: elsewhere };
        assert!(are_of_ucr(&[elsewhere, set(1)]));
        assert!(!are_of_ucr(&[held(1, "ucr"), set(2)]));
        assert!(!are_of_ucr(&[held(1, "ucr"), held(2, "nginx")]));
        assert!(!are_of_ucr(&[set(1)]));
        assert!(!are_of_ucr(&[]));
    }
}
