//! The steps of a plan: one system call each, or a few that belong together.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::image::{FileId, Filter, Notification, Owner, Socket, SocketIndex, SocketOption};
use crate::model::name::{Bytes, Escaped, exact};
use crate::model::option_table;
use crate::model::{Count, Credentials, Pid, Shutdown, SocketType, UnixName};

/// A socket that a plan makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// One of the image.
    Saved(SocketIndex),
    /// One that is needed only to make connections.
    Temporary(usize),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saved(index) => write!(f, "socket {}", index.0),
            Self::Temporary(number) => write!(f, "temporary socket {number}"),
        }
    }
}

/// Who makes a call, for the sake of `SO_PEERCRED` and `SO_PEERGROUPS`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// Process; 0 if it does not matter.
    pub pid: Pid,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups; `None` if they do not matter.
    pub groups: Option<Vec<u32>>,
}

impl Identity {
    /// Of these credentials of a socket, which its groups go with.
    #[must_use]
    pub fn of(socket: &Socket, credentials: Option<Credentials>) -> Option<Self> {
        let Credentials { pid, uid, gid } = credentials?;
        Some(Self { pid, uid, gid, groups: socket.groups.clone() })
    }
}

/// A name and the directory from which it is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Place {
    /// The bytes for `bind` and `connect`.
    #[serde(serialize_with = "exact")]
    pub name: UnixName,
    /// For a relative pathname: the absolute directory.
    #[serde(serialize_with = "exact_directory")]
    pub directory: Option<Vec<u8>>,
}

fn exact_path<S: Serializer>(path: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    Bytes(path).serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde hands the field over by reference")]
fn exact_directory<S: Serializer>(
    directory: &Option<Vec<u8>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    directory.as_deref().map(Bytes).serialize(serializer)
}

impl Place {
    /// The absolute path, without `.` and empty components; `None` for an abstract name.
    #[must_use]
    pub fn path(&self) -> Option<Vec<u8>> {
        let UnixName::Pathname(name) = &self.name else {
            return None;
        };
        let directory = self.directory.iter().flat_map(|path| path.split(|byte| *byte == b'/'));
        let mut path = Vec::new();
        for part in directory.chain(name.split(|byte| *byte == b'/')) {
            if !part.is_empty() && part != b"." {
                path.push(b'/');
                path.extend_from_slice(part);
            }
        }
        Some(path)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)?;
        match &self.directory {
            Some(directory) => write!(f, " in {}", Escaped(directory)),
            None => Ok(()),
        }
    }
}

/// What becomes of a file that was moved aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Afterwards {
    /// Deleted when everything else has succeeded: a socket of the image takes its place.
    Discard,
    /// Moved back: nothing of the image stays under its name.
    PutBack,
}

/// A file that lies where a socket is to be bound, and may be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Aside {
    /// Where it lies: an absolute path.
    #[serde(serialize_with = "exact_path")]
    pub path: Vec<u8>,
    /// Which file it is: if it is another one by then, it is not touched.
    pub id: FileId,
    /// What becomes of it.
    pub afterwards: Afterwards,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Rename a file to a hidden name in its directory.
    MoveAside(Aside),
    /// `socket`.
    Create {
        /// Which one.
        made: Holder,
        /// Its type.
        socket_type: SocketType,
    },
    /// `socketpair`.
    Pair {
        /// One end.
        a: Holder,
        /// The other end.
        b: Holder,
        /// Their type.
        socket_type: SocketType,
        /// Whose credentials both ends see.
        identity: Option<Identity>,
    },
    /// `bind`, from the directory if there is one.
    Bind {
        /// Which one.
        made: Holder,
        /// To what.
        place: Place,
    },
    /// `listen`; again on a listener, it changes whose credentials the next client sees.
    Listen {
        /// Which one.
        made: Holder,
        /// Its backlog.
        backlog: u32,
        /// Whose credentials clients see.
        identity: Option<Identity>,
    },
    /// `connect`.
    Connect {
        /// The end that connects.
        client: SocketIndex,
        /// The listener.
        listener: Holder,
        /// Where the listener is.
        place: Place,
        /// Whose credentials the accepted end sees.
        identity: Option<Identity>,
    },
    /// `connect` of a datagram socket.
    ConnectDatagram {
        /// Which one.
        sender: SocketIndex,
        /// Its peer.
        receiver: SocketIndex,
        /// Where that is.
        place: Place,
    },
    /// `connect` of a datagram socket to nobody.
    Disconnect {
        /// Which one.
        socket: SocketIndex,
    },
    /// `accept`.
    Accept {
        /// The end that this makes.
        server: SocketIndex,
        /// The listener.
        listener: Holder,
    },
    /// `close` of a temporary socket.
    Close {
        /// Which one.
        made: Holder,
    },
    /// Remove the file that `bind` made.
    Unlink {
        /// Bound by which one.
        made: Holder,
        /// Where.
        place: Place,
    },
    /// Move a file back.
    PutBack(Aside),
    /// `shutdown`; the peer's side follows by itself.
    Shutdown {
        /// Which one.
        socket: SocketIndex,
        /// What is shut down.
        how: Shutdown,
    },
    /// `setsockopt`.
    SetOption {
        /// Which one.
        socket: SocketIndex,
        /// What.
        option: SocketOption,
    },
    /// `SO_ATTACH_FILTER` and `SO_LOCK_FILTER`.
    SetFilter {
        /// Which one.
        socket: SocketIndex,
        /// What.
        filter: Filter,
    },
    /// `fcntl(F_SETFL)`.
    SetFlags {
        /// Which one.
        socket: SocketIndex,
        /// `O_NONBLOCK`; `O_ASYNC` comes later.
        flags: i32,
    },
    /// `F_SETSIG`, `F_SETOWN_EX`, `O_ASYNC`.
    Notify {
        /// Which one.
        socket: SocketIndex,
        /// Who is told by which signal.
        notification: Notification,
        /// `O_NONBLOCK`, `O_ASYNC` or neither.
        flags: i32,
    },
    /// Owner and mode of the file that `bind` made.
    Attributes {
        /// Bound by which one.
        made: Holder,
        /// Where.
        place: Place,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Delete a file that was moved aside.
    Discard(Aside),
}

struct As<'a>(&'a Option<Identity>);

impl fmt::Display for As<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Identity { pid, uid, gid, groups }) = self.0 else { return Ok(()) };
        f.write_str(" as")?;
        if pid.0 != 0 {
            write!(f, " pid {pid}")?;
        }
        write!(f, " uid {uid} gid {gid}")?;
        match groups.as_deref() {
            None => Ok(()),
            Some([]) => f.write_str(" without groups"),
            Some(groups) => {
                f.write_str(" groups")?;
                groups.iter().try_for_each(|group| write!(f, " {group}"))
            }
        }
    }
}

fn flag_names(flags: i32) -> &'static str {
    match (flags & libc::O_NONBLOCK != 0, flags & libc::O_ASYNC != 0) {
        (false, false) => "none",
        (true, false) => "O_NONBLOCK",
        (false, true) => "O_ASYNC",
        (true, true) => "O_NONBLOCK|O_ASYNC",
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MoveAside(aside) => write!(f, "move {} aside", Escaped(&aside.path)),
            Self::Create { made, socket_type } => write!(f, "create {made} ({socket_type})"),
            Self::Pair { a, b, socket_type, identity } => {
                write!(f, "socketpair of {a} and {b} ({socket_type})")?;
                As(identity).fmt(f)
            }
            Self::Bind { made, place } => write!(f, "bind {made} to {place}"),
            Self::Listen { made, backlog, identity } => {
                write!(f, "listen on {made} with backlog {backlog}{}", As(identity))
            }
            Self::Connect { client, listener, place, identity } => {
                let client = Holder::Saved(*client);
                write!(f, "connect {client} to {listener} at {place}{}", As(identity))
            }
            Self::ConnectDatagram { sender, receiver, place } => {
                let (sender, receiver) = (Holder::Saved(*sender), Holder::Saved(*receiver));
                write!(f, "connect {sender} to {receiver} at {place}")
            }
            Self::Disconnect { socket } => write!(f, "disconnect {}", Holder::Saved(*socket)),
            Self::Accept { server, listener } => {
                write!(f, "accept {} from {listener}", Holder::Saved(*server))
            }
            Self::Close { made } => write!(f, "close {made}"),
            Self::Unlink { made, place } => write!(f, "unlink {place} of {made}"),
            Self::PutBack(aside) => write!(f, "move {} back", Escaped(&aside.path)),
            Self::Shutdown { socket, how } => {
                write!(f, "shut down socket {}: {how}", socket.0)
            }
            Self::SetOption { socket, option } => {
                write!(f, "set {} of socket {} to", option_table::name(option.name), socket.0)?;
                match option.value.first_chunk() {
                    Some(bytes) if option.value.len() == bytes.len() => {
                        write!(f, " {}", i32::from_ne_bytes(*bytes))
                    }
                    _ => option.value.iter().try_for_each(|byte| write!(f, " {byte:02x}")),
                }
            }
            Self::SetFilter { socket, filter: Filter { instructions, locked } } => {
                match instructions.len() {
                    0 => {
                        write!(f, "lock the filter of socket {}, of which there is none", socket.0)
                    }
                    count => {
                        let then = if *locked { ", locked" } else { "" };
                        let count = Count(count, "instruction");
                        write!(f, "set the filter of socket {} ({count}{then})", socket.0)
                    }
                }
            }
            Self::SetFlags { socket, flags } => {
                write!(f, "set status flags of socket {}: {}", socket.0, flag_names(*flags))
            }
            Self::Notify { socket, notification: Notification { owner, signal }, flags } => {
                let name = Holder::Saved(*socket);
                match (owner, *signal) {
                    (Owner::Nobody, 0) => write!(f, "of {name} nobody is told by a signal")?,
                    (_, 0) => write!(f, "of {name} {owner} is told by SIGIO")?,
                    _ => write!(f, "of {name} {owner} is told by signal {signal}")?,
                }
                write!(f, ", status flags: {}", flag_names(*flags))
            }
            Self::Attributes { place, mode, uid, gid, .. } => {
                write!(f, "set mode {mode:04o} owner {uid}:{gid} of {place}")
            }
            Self::Discard(aside) => {
                write!(f, "delete what was moved aside from {}", Escaped(&aside.path))
            }
        }
    }
}
