//! A snapshot of the sockets of a network namespace, by `sock_diag(7)`.
//!
//! One dump, not one request for each socket, unless there are few: the kernel looks an inode up by walking all of its
//! tables. A dump is not atomic; what stands in one only is no proof of anything.

mod inet;

pub use inet::inet_sockets_of;

use std::{fs::File, io};

use foldhash::HashMap;

use netlink_packet_core::{
    DecodeError, Emitable as _, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    unix::{
        ShowFlags, StateFlags, UnixRequest, UnixResponse,
        nlas::{Nla, UnixDiagName, Vfs},
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use crate::{
    kernel::netns::run_in,
    model::{
        SeenSocket, Shutdown, SocketState, SocketType, UnixName, VfsFile, View,
        inet::{Over, Protocol},
    },
};

/// Room for one answer of the kernel, in bytes: it fills up to 32 KiB at a time.
const ANSWER: usize = 64 << 10;
/// How often a dump that was disturbed is begun anew.
const ATTEMPTS: u32 = 5;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum DiagError {
    /// The other network namespace could not be entered.
    #[error("enter network namespace of process {0}")]
    Namespace(i32, #[source] io::Error),
    /// The netlink socket failed.
    #[error("{0} the sock_diag socket")]
    Socket(&'static str, #[source] io::Error),
    /// The kernel refused the request.
    #[error("ask sock_diag for unix sockets")]
    Refused(#[source] io::Error),
    /// The same for internet sockets.
    #[error("ask sock_diag for {0} sockets")]
    RefusedInet(Over, #[source] io::Error),
    /// The kernel's answer could not be understood.
    #[error("understand sock_diag's answer: {0}")]
    Decode(DecodeError),
    /// A socket has a type or state that sockets of its family do not have.
    #[error("socket inode {inode} has unknown {field} {value}")]
    Unknown {
        /// Which socket.
        inode: u32,
        /// `type` or `state`.
        field: &'static str,
        /// What sock_diag said.
        value: u8,
    },
    /// Sockets came and went all the time, and the kernel said so each time.
    #[error("sock_diag's answer was inconsistent {0} times in a row")]
    Disturbed(u32),
}

impl DiagError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused(e) if e.kind() == io::ErrorKind::NotFound => {
                Some("this kernel needs its module unix_diag: modprobe unix_diag")
            }
            Self::RefusedInet(Over(protocol, _), e) if e.kind() == io::ErrorKind::NotFound => {
                Some(match protocol {
                    Protocol::Tcp => "this kernel needs its module tcp_diag: modprobe tcp_diag",
                    _ => "this kernel needs its module udp_diag: modprobe udp_diag",
                })
            }
            Self::Namespace(..) => Some("entering a network namespace needs CAP_SYS_ADMIN"),
            _ => None,
        }
    }
}

impl DiagError {
    /// What is said to be refused.
    fn about(self, kind: Over) -> Self {
        match self {
            Self::Refused(error) => Self::RefusedInet(kind, error),
            other => other,
        }
    }
}

/// The unix sockets of our own network namespace.
///
/// # Errors
/// See [`DiagError`].
pub fn unix_sockets() -> Result<View, DiagError> {
    dump()
}

/// The unix sockets of a process's network namespace.
///
/// # Errors
/// See [`DiagError`].
pub fn unix_sockets_of(pid: i32) -> Result<View, DiagError> {
    within(pid, dump)
}

/// These unix sockets of a process's network namespace: those that are there. To ask for each takes the kernel a walk
/// over all sockets, which is less than to tell of all only if they are few.
///
/// # Errors
/// See [`DiagError`].
pub fn unix_sockets_with(pid: i32, inodes: &[u32]) -> Result<View, DiagError> {
    let ask_for_each = || {
        let socket = open()?;
        let mut view = View::default();
        for inode in inodes.iter().copied().filter(|inode| *inode != 0) {
            let question = UnixRequest { inode, ..about_unix(StateFlags::empty()) };
            ask(&socket, SockDiagMessage::UnixRequest(question), NLM_F_REQUEST)?;
            view.sockets.extend(read_one(&socket)?.map(|seen| (seen.inode, seen)));
        }
        Ok(view)
    };
    within(pid, ask_for_each)
}

fn within<T: Send>(
    pid: i32,
    look: impl FnOnce() -> Result<T, DiagError> + Send,
) -> Result<T, DiagError> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"));
    namespace
        .and_then(|namespace| run_in(Some(namespace), look))
        .map_err(|source| DiagError::Namespace(pid, source))?
}

/// What sock_diag can be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `AF_UNIX`.
    Unix,
    /// `AF_INET`, TCP.
    Tcp,
    /// `AF_INET`, UDP.
    Udp,
}

/// Whether sock_diag answers at all: asks for sockets in a state that none is in.
///
/// # Errors
/// [`DiagError::Refused`] if the kernel cannot tell of this family.
pub fn probe(family: Family) -> Result<(), DiagError> {
    let inet = |protocol| inet::question(Over(protocol, inet::V4), 0);
    let socket = open()?;
    let question = match family {
        Family::Unix => SockDiagMessage::UnixRequest(about_unix(StateFlags::empty())),
        Family::Tcp => inet(Protocol::Tcp),
        Family::Udp => inet(Protocol::Udp),
    };
    ask(&socket, question, NLM_F_REQUEST | NLM_F_DUMP)?;
    read(&socket).map(drop)
}

fn open() -> Result<Socket, DiagError> {
    Socket::new(NETLINK_SOCK_DIAG).map_err(|source| DiagError::Socket("open", source))
}

fn dump() -> Result<View, DiagError> {
    let socket = open()?;
    for _ in 0..ATTEMPTS {
        // The crate names two states; unconnected sockets are in a third one.
        let all = StateFlags::from_bits_retain(u32::MAX);
        let question = SockDiagMessage::UnixRequest(about_unix(all));
        ask(&socket, question, NLM_F_REQUEST | NLM_F_DUMP)?;
        if let Some(view) = read(&socket)? {
            return Ok(view);
        }
    }
    Err(DiagError::Disturbed(ATTEMPTS))
}

fn about_unix(state_flags: StateFlags) -> UnixRequest {
    UnixRequest {
        state_flags,
        inode: 0,
        show_flags: ShowFlags::NAME
            | ShowFlags::VFS
            | ShowFlags::PEER
            | ShowFlags::ICONS
            | ShowFlags::RQLEN,
        cookie: [0xff; 8],
    }
}

fn ask(socket: &Socket, question: SockDiagMessage, flags: u16) -> Result<(), DiagError> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(question));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let sent = socket.send_to(&bytes, &SocketAddr::new(0, 0), 0);
    sent.map(drop).map_err(|source| DiagError::Socket("write to", source))
}

/// Reads the answer about one socket; `None` if it is not there.
fn read_one(socket: &Socket) -> Result<Option<SeenSocket>, DiagError> {
    let mut buffer = Vec::with_capacity(ANSWER);
    socket.recv(&mut buffer, 0).map_err(|source| DiagError::Socket("read from", source))?;
    let message =
        NetlinkMessage::<SockDiagMessage>::deserialize(&buffer).map_err(DiagError::Decode)?;
    match message.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::UnixResponse(response)) => {
            seen(&response).map(Some)
        }
        NetlinkPayload::Error(error) => {
            match error.code.map_or(0, |code| code.get().wrapping_neg()) {
                libc::ENOENT => Ok(None),
                code => Err(DiagError::Refused(io::Error::from_raw_os_error(code))),
            }
        }
        _ => Ok(None),
    }
}

/// Reads one dump; `None` if it was disturbed.
fn read(socket: &Socket) -> Result<Option<View>, DiagError> {
    let mut sockets = HashMap::default();
    let is_whole = read_all(socket, |message| {
        if let SockDiagMessage::UnixResponse(response) = message {
            let socket = seen(&response)?;
            sockets.insert(socket.inode, socket);
        }
        Ok(())
    })?;
    Ok(is_whole.then_some(View { sockets }))
}

/// Reads one dump, answer by answer; whether the kernel does not say that it was disturbed (`NLM_F_DUMP_INTR`).
fn read_all(
    socket: &Socket,
    mut take: impl FnMut(SockDiagMessage) -> Result<(), DiagError>,
) -> Result<bool, DiagError> {
    const NLM_F_DUMP_INTR: u16 = 0x10;
    let mut disturbed = false;
    let mut buffer = Vec::with_capacity(ANSWER);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0).map_err(|source| DiagError::Socket("read from", source))?;
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(DiagError::Decode)?;
            disturbed |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(message) => take(message)?,
                NetlinkPayload::Done(_) => return Ok(!disturbed),
                NetlinkPayload::Error(error) => {
                    let code = error.code.map_or(0, |code| code.get().wrapping_neg());
                    return Err(DiagError::Refused(io::Error::from_raw_os_error(code)));
                }
                _ => {}
            }
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            // Messages begin at multiples of four bytes.
            rest = rest.get(length.next_multiple_of(4).max(4)..).unwrap_or(&[]);
        }
    }
}

fn seen(response: &UnixResponse) -> Result<SeenSocket, DiagError> {
    let header = &response.header;
    let unknown = |field, value| DiagError::Unknown { inode: header.inode, field, value };
    let mut socket = SeenSocket {
        inode: header.inode,
        cookie: u64::from_ne_bytes(header.cookie),
        socket_type: SocketType::from_raw(header.kind.into())
            .ok_or(unknown("type", header.kind))?,
        state: SocketState::from_raw(header.state).ok_or(unknown("state", header.state))?,
        name: UnixName::Unnamed,
        file: None,
        peer: response.peer().filter(|inode| *inode != 0),
        pending: response.pending_connections().map(<[u32]>::to_vec).unwrap_or_default(),
        receive_queue: 0,
        send_queue: 0,
        shutdown: Shutdown(response.shutdown_state().unwrap_or(0)),
    };
    for attribute in &response.nlas {
        match attribute {
            Nla::Name(UnixDiagName::Pathname(path)) => {
                socket.name = UnixName::from_sun_path(path.as_encoded_bytes());
            }
            Nla::Name(UnixDiagName::Abstract(name)) => {
                socket.name = UnixName::Abstract(name.clone());
            }
            Nla::Vfs(file) => socket.file = Some(vfs_file(file)),
            Nla::ReceiveQueueLength(receive, send) => {
                (socket.receive_queue, socket.send_queue) = (*receive, *send);
            }
            _ => {}
        }
    }
    Ok(socket)
}

/// The crate keeps the two fields to itself, but writes them out.
fn vfs_file(file: &Vfs) -> VfsFile {
    let mut bytes = [0; 8];
    file.emit(&mut bytes);
    let (inode, device) = bytes.split_at(4);
    let word = |half: &[u8]| half.try_into().map_or(0, u32::from_ne_bytes);
    VfsFile { inode: word(inode), device: word(device) }
}

#[cfg(test)]
mod tests {
    use std::{
        os::{
            fd::AsRawFd as _,
            unix::{
                fs::MetadataExt as _,
                net::{UnixListener, UnixStream},
            },
        },
        path::Path,
    };

    use super::*;

    fn inode_of(socket: &impl std::os::fd::AsRawFd) -> u32 {
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let inode = std::fs::metadata(path).expect("an open descriptor").ino();
        u32::try_from(inode).expect("sockfs has 32-bit inodes")
    }

    #[test]
    fn a_listener_its_client_and_the_accepted_end_are_seen_as_they_are() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("listener");
        let listener = UnixListener::bind(&path).expect("bind");
        let client = UnixStream::connect(&path).expect("connect");
        let (accepted, _) = listener.accept().expect("accept");
        let waiting = UnixStream::connect(&path).expect("connect");
        let view = unix_sockets().expect("a snapshot");

        let seen = view.get(inode_of(&listener)).expect("the listener");
        assert_eq!(seen.state, SocketState::Listening);
        assert_eq!(seen.name.as_bytes(), path.as_os_str().as_encoded_bytes());
        assert_eq!(seen.pending, [inode_of(&waiting)]);
        assert_eq!(seen.receive_queue, 1);
        let file = std::fs::metadata(Path::new(&path)).expect("the socket file");
        assert_eq!(seen.file, Some(VfsFile::from_stat(file.dev(), file.ino())));

        let seen = view.get(inode_of(&client)).expect("the client");
        assert_eq!((seen.state, seen.peer), (SocketState::Connected, Some(inode_of(&accepted))));
        assert_eq!(seen.name, UnixName::Unnamed);
        let seen = view.get(inode_of(&accepted)).expect("the accepted end");
        assert_eq!(seen.peer, Some(inode_of(&client)));
        assert_eq!(seen.name.as_bytes(), path.as_os_str().as_encoded_bytes());
        assert_eq!(view.get(inode_of(&waiting)).expect("the waiting client").peer, None);
        assert!(listener.as_raw_fd() > 0);

        // Asked for by themselves they are the same, and who is gone is not there.
        let own = std::process::id().cast_signed();
        let wanted = [inode_of(&listener), inode_of(&client), inode_of(&accepted), u32::MAX];
        let few = unix_sockets_with(own, &wanted).expect("answers");
        assert_eq!(few.sockets.len(), 3);
        for (inode, seen) in &few.sockets {
            assert_eq!(Some(seen), view.get(*inode));
        }
    }
}
