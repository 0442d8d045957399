//! What an iterator sees of a live unix socket, with the descriptor that it came by; and how user space
//! says which sockets it looks for.

use crate::{
    identity::{COMM_LEN, SocketId},
    name::NAME_MAX,
    shared,
};

/// The peer has been released: the socket still points to it.
pub const SIGHT_PEER_DEAD: u32 = 1;
/// There are more messages than were looked at: the bytes are a lower bound.
pub const SIGHT_MORE: u32 = 2;
/// It has been released: it is on its way out, or there is no unix sock at this address any more.
pub const SIGHT_DEAD: u32 = 4;
/// It belongs to no `struct socket`: a connection that nobody has accepted, if it is not dead.
pub const SIGHT_NO_SOCKET: u32 = 8;

/// Most messages of a queue that are looked at.
pub const MESSAGES_MAX: u32 = 1024;

/// No descriptor.
pub const NO_FD: u32 = u32::MAX;

shared! {
    /// One unix socket at one moment. `name_len` bytes of `sun_path` follow it.
    pub struct Sighting: 176 {
        /// The socket.
        pub socket: SocketId,
        /// Its peer; no sock if it has none.
        pub peer: SocketId,
        /// The listener that an embryo waits at, where the kernel tells.
        pub listener: SocketId,
        /// Where its name is kept: an accepted socket shares it with its listener, and with nobody else.
        pub address: u64,
        /// References to its file; 0: it has none.
        pub references: u64,
        /// cgroup v2 id of who made it; 0: not known.
        pub cgroup: u64,
        /// Bytes that wait to be received, over all messages (in contrast to `SIOCINQ`).
        pub receive_bytes: u64,
        /// Messages that wait to be received; at a listener, connections that wait to be accepted.
        pub receive_count: u32,
        /// Memory charged for what was sent and not yet received, in bytes.
        pub send_bytes: u32,
        /// Process that holds it, in the initial pid namespace; 0: it was asked for by its address.
        pub pid: u32,
        /// Thread: another one than `pid` only if it has a descriptor table of its own.
        pub tid: u32,
        /// Descriptor, or [`NO_FD`].
        pub fd: u32,
        /// Inode number of its network namespace.
        pub netns: u32,
        /// `SOCK_*`.
        pub socket_type: u16,
        /// `sk_state`.
        pub state: u8,
        /// `sk_shutdown`.
        pub shutdown: u8,
        /// Of a listener: `sk_max_ack_backlog`.
        pub backlog: u32,
        /// User who made it (`sk_uid`), in the initial user namespace.
        pub uid: u32,
        /// Whom it sees in `SO_PEERCRED` (who called `listen`, `connect` or `socketpair` at the other
        /// end), in the initial pid namespace; 0: nobody, or not known.
        pub peer_pid: u32,
        /// `SIGHT_*`.
        pub flags: u32,
        /// How many bytes of the name follow.
        pub name_len: u32,
        /// Real user id of the process that holds it, in the initial user namespace.
        pub holder_uid: u32,
        /// Explicit padding.
        pub reserved: u32,
        /// Name of the process that holds it, NUL-padded.
        pub comm: [u8; COMM_LEN],
    }
}

/// What is looked for in the ledger.
pub mod wanted {
    /// The socket with this inode.
    pub const INODE: u32 = 1;
    /// The socket with this cookie.
    pub const COOKIE: u32 = 2;
    /// All sockets with this name.
    pub const NAME: u32 = 3;
    /// All sockets that came through the listener at this address, or whose peer is there.
    pub const RELATED: u32 = 4;
    /// Nothing: how many there are of each type and state is counted, at [`super::count_at`].
    pub const COUNT: u32 = 5;
    /// All internet sockets whose bit of the `ENDS` map is set.
    pub const ENDS: u32 = 6;
}

/// Where in the `FOUND` map sockets of a type (`SOCK_*`) and state (`TCP_*`) are counted.
#[must_use]
pub const fn count_at(socket_type: u32, state: u32) -> u32 {
    1 + (socket_type & 15) * 16 + (state & 15)
}

/// The same for internet sockets of a family (`AF_*`), protocol (`IPPROTO_*`) and state.
#[must_use]
pub const fn count_inet_at(family: u32, protocol: u32, state: u32) -> u32 {
    let kind = match protocol {
        6 => 0,
        17 => 1,
        _ => 2,
    };
    let version = if family == crate::inet::AF_INET { 0 } else { 3 };
    count_at(8, 0) + (kind + version) * 16 + (state & 15)
}

/// Elements of that map that hold such counts.
pub const COUNTS: u32 = count_inet_at(crate::inet::AF_INET6, 136, 15) + 1;

/// Words of a name that are compared.
pub const NAME_WORDS: usize = NAME_MAX / 4;

shared! {
    /// The only element of the `WANTED` map.
    pub struct Wanted: 232 {
        /// One of [`wanted`].
        pub kind: u32,
        /// Length of the name.
        pub name_len: u32,
        /// Inode, cookie or address.
        pub key: u64,
        /// The name.
        pub name: [u32; NAME_WORDS],
        /// Which bits of each word belong to the name.
        pub mask: [u32; NAME_WORDS],
    }
}
