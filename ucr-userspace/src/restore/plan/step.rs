//! The steps of a plan: one system call each, or a few that belong together.

use std::fmt;

use serde::{Serialize, Serializer};

use super::inet::InetStep;
use super::spot::{Landing, Spot, normal};
use crate::image::{
    FileId, Filter, Netlink, Notification, Owner, Socket, SocketIndex, SocketOption,
};
use crate::model::name::{Bytes, Escaped, exact};
use crate::model::netlink::NetlinkProtocol;
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
        Some(normal(&[self.directory.as_deref().unwrap_or_default(), name]))
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

/// A file that lies where a socket file is to be, and may be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Aside {
    /// Where it lies.
    pub spot: Spot,
    /// Which file it is: if it is another one by then, it is not touched.
    pub id: FileId,
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
        /// What becomes of the file.
        landing: Landing,
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
        client: Holder,
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
        receiver: Holder,
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
        server: Holder,
        /// The listener.
        listener: Holder,
    },
    /// `connect` to a socket that is not in the image.
    Reconnect {
        /// Which one.
        socket: SocketIndex,
        /// Where its peer is to be.
        place: Place,
    },
    /// `pidfd_getfd`: the very socket, from a process that still has it.
    Keep {
        /// Which one.
        socket: SocketIndex,
        /// From whom.
        pid: Pid,
        /// That process's descriptor.
        fd: i32,
    },
    /// `sendmsg`, once for each message.
    Send {
        /// Who sends.
        from: Holder,
        /// Whose queue the messages are of.
        to: SocketIndex,
        /// The first of them.
        first: usize,
        /// How many.
        count: usize,
        /// Where the receiver is, if it is not the sender's peer.
        place: Option<Place>,
    },
    /// `sendmsg` of a byte that nobody will read: that the other end closes with it becomes the pending
    /// error of this one.
    Spoil {
        /// Which one.
        socket: SocketIndex,
    },
    /// `close` of a temporary socket.
    Close {
        /// Which one.
        made: Holder,
    },
    /// Remove the directory in which files were made that are nowhere.
    LeavePrivate,
    /// Exchange the file of a socket that was bound elsewhere for what lies where it is to be.
    Exchange {
        /// Whose.
        made: Holder,
        /// Where.
        spot: Spot,
    },
    /// Make a netlink socket with its address and groups.
    Netlink {
        /// Which one.
        socket: SocketIndex,
        /// What it is.
        netlink: Box<Netlink>,
    },
    /// Something with an internet socket.
    Inet {
        /// Which one.
        socket: SocketIndex,
        /// What.
        step: InetStep,
    },
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
        spot: Spot,
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
            Self::MoveAside(aside) => write!(f, "move {} aside", aside.spot),
            Self::Create { made, socket_type } => write!(f, "create {made} ({socket_type})"),
            Self::Pair { a, b, socket_type, identity } => {
                write!(f, "socketpair of {a} and {b} ({socket_type})")?;
                As(identity).fmt(f)
            }
            Self::Bind { made, place, landing } => {
                write!(f, "bind {made} to {place}")?;
                match landing {
                    Landing::ByName => Ok(()),
                    Landing::Nowhere => f.write_str(" (privately: the file is gone)"),
                    Landing::At(spot) => write!(f, " (privately: the file goes to {spot})"),
                    Landing::Over(spot) => write!(f, " (privately: the file is to replace {spot})"),
                }
            }
            Self::Listen { made, backlog, identity } => {
                write!(f, "listen on {made} with backlog {backlog}{}", As(identity))
            }
            Self::Connect { client, listener, place, identity } => {
                write!(f, "connect {client} to {listener} at {place}{}", As(identity))
            }
            Self::ConnectDatagram { sender, receiver, place } => {
                let sender = Holder::Saved(*sender);
                write!(f, "connect {sender} to {receiver} at {place}")
            }
            Self::Inet { socket, step } => step.describe(*socket, f),
            Self::Netlink { socket, netlink } => {
                let protocol = NetlinkProtocol(netlink.protocol);
                write!(f, "make socket {} ({protocol}) with port {}", socket.0, netlink.port)?;
                match netlink.groups.len() {
                    0 => Ok(()),
                    count => write!(f, " in {}", Count(count, "group")),
                }
            }
            Self::Disconnect { socket } => write!(f, "disconnect {}", Holder::Saved(*socket)),
            Self::Accept { server, listener } => {
                write!(f, "accept {server} from {listener}")
            }
            Self::Reconnect { socket, place } => {
                write!(f, "connect {} to whoever is at {place}", Holder::Saved(*socket))
            }
            Self::Keep { socket, pid, fd } => {
                write!(f, "take {} from pid {pid} fd {fd}", Holder::Saved(*socket))
            }
            Self::Send { from, to, first, count, place } => {
                let messages = Count(*count, "message");
                write!(f, "send {messages} from {from} to {}", Holder::Saved(*to))?;
                if *first > 0 {
                    write!(f, " from number {first} on")?;
                }
                match place {
                    Some(place) => write!(f, " at {place}"),
                    None => Ok(()),
                }
            }
            Self::Spoil { socket } => {
                write!(f, "send a byte from {} that nobody reads", Holder::Saved(*socket))
            }
            Self::Close { made } => write!(f, "close {made}"),
            Self::LeavePrivate => f.write_str("remove the private directory"),
            Self::Exchange { made, spot } => write!(f, "exchange {spot} for the file of {made}"),
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
            Self::Attributes { spot, mode, uid, gid, .. } => {
                write!(f, "set mode {mode:04o} owner {uid}:{gid} of {spot}")
            }
            Self::Discard(aside) => {
                write!(f, "delete what was moved aside from {}", aside.spot)
            }
        }
    }
}
