//! What the descriptor iterator writes: one shape for each descriptor that is a socket.

use crate::{identity::SocketId, shared};

shared! {
    /// One descriptor of one task that leads to a socket of any family. The ledger's record of the socket follows, if
    /// there is one.
    pub struct SocketDescriptor: 80 {
        /// The socket. The iterator asks for the cookie, so it is never 0.
        pub socket: SocketId,
        /// References to its file: each descriptor is one, in whatever process; so is each running
        /// call of a thread that shares its descriptor table, and each message that carries it.
        pub references: u64,
        /// Tasks that share the descriptor table: the threads of the process, unless another process
        /// shares it too (`CLONE_FILES`).
        pub table_users: u32,
        /// 0 if nobody is told by a signal (`F_SETOWN`, `F_SETSIG`).
        pub notifies: u32,
        /// Process, in the initial pid namespace.
        pub pid: u32,
        /// Thread, in the initial pid namespace: differs from `pid` only for a thread with a descriptor table of its own.
        pub tid: u32,
        /// Descriptor number.
        pub fd: u32,
        /// `file.f_flags`.
        pub file_flags: u32,
        /// 1 if close-on-exec.
        pub close_on_exec: u32,
        /// `AF_*`.
        pub family: u32,
        /// `SOCK_*`.
        pub socket_type: u32,
        /// Inode number of the socket's network namespace.
        pub netns: u32,
        /// How many bytes of a record follow.
        pub record_len: u32,
        /// Explicit padding.
        pub reserved: u32,
    }
}
