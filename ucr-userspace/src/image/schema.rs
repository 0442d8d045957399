//! What an image holds, as types. No bytes and no I/O here: `codec` turns it into a file's content.
//!
//! A change of meaning or order in any of these types is a new format version: postcard stores
//! fields by position. `header.rs` lists the versions.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::inet::Inet;
use super::interfaces::Interface;
use super::message::Message;
use super::netlink::Netlink;
use crate::model::{Credentials, Pid, Shutdown, SocketType, UnixName, VerdictCounts};

/// The sockets of one process or process tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Where, when and by what it was made.
    pub origin: Origin,
    /// The processes; the first one is the root of the tree.
    pub processes: Vec<Process>,
    /// Each socket once, however many descriptors lead to it.
    pub sockets: Vec<Socket>,
    /// Every descriptor of every process that leads to one of `sockets`.
    pub descriptors: Vec<Descriptor>,
    /// How the connected unix sockets hang together. Every connected one is in exactly one; a datagram
    /// socket may be the receiver of any number besides.
    pub connections: Vec<Connection>,
    /// The network interfaces that internet sockets are bound to or have addresses of, each once.
    pub interfaces: Vec<Interface>,
}

/// Where an image comes from. Shown; only the boot id is acted upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Version of the ucr that wrote it.
    pub ucr_version: String,
    /// Seconds since the epoch.
    pub created_at: u64,
    /// `uname -r` of the kernel that the sockets lived in.
    pub kernel_release: String,
    /// `uname -n`.
    pub host: String,
    /// Boot id (`/proc/sys/kernel/random/boot_id`): socket files are known again by device and
    /// inode number only within one boot.
    pub boot_id: String,
    /// Inode number of the network namespace that all sockets were in.
    pub netns: u32,
    /// How the tracked state compared with the kernel's.
    pub verdicts: VerdictCounts,
}

/// One process of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid when it was dumped: the key for `restore --exec PID=CMD`.
    pub pid: Pid,
    /// Its parent's pid.
    pub parent: Pid,
    /// `/proc/PID/comm`, raw bytes.
    pub comm: Vec<u8>,
    /// `/proc/PID/cmdline`: the arguments, raw bytes each.
    pub arguments: Vec<Vec<u8>>,
}

/// Index into [`Image::sockets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SocketIndex(pub u32);

impl SocketIndex {
    /// As an index into a slice.
    #[must_use]
    pub fn get(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// The kernel's cookie for it (never reused during one boot).
    pub cookie: u64,
    /// Inode number in sockfs, as `/proc/PID/fd` and `ss` show it.
    pub inode: u32,
    /// `SO_TYPE`.
    pub socket_type: SocketType,
    /// Unconnected, listening or connected. A TCP socket in any state but closed and listening is connected.
    pub role: Role,
    /// Of a unix socket: its own name with all that is needed to give it again. For an accepted socket this is
    /// the listener's name, which it shares.
    pub name: Option<Bound>,
    /// `F_GETFL` flags that can be set again (`O_NONBLOCK`, `O_ASYNC`); one set for all its
    /// descriptors.
    pub status_flags: i32,
    /// `sk_shutdown`.
    pub shutdown: Shutdown,
    /// `SO_PEERCRED`, for connected sockets.
    pub peer_credentials: Option<Credentials>,
    /// Credentials that a connecting client will see: those of the task that called `listen`, as
    /// `SO_PEERCRED` of the listener itself gives them.
    pub listener_credentials: Option<Credentials>,
    /// `SO_PEERGROUPS`: the supplementary groups that go with either of these, if they are known.
    pub groups: Option<Vec<u32>>,
    /// `SOL_SOCKET` options whose value differs from that of a new socket of this type.
    pub options: Vec<SocketOption>,
    /// `SO_ATTACH_FILTER`.
    pub filter: Option<Filter>,
    /// `F_SETOWN` and `F_SETSIG`, if they were set.
    pub notification: Option<Notification>,
    /// `SO_ERROR`: what the next call on it fails with; 0 if nothing is pending.
    pub error: i32,
    /// Of a unix socket: what waits to be received, in order.
    pub queue: Vec<Message>,
    /// How its history is known.
    pub known_from: KnownFrom,
    /// When it was created, nanoseconds since boot (`CLOCK_BOOTTIME`); only if seen live.
    pub created_at: Option<u64>,
    /// Who created it; only if seen live.
    pub creator: Option<Actor>,
    /// Where each fact of it comes from.
    pub sources: Vec<(Fact, Source)>,
    /// Of an internet socket: what only those have. `None`: it is a unix socket.
    pub inet: Option<Box<Inet>>,
    /// What only netlink sockets have.
    pub netlink: Option<Box<Netlink>>,
}

impl Socket {
    /// Whether it is a unix socket.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        self.inet.is_none() && self.netlink.is_none()
    }
}

/// Something that an image says of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// Its name.
    Name,
    /// The directory that its name is relative to.
    Directory,
    /// What it is connected to.
    Peer,
    /// Which end connected, and which was accepted; or that `socketpair` made both.
    Ends,
    /// Which listener it came through.
    Listener,
    /// `SO_PEERCRED`.
    Credentials,
    /// Its options.
    Options,
    /// What waits to be received.
    Queue,
    /// Its multicast groups.
    Groups,
}

/// How a fact is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The tracer saw it happen.
    SeenLive,
    /// The kernel's report: sock_diag or an iterator.
    Snapshot,
    /// The socket was asked, through a descriptor of the process.
    Asked,
    /// The kernel's memory was read.
    Memory,
    /// Concluded from other facts.
    Concluded,
}

/// A classic BPF filter, or the lock of a socket that has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// `struct sock_filter`: code, jump if true, jump if false, operand. Empty: there is no filter.
    pub instructions: Vec<(u16, u8, u8, u32)>,
    /// `SO_LOCK_FILTER`: it cannot be removed or replaced any more.
    pub locked: bool,
}

/// Who is told by which signal when something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// `F_SETOWN_EX`.
    pub owner: Owner,
    /// `F_SETSIG`: 0 for `SIGIO`.
    pub signal: i32,
}

/// Who gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// Nobody.
    Nobody,
    /// `F_OWNER_TID`.
    Thread(Pid),
    /// `F_OWNER_PID`.
    Process(Pid),
    /// `F_OWNER_PGRP`.
    Group(Pid),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Thread(pid) => write!(f, "thread {pid}"),
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Group(pid) => write!(f, "process group {pid}"),
        }
    }
}

/// What a socket is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Neither listening nor connected.
    Unconnected,
    /// Listening with this backlog (`sk_max_ack_backlog`).
    Listening {
        /// As given to `listen`, limited by `net.core.somaxconn`.
        backlog: u32,
    },
    /// One end of one of [`Image::connections`].
    Connected,
    /// The other end of a connection that was made and not yet accepted: no descriptor leads to it.
    Embryo,
}

/// A name and what it takes to give it to a new socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bound {
    /// Never [`UnixName::Unnamed`].
    pub name: UnixName,
    /// For a relative pathname: the directory it is relative to, absolute, at the time of `bind`.
    pub directory: Option<Vec<u8>>,
    /// For a pathname that was bound under another root directory: that, absolute, as seen by whoever made
    /// the image.
    pub root: Option<Vec<u8>>,
    /// For a pathname: what has become of the socket file.
    pub file: Option<SocketFile>,
}

/// The file that `bind` made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SocketFile {
    /// It is still there, under the name it was bound to.
    Present {
        /// Which file it is.
        id: FileId,
        /// Permission bits (`st_mode & 0o7777`).
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// No file stands under this name any more.
    Deleted,
    /// Something else stands under this name.
    Replaced,
    /// It is still there, under another name.
    Moved {
        /// Where, as an absolute path.
        path: Vec<u8>,
        /// Which file it is.
        id: FileId,
        /// Permission bits (`st_mode & 0o7777`).
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// Identity of a file within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Birth time in nanoseconds since the epoch, where the file system records it: an inode
    /// number alone can be used again.
    pub born: Option<u64>,
}

/// One `SOL_SOCKET` option.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOption {
    /// `SO_*` number.
    pub name: i32,
    /// The bytes that `getsockopt` gave.
    pub value: Vec<u8>,
}

impl SocketOption {
    /// `SO_BUF_LOCK` off, as for a new socket: the sizes of the buffers may be changed.
    #[must_use]
    pub fn unlocked_buffers() -> Self {
        Self { name: libc::SO_BUF_LOCK, value: 0i32.to_ne_bytes().to_vec() }
    }
}

/// How a socket's history is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownFrom {
    /// The tracer saw it being created.
    SeenLive,
    /// It is older than the tracer, which found it when it started.
    PredatesTracer,
    /// Only the kernel's report and the process itself tell of it.
    Snapshot,
}

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Process.
    pub pid: Pid,
    /// Thread.
    pub tid: Pid,
    /// User.
    pub uid: u32,
    /// The thread's name at that time, raw bytes.
    pub comm: Vec<u8>,
    /// cgroup v2 id.
    pub cgroup: u64,
}

/// One descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Whose.
    pub pid: Pid,
    /// Its number.
    pub fd: i32,
    /// Where it leads.
    pub socket: SocketIndex,
    /// `FD_CLOEXEC`.
    pub close_on_exec: bool,
}
