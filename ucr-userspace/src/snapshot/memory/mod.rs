//! What the kernel holds for a unix socket and no system call tells: read from its memory.
//!
//! An eBPF program copies pieces of kernel memory (`ucr-ebpf`'s `memory`); where what lies comes from
//! BTF. Nothing is changed by looking: no message is peeked at, no offset moved, and connections that
//! nobody has accepted are read like all others. The structures are trusted only after this process has
//! found its own messages again, which [`Memory::prepare`] tries.

mod ahead;
mod datagrams;
mod inet;
mod layout;
mod likeness;
mod pages;
mod queue;
mod reader;
mod tcp;
mod trial;

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use nix::fcntl::Flock;

use ucr_common::{descriptor::SocketDescriptor, memory::PIECE};

pub use self::ahead::TOGETHER;
pub use self::datagrams::{RawDatagram, RawHeldBack};
pub use self::inet::{InetSock, RawMembership};
pub use self::queue::{RawFile, RawMessage};
pub use self::tcp::{RawTcp, RawWaiting};

pub(super) use self::layout::Layout;
use self::pages::Pages;
use self::reader::{Block, Reader};
use crate::kernel::btf::BtfError;
use crate::model::inet::Over;
use crate::model::{Credentials, Pid, SocketState, UnixName};
use crate::snapshot::descriptors::{DescriptorError, Lister, MemoryProgram};
use crate::tracer::TracerError;

/// Why kernel memory could not be read, or made no sense.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The program that reads could not be loaded or run.
    #[error("prepare to read kernel memory")]
    Prepare(#[source] TracerError),
    /// A system call that has to do with it.
    #[error("{operation}")]
    Call {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel lays something out in a way that is not known.
    #[error("find out where the kernel keeps what waits to be received")]
    Layout(#[from] BtfError),
    /// An address that is not mapped, or lockdown.
    #[error("read {length} bytes of kernel memory: {what}")]
    Unreadable {
        /// What was to be read.
        what: &'static str,
        /// How much.
        length: usize,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What was read cannot be.
    #[error("kernel memory makes no sense: {0}")]
    Senseless(&'static str),
}

impl From<DescriptorError> for MemoryError {
    fn from(error: DescriptorError) -> Self {
        match error {
            DescriptorError::Prepare(error) => Self::Prepare(error),
            DescriptorError::List { source, .. } | DescriptorError::ListAll(source) => {
                Self::Call { operation: "list our own descriptors", source }
            }
        }
    }
}

/// A reader of kernel memory.
#[derive(Debug)]
pub struct Memory {
    reader: Reader,
    layout: Layout,
    /// How to get from a page to its address, or why that is not known.
    pages: Option<Pages>,
    /// Our own pid namespace: where it stands, and how deep.
    namespace: (u64, u32),
    /// `socket_file_ops`.
    socket_operations: u64,
    /// A socket of our own, and where it is: for whoever wants to try something out.
    specimen: Option<(OwnedFd, u64)>,
    /// The same of each kind of internet socket.
    inet_specimens: Vec<(Over, OwnedFd, u64)>,
    /// Nobody else may use the program meanwhile.
    _turn: Option<Flock<File>>,
}

/// What the kernel holds for one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sock {
    /// Where it is.
    pub sk: u64,
    /// Its cookie; 0 if nobody has asked for it.
    pub cookie: u64,
    /// Address of its peer; 0 if it has none. The peer may be dead.
    pub peer: u64,
    /// `sk_err`: what `SO_ERROR` would tell, and clear.
    pub error: i32,
    /// `sk_shutdown`.
    pub shutdown: u8,
    /// `sk_state`.
    pub state: u8,
    /// `sk_type`.
    pub socket_type: u16,
    /// Messages, or for a listener connections, that wait.
    pub waiting: u32,
    /// How many may wait (`sk_max_ack_backlog`).
    pub backlog: u32,
    /// Whether no file leads to it: it was never accepted, or it has closed.
    pub has_no_file: bool,
    name: u64,
    peer_pid: u64,
    peer_cred: u64,
}

/// Whom a socket sees in `SO_PEERCRED` and `SO_PEERGROUPS`: the same for all that have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Counterpart {
    pid: u64,
    cred: u64,
}

impl Sock {
    /// Where its name is kept; 0 if it has none. A socket that was accepted shares it with its listener, and the file
    /// that they are bound to.
    #[must_use]
    pub fn name_address(&self) -> u64 {
        self.name
    }

    /// Whom it sees.
    #[must_use]
    pub fn counterpart(&self) -> Counterpart {
        Counterpart { pid: self.peer_pid, cred: self.peer_cred }
    }

    /// Whether it has closed and is kept only by who has it as a peer, or by what it has sent.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        // `unix_release_sock`.
        self.has_no_file && SocketState::from_raw(self.state) == Some(SocketState::Unconnected)
    }
}

impl Memory {
    /// Loads the program, and finds out whether what is read makes sense.
    ///
    /// # Errors
    /// A kernel that refuses the program, or whose structures are others than expected.
    pub fn prepare(lister: &mut Lister) -> Result<Self, MemoryError> {
        Self::prepare_and_list(lister).map(|(memory, _)| memory)
    }

    /// The same; also our own descriptors, which the trial lists: for who has many and wants to know them.
    ///
    /// # Errors
    /// As of [`prepare`](Self::prepare).
    pub fn prepare_and_list(
        lister: &mut Lister,
    ) -> Result<(Self, Vec<SocketDescriptor>), MemoryError> {
        let call = |operation| move |source| MemoryError::Call { operation, source };
        let MemoryProgram { program, wants, memory, layout, turn } =
            lister.memory().map_err(MemoryError::Prepare)?;
        let reader = Reader::new(program, &wants, &memory).map_err(call("map the maps"))?;
        let mut memory = Self {
            reader,
            layout,
            pages: None,
            namespace: (0, 0),
            socket_operations: 0,
            specimen: None,
            inet_specimens: Vec::new(),
            _turn: turn,
        };
        let listed = memory.try_out(lister)?;
        Ok((memory, listed))
    }

    /// A socket of our own that nobody uses, and where it is.
    #[must_use]
    pub fn specimen(&self) -> Option<(BorrowedFd<'_>, u64)> {
        self.specimen.as_ref().map(|(socket, sk)| (socket.as_fd(), *sk))
    }

    /// An internet socket of our own that nobody uses, and where it is; `None` if there is none of this kind.
    #[must_use]
    pub fn inet_specimen(&self, kind: Over) -> Option<(BorrowedFd<'_>, u64)> {
        let mut all = self.inet_specimens.iter();
        all.find(|(of, ..)| *of == kind).map(|(_, socket, sk)| (socket.as_fd(), *sk))
    }

    /// Whether data beyond a message's first part can be read as well.
    #[must_use]
    pub fn reads_pages(&self) -> bool {
        self.pages.is_some()
    }

    fn read(&self, what: &'static str, address: u64, length: usize) -> Result<Block, MemoryError> {
        self.reader.read(what, address, length)
    }

    /// What the kernel holds for the socket at this address. It must not be freed meanwhile.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
    pub fn sock(&self, sk: u64) -> Result<Sock, MemoryError> {
        let l = &self.layout;
        let block = self.sock_block(sk)?;
        Ok(Sock {
            sk,
            cookie: block.u64(l.sock_cookie)?,
            peer: block.u64(l.unix_peer)?,
            error: block.u32(l.sock_error)?.cast_signed(),
            shutdown: block.u8(l.sock_shutdown)?,
            state: block.u8(l.sock_state)?,
            socket_type: block.u16(l.sock_type)?,
            waiting: block.u32(l.queue_length)?,
            backlog: block.u32(l.sock_backlog)?,
            has_no_file: block.u64(l.sock_socket)? == 0,
            name: block.u64(l.unix_addr)?,
            peer_pid: block.u64(l.sock_peer_pid)?,
            peer_cred: block.u64(l.sock_peer_cred)?,
        })
    }

    /// A socket's name.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
    pub fn name_of(&self, sock: &Sock) -> Result<UnixName, MemoryError> {
        self.name(sock.name)
    }

    /// The name of a socket's peer; `None` if it has no peer.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
    pub fn name_of_peer(&self, sock: &Sock) -> Result<Option<UnixName>, MemoryError> {
        match sock.peer {
            0 => Ok(None),
            peer => self.name_at(peer).map(Some),
        }
    }

    /// The name of the socket at an address.
    fn name_at(&self, sk: u64) -> Result<UnixName, MemoryError> {
        let address = self.read("a socket", sk + long(self.layout.unix_addr), 8)?.u64(0)?;
        self.name(address)
    }

    /// What `SO_PEERCRED` and `SO_PEERGROUPS` of a socket would tell.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
    pub fn peer_credentials(
        &self,
        sock: &Sock,
    ) -> Result<Option<(Credentials, Vec<u32>)>, MemoryError> {
        self.credentials(sock.peer_pid, sock.peer_cred)
    }

    fn sock_block(&self, sk: u64) -> Result<Block, MemoryError> {
        let block = self.read("a socket", sk, self.layout.unix_sock)?;
        if i32::from(block.u16(self.layout.sock_family)?) != libc::AF_UNIX {
            return Err(MemoryError::Senseless("a unix socket is of another family"));
        }
        Ok(block)
    }

    fn name(&self, address: u64) -> Result<UnixName, MemoryError> {
        if address == 0 {
            return Ok(UnixName::Unnamed);
        }
        let l = &self.layout;
        let length = self.read("the length of a name", address + long(l.addr_len), 4)?.u32(0)?;
        let length = usize::try_from(length).unwrap_or(0).checked_sub(l.sun_path);
        let length = length.filter(|length| *length <= crate::model::name::SUN_PATH_MAX + 1);
        let length = length.ok_or(MemoryError::Senseless("a name is longer than any"))?;
        let path = address + long(l.addr_name + l.sun_path);
        Ok(UnixName::from_sun_path(self.read("a name", path, length)?.bytes()))
    }

    fn credentials(
        &self,
        pid: u64,
        cred: u64,
    ) -> Result<Option<(Credentials, Vec<u32>)>, MemoryError> {
        if cred == 0 {
            return Ok(None);
        }
        let l = &self.layout;
        let block = self.read("credentials", cred, l.cred)?;
        let groups = self.groups(block.u64(l.cred_groups)?)?;
        let (uid, gid) = (block.u32(l.cred_euid)?, block.u32(l.cred_egid)?);
        Ok(Some((Credentials { pid: self.pid(pid)?, uid, gid }, groups)))
    }

    fn groups(&self, address: u64) -> Result<Vec<u32>, MemoryError> {
        let l = &self.layout;
        let count = self.read("a number of groups", address + long(l.groups_count), 4)?.u32(0)?;
        let mut groups = Vec::new();
        let mut at = address + long(l.groups_ids);
        let mut left = usize::try_from(count).unwrap_or(usize::MAX);
        if left > 65_536 {
            return Err(MemoryError::Senseless("somebody is in more groups than there can be"));
        }
        while left > 0 {
            let now = left.min(PIECE / 4);
            let block = self.read("groups", at, now * 4)?;
            let (words, _) = block.bytes().as_chunks();
            groups.extend(words.iter().map(|word| u32::from_ne_bytes(*word)));
            at += long(now * 4);
            left -= now;
        }
        Ok(groups)
    }

    /// A pid as our own namespace has it; 0 if it is outside.
    fn pid(&self, address: u64) -> Result<Pid, MemoryError> {
        if address == 0 {
            return Ok(Pid(0));
        }
        let l = &self.layout;
        let (namespace, level) = self.namespace;
        let block = self.read("a pid", address, l.pid)?;
        if block.u32(l.pid_level)? < level {
            return Ok(Pid(0));
        }
        let at = l.pid_numbers + l.upid * usize::try_from(level).unwrap_or(usize::MAX / 2 / l.upid);
        let block = self.read("a pid", address + long(at), l.upid)?;
        let is_ours = block.u64(l.upid_namespace)? == namespace;
        Ok(Pid(if is_ours { block.u32(l.upid_number)?.cast_signed() } else { 0 }))
    }
}

fn long(offset: usize) -> u64 {
    u64::try_from(offset).unwrap_or(u64::MAX)
}
