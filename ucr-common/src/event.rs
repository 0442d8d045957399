//! What a hook reports through the ring buffer.

use crate::{
    identity::{Actor, SocketId},
    name::RawName,
    paths::BindPaths,
    record::Record,
    shared,
};

/// What happened. Kinds are never renumbered: a follower may be older than the pinned programs.
pub mod kind {
    /// `socket(2)`.
    pub const SOCKET: u32 = 1;
    /// `socketpair(2)`: `socket` and `peer` are the two ends, `fd` and `fd2` their descriptors.
    pub const SOCKETPAIR: u32 = 2;
    /// `bind(2)`: `name` is the new name (if it failed: the name asked for).
    pub const BIND: u32 = 3;
    /// `listen(2)`: `argument` is the backlog in force.
    pub const LISTEN: u32 = 4;
    /// `connect(2)`: `peer` is the other end, for a stream the embryo; `name` its name (if it
    /// failed: the name asked for). For a datagram socket `listener` is the peer it had before. Of an internet
    /// socket `argument` is its state then: a connection may be under way.
    pub const CONNECT: u32 = 5;
    /// `accept(2)`, `accept4(2)`: `socket` is the accepted end, `fd2` its descriptor, `fd` and
    /// `listener` the listener, `peer` the client.
    pub const ACCEPT: u32 = 6;
    /// `shutdown(2)`: `argument` is what is shut down now (`sk_shutdown`; if it failed: `how`).
    pub const SHUTDOWN: u32 = 7;
    /// The last descriptor is about to be closed, by `close`, `close_range`, `dup2`, `dup3`, `execve`
    /// or exit. `argument` is 1 if it was never accepted: its listener has closed.
    pub const CLOSE: u32 = 8;
    /// A datagram socket found its peer gone when it sent, and has none any more (trampolines only).
    pub const DISCONNECT: u32 = 9;
    /// The kernel gave a name to a socket that had none, since it asks for credentials or was bound
    /// without one: `name` (trampolines only).
    pub const AUTOBIND: u32 = 10;
    /// A descriptor of `socket` was sent by `SCM_RIGHTS`: `peer` is the socket into whose queue it went
    /// (trampolines only).
    pub const PASS: u32 = 11;
    /// A process got a descriptor of `socket` out of a message, or out of another process
    /// (`pidfd_getfd`): `peer` is the socket that the message was read from, `fd` its descriptor, where
    /// the system call tells (trampolines only).
    pub const TAKE: u32 = 12;
    /// The state of a TCP socket has changed: `argument` is the new one, with the one before in the second byte.
    /// It may be anybody's doing, also the other end's: `actor` is who has opened the socket, else made it.
    pub const STATE: u32 = 13;
}

shared! {
    /// One event. A bind to a pathname is followed by its [`BindPaths`], as one [`BindEvent`], a close
    /// by what the ledger held, as one [`CloseEvent`].
    pub struct Event: 280 {
        /// One of [`kind`].
        pub kind: u32,
        /// 0 or a descriptor, or a negative errno: the call failed and the ledger is unchanged.
        pub result: i32,
        /// `CLOCK_BOOTTIME`, nanoseconds.
        pub time: u64,
        /// Who made the call.
        pub actor: Actor,
        /// The descriptor that the call named, or made (`socket`, first of `socketpair`); -1 if none.
        pub fd: i32,
        /// The other descriptor of `accept` and `socketpair`; -1 if none.
        pub fd2: i32,
        /// The socket that it happened to.
        pub socket: SocketId,
        /// Its peer.
        pub peer: SocketId,
        /// The listener of an accepted or connected socket, where the kernel tells.
        pub listener: SocketId,
        /// Inode number of the socket's network namespace.
        pub netns: u32,
        /// `SOCK_*` number.
        pub socket_type: u32,
        /// `AF_*`; 0: not known, since the call failed before there was a socket.
        pub family: u32,
        /// `IPPROTO_*`; 0 of a unix socket.
        pub protocol: u32,
        /// See [`kind`].
        pub argument: u32,
        /// CPU that it was sent on.
        pub cpu: u32,
        /// How many events were sent on this CPU before it, or could not be, since tracing was attached:
        /// what is missing between two events of a CPU was lost. (Where the kernel can be preempted
        /// within a program, two may have the same number, or come in the wrong order.)
        pub sequence: u64,
        /// See [`kind`]. Of an internet socket both its ends ([`crate::inet::RawEnds`]), of a call that failed the
        /// address that was asked for ([`crate::inet::ASKED_LEN`]).
        pub name: RawName,
    }
}

shared! {
    /// A bind to a pathname, with the directories that give the name its meaning.
    pub struct BindEvent: 2088 {
        /// The event itself.
        pub event: Event,
        /// Where the caller stood.
        pub paths: BindPaths,
    }
}

shared! {
    /// The end of a socket, with all that the ledger held of it.
    pub struct CloseEvent: 680 {
        /// The event itself.
        pub event: Event,
        /// As it stood in the map (see [`Record::join`]); zeroes if it was not in the ledger. Its
        /// [`Record::partner`] is known also if the peer lives.
        pub record: Record,
    }
}
