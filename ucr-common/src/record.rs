//! What the ledger knows of one socket: the value of the pinned map whose key is the address of
//! the `struct sock`.

use crate::{
    identity::{Actor, Partner, SocketId},
    name::RawName,
    shared,
};

/// How the socket came into the ledger.
pub mod origin {
    /// `socket(2)` was seen.
    pub const SOCKET: u32 = 1;
    /// `socketpair(2)` was seen.
    pub const PAIR: u32 = 2;
    /// The kernel made it in a `connect(2)` that was seen: the accepting end.
    pub const CONNECTION: u32 = 3;
    /// Its `accept(2)` was seen, the `connect(2)` was not. Of TCP that is all there is to be seen: before, it is
    /// nobody's.
    pub const ACCEPT: u32 = 4;
    /// The iterator found it when tracing began: it predates the tracer.
    pub const SEED: u32 = 5;
    /// Tracing was on, but its creation was not seen (io_uring, another network namespace at
    /// seeding): known since the first call that named it.
    pub const LATE: u32 = 6;
    /// Tracing was on, but nothing of it was seen: the iterator found it at a reconciliation.
    pub const FOUND: u32 = 7;
}

/// What the socket is at one of the two ends of.
pub mod role {
    /// No connection, or its making was not seen.
    pub const NONE: u32 = 0;
    /// It called `connect`.
    pub const CLIENT: u32 = 1;
    /// It is, or will be, returned by `accept`.
    pub const SERVER: u32 = 2;
    /// One end of a `socketpair`.
    pub const PAIR: u32 = 3;
}

/// The peer has closed.
pub const FLAG_PEER_CLOSED: u32 = 1;
/// The name was given by the kernel (autobind).
pub const FLAG_AUTOBOUND: u32 = 2;
/// Its `socket` or `accept` event waits for the descriptor that the running call will give it; it goes
/// before any other event of the socket.
pub const FLAG_UNANNOUNCED: u32 = 4;
/// A `connect` has decided for this pair, and the kernel is about to write it down: until it returns,
/// what an iterator reads of the client and of its embryo may be older than the record.
pub const FLAG_PAIRING: u32 = 8;

shared! {
    /// One socket. Times are `CLOCK_BOOTTIME` nanoseconds, 0: not seen.
    pub struct Record: 400 {
        /// The socket itself.
        pub socket: SocketId,
        /// Its peer; after the peer has closed, its last identity with `sk` 0.
        pub peer: SocketId,
        /// The listener that it came through. It may have gone since, and its address may belong to
        /// another socket: hold its inode against that one's.
        pub listener: SocketId,
        /// Inode number of its network namespace.
        pub netns: u32,
        /// `SOCK_*` number.
        pub socket_type: u32,
        /// `AF_*`: unix, internet of either version.
        pub family: u32,
        /// `IPPROTO_*`; 0 of a unix socket.
        pub protocol: u32,
        /// `sk_state`.
        pub state: u32,
        /// `sk_shutdown`; in the map itself its two bits stand 16 bits apart (see [`Record::join`]).
        pub shutdown: u32,
        /// One of [`origin`].
        pub origin: u32,
        /// One of [`role`].
        pub role: u32,
        /// `FLAG_*`; in the map itself each has a byte of its own (see [`Record::join`]).
        pub flags: u32,
        /// Of a listener: `sk_max_ack_backlog`.
        pub backlog: u32,
        /// When the record was made, or an iterator last found the socket there; 0: it is gone.
        pub seen_at: u64,
        /// When it came to be (a seeded one: unknown).
        pub created_at: u64,
        /// When it got its name.
        pub bound_at: u64,
        /// When it became a listener, a client or an accepted socket.
        pub opened_at: u64,
        /// Who created it (the accepting end: who connected).
        pub creator: Actor,
        /// Who bound it.
        pub binder: Actor,
        /// Who called `listen`, `connect` or `accept`.
        pub opener: Actor,
        /// Who had the peer that has closed: whoever had opened it, else made it.
        pub partner: Partner,
        /// Its own name. Of an internet socket both its ends ([`crate::inet::RawEnds`]).
        pub name: RawName,
    }
}

impl Record {
    /// As user space has it, from what stands in the map: there each flag has a byte, and each direction
    /// that is shut down a half of its own, so that one can be set without the others being looked at.
    #[must_use]
    pub fn join(mut self) -> Self {
        self.shutdown = self.shutdown & 1 | (self.shutdown >> 16 & 1) << 1;
        self.flags = (0..4).map(|bit| (self.flags >> (bit * 8) & 1) << bit).sum();
        self.name.clear_tail();
        self
    }

    /// As it stands in the map.
    #[must_use]
    pub fn split(mut self) -> Self {
        self.shutdown = self.shutdown & 1 | (self.shutdown >> 1 & 1) << 16;
        self.flags = (0..4).map(|bit| (self.flags >> bit & 1) << (bit * 8)).sum();
        self
    }
}
