//! The shape of a snapshot: what the kernel says now about the unix sockets of one network
//! namespace (`sock_diag(7)`, `struct unix_diag_msg`).

use foldhash::HashMap;

use serde::Serialize;

use super::{
    Shutdown, SocketState, SocketType, UnixName,
    inet::{Endpoint, Over, TcpState},
};

/// One socket as sock_diag reports it. Sockets without an inode (connections not yet accepted)
/// are never reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeenSocket {
    /// Inode number in sockfs.
    pub inode: u32,
    /// The kernel's cookie.
    pub cookie: u64,
    /// `SO_TYPE`.
    pub socket_type: SocketType,
    /// `sk_state`.
    pub state: SocketState,
    /// `UNIX_DIAG_NAME`.
    pub name: UnixName,
    /// `UNIX_DIAG_VFS`: the socket file of a pathname; shared by the sockets accepted from it.
    pub file: Option<VfsFile>,
    /// `UNIX_DIAG_PEER`: inode of the peer; `None` if there is no peer, or if it has no inode (not
    /// accepted yet, or closed).
    pub peer: Option<u32>,
    /// `UNIX_DIAG_ICONS` of a listener: inodes of the clients that wait to be accepted, in queue
    /// order; 0 for a client that has closed already.
    pub pending: Vec<u32>,
    /// `UNIX_DIAG_RQLEN`, first value: bytes that can be received; for a listener, connections
    /// that wait to be accepted.
    pub receive_queue: u32,
    /// `UNIX_DIAG_RQLEN`, second value: memory charged for what was sent and not yet received,
    /// in bytes; for a listener, its backlog.
    pub send_queue: u32,
    /// `UNIX_DIAG_SHUTDOWN`.
    pub shutdown: Shutdown,
}

/// `struct unix_diag_vfs`: both numbers as the kernel's 32-bit fields hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct VfsFile {
    /// Low 32 bits of the inode number.
    pub inode: u32,
    /// The kernel's own device number: major in the upper 12, minor in the lower 20 bits.
    pub device: u32,
}

impl VfsFile {
    /// The same file as `stat(2)` numbers it, cut to what sock_diag can hold.
    #[must_use]
    pub fn from_stat(device: u64, inode: u64) -> Self {
        let major = libc::major(device) & 0xfff;
        let minor = libc::minor(device) & 0xf_ffff;
        let low = inode & u64::from(u32::MAX);
        Self { inode: u32::try_from(low).unwrap_or_default(), device: major << 20 | minor }
    }
}

/// All unix sockets of one network namespace, by inode.
#[derive(Clone, Debug, Default, Serialize)]
pub struct View {
    /// Keyed by inode.
    pub sockets: HashMap<u32, SeenSocket>,
}

impl View {
    /// The socket with that inode.
    #[must_use]
    pub fn get(&self, inode: u32) -> Option<&SeenSocket> {
        self.sockets.get(&inode)
    }
}

/// An internet socket as the kernel reports it (`struct inet_diag_msg`). One that is neither bound nor connected is in
/// none of its tables: that one has to be asked itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeenInet {
    /// Inode number in sockfs.
    pub inode: u32,
    /// The kernel's cookie.
    pub cookie: u64,
    /// Protocol and family.
    #[serde(skip)]
    pub kind: Over,
    /// `sk_state`.
    pub state: TcpState,
    /// Its own end; `None`: neither address nor port.
    pub local: Option<Endpoint>,
    /// The other end.
    pub remote: Option<Endpoint>,
    /// `INET_DIAG_SHUTDOWN`.
    pub shutdown: Shutdown,
    /// Of a listener: `sk_max_ack_backlog`.
    pub backlog: u32,
}

/// Internet sockets of one network namespace, by cookie.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InetView {
    /// Keyed by cookie.
    pub sockets: HashMap<u64, SeenInet>,
}

impl InetView {
    /// The socket with that cookie.
    #[must_use]
    pub fn get(&self, cookie: u64) -> Option<&SeenInet> {
        self.sockets.get(&cookie)
    }
}
