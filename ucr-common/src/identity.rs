//! Who did something, and which socket it was done to.

use crate::shared;

/// Length of a task's `comm`, with its final NUL.
pub const COMM_LEN: usize = 16;

shared! {
    /// The task that made a system call.
    pub struct Actor: 40 {
        /// cgroup v2 id (`bpf_get_current_cgroup_id`): the inode number of its directory.
        pub cgroup: u64,
        /// Process id in the initial pid namespace (the kernel's tgid).
        pub pid: u32,
        /// Thread id in the initial pid namespace (the kernel's pid).
        pub tid: u32,
        /// Real user id in the initial user namespace.
        pub uid: u32,
        /// Real group id in the initial user namespace.
        pub gid: u32,
        /// The thread's name, NUL-padded.
        pub comm: [u8; COMM_LEN],
    }
}

impl Actor {
    /// Nobody known: the moment was not seen.
    pub const UNKNOWN: Self =
        Self { cgroup: 0, pid: 0, tid: 0, uid: 0, gid: 0, comm: [0; COMM_LEN] };

    /// The name without its padding.
    #[must_use]
    pub fn comm(&self) -> &[u8] {
        unpadded(&self.comm)
    }
}

shared! {
    /// Who is at the other end, in short; all zeroes: not known.
    pub struct Partner: 24 {
        /// Process id in the initial pid namespace.
        pub pid: u32,
        /// Real user id in the initial user namespace.
        pub uid: u32,
        /// The thread's name, NUL-padded.
        pub comm: [u8; COMM_LEN],
    }
}

impl Partner {
    /// Nobody known.
    pub const UNKNOWN: Self = Self { pid: 0, uid: 0, comm: [0; COMM_LEN] };

    /// The name without its padding.
    #[must_use]
    pub fn comm(&self) -> &[u8] {
        unpadded(&self.comm)
    }
}

fn unpadded(comm: &[u8; COMM_LEN]) -> &[u8] {
    let len = comm.iter().position(|b| *b == 0).unwrap_or(COMM_LEN);
    comm.split_at(len).0
}

shared! {
    /// One socket under all the identities it has. 0: not known (yet).
    pub struct SocketId: 24 {
        /// Address of its `struct sock`: unique only while it lives.
        pub sk: u64,
        /// `skc_cookie`: never reused, but 0 until somebody asks for it.
        pub cookie: u64,
        /// Inode number in sockfs: 0 until accepted, can be used again.
        pub inode: u64,
    }
}

impl SocketId {
    /// No socket.
    pub const NONE: Self = Self { sk: 0, cookie: 0, inode: 0 };
}
