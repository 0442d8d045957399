//! What a world is made by: operations, as data. They name sockets by slots, so that any of them can be
//! left out: one whose slot is empty then is skipped.

use std::fmt;

use ucr::model::name::Escaped;

/// A place for a descriptor, in every process that has it.
pub(crate) type Slot = u16;

/// How many descriptors of one message get a slot each.
pub(crate) const ARRIVING: Slot = 4;

/// One operation of one process; 0 is the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) who: usize,
    pub(crate) act: Act,
}

/// The kind of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Stream,
    Dgram,
    Seqpacket,
}

/// How a socket is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// What stands behind the world's own prefix.
    Abstract(Vec<u8>),
    /// A file in the world's folder.
    Path(u8),
    /// A file in the folder that this process works in.
    Relative(usize, u8),
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parcel {
    pub(crate) bytes: usize,
    pub(crate) oob: bool,
    pub(crate) files: Vec<Slot>,
    /// User and group, with the pid of init.
    pub(crate) credentials: Option<(u32, u32)>,
    pub(crate) to: Option<Name>,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Socket {
        made: Slot,
        kind: Kind,
        flags: &'static str,
    },
    Pair {
        made: [Slot; 2],
        kind: Kind,
        flags: &'static str,
    },
    Bind {
        slot: Slot,
        name: Name,
    },
    Autobind {
        slot: Slot,
    },
    Listen {
        slot: Slot,
        backlog: u8,
    },
    Connect {
        slot: Slot,
        name: Name,
    },
    Disconnect {
        slot: Slot,
    },
    Accept {
        slot: Slot,
        made: Slot,
    },
    Close {
        slot: Slot,
    },
    Dup {
        slot: Slot,
        made: Slot,
        close_on_exec: bool,
    },
    Nonblock {
        slot: Slot,
    },
    Shutdown {
        slot: Slot,
        how: &'static str,
    },
    Send {
        slot: Slot,
        parcel: Parcel,
    },
    /// The descriptors that come along get the slots from `made` on.
    Receive {
        slot: Slot,
        size: usize,
        how: &'static str,
        made: Slot,
    },
    Set {
        slot: Slot,
        option: i32,
        value: Vec<u8>,
    },
    Filter {
        slot: Slot,
        kept: u32,
    },
    Owner {
        slot: Slot,
        kind: &'static str,
        of: usize,
        signal: i32,
    },
    TakeError {
        slot: Slot,
    },
    Ids {
        uid: u32,
        gid: u32,
    },
    Child {
        child: usize,
    },
    Unlink {
        name: Name,
    },
    Rename {
        name: Name,
        to: u8,
    },
    Touch {
        name: Name,
    },
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Dgram => "dgram",
            Self::Seqpacket => "seqpacket",
        }
    }
}

impl Act {
    /// What it is called in tables.
    pub(crate) fn title(&self) -> &'static str {
        match self {
            Self::Socket { .. } => "socket",
            Self::Pair { .. } => "pair",
            Self::Bind { .. } => "bind",
            Self::Autobind { .. } => "autobind",
            Self::Listen { .. } => "listen",
            Self::Connect { .. } => "connect",
            Self::Disconnect { .. } => "disconnect",
            Self::Accept { .. } => "accept",
            Self::Close { .. } => "close",
            Self::Dup { .. } => "dup",
            Self::Nonblock { .. } => "nonblock",
            Self::Shutdown { .. } => "shutdown",
            Self::Send { parcel, .. } if parcel.oob => "send out of band",
            Self::Send { parcel, .. } if !parcel.files.is_empty() => "send sockets",
            Self::Send { parcel, .. } if parcel.credentials.is_some() => "send credentials",
            Self::Send { parcel, .. } if parcel.to.is_some() => "send to a name",
            Self::Send { .. } => "send",
            Self::Receive { .. } => "receive",
            Self::Set { .. } => "set an option",
            Self::Filter { .. } => "filter",
            Self::Owner { .. } => "set an owner",
            Self::TakeError { .. } => "take the error",
            Self::Ids { .. } => "change ids",
            Self::Child { .. } => "child",
            Self::Unlink { .. } => "unlink",
            Self::Rename { .. } => "rename",
            Self::Touch { .. } => "touch",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abstract(rest) => write!(f, "@…{}", Escaped(rest)),
            Self::Path(n) => write!(f, "FOLDER/s{n}"),
            Self::Relative(of, n) => write!(f, "r{n} in the folder of process {of}"),
        }
    }
}

impl fmt::Display for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes)?;
        if self.oob {
            f.write_str(" out of band")?;
        }
        if !self.files.is_empty() {
            write!(f, " with the sockets {:?}", self.files)?;
        }
        if let Some((uid, gid)) = self.credentials {
            write!(f, " with the credentials pid 1 uid {uid} gid {gid}")?;
        }
        self.to.as_ref().map_or(Ok(()), |to| write!(f, " to {to}"))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.who {
            0 => f.write_str("root: ")?,
            child => write!(f, "child {child}: ")?,
        }
        match &self.act {
            Act::Socket { made, kind, flags } => {
                write!(f, "socket({}{flags}) is [{made}]", kind.word())
            }
            Act::Pair { made: [a, b], kind, flags } => {
                write!(f, "socketpair({}{flags}) is [{a}] and [{b}]", kind.word())
            }
            Act::Bind { slot, name } => write!(f, "bind [{slot}] to {name}"),
            Act::Autobind { slot } => write!(f, "bind [{slot}] to no name (autobind)"),
            Act::Listen { slot, backlog } => write!(f, "listen at [{slot}], backlog {backlog}"),
            Act::Connect { slot, name } => write!(f, "connect [{slot}] to {name}"),
            Act::Disconnect { slot } => write!(f, "connect [{slot}] to AF_UNSPEC"),
            Act::Accept { slot, made } => write!(f, "accept at [{slot}] is [{made}]"),
            Act::Close { slot } => write!(f, "close [{slot}]"),
            Act::Dup { slot, made, close_on_exec } => {
                let flag = if *close_on_exec { ", close-on-exec" } else { "" };
                write!(f, "duplicate [{slot}]{flag} is [{made}]")
            }
            Act::Nonblock { slot } => write!(f, "set O_NONBLOCK on [{slot}]"),
            Act::Shutdown { slot, how } => write!(f, "shutdown [{slot}] {how}"),
            Act::Send { slot, parcel } => write!(f, "send from [{slot}] {parcel}"),
            Act::Receive { slot, size, how, made } => {
                write!(f, "receive at [{slot}] {size} bytes {how} (sockets are [{made}] …)")
            }
            Act::Set { slot, option, value } => {
                write!(f, "set option {option} of [{slot}] to {value:?}")
            }
            Act::Filter { slot, kept } => write!(f, "filter [{slot}], {kept} bytes are let in"),
            Act::Owner { slot, kind, of, signal } => {
                write!(f, "owner of [{slot}] is {kind} of process {of}, signal {signal}")
            }
            Act::TakeError { slot } => write!(f, "take the error of [{slot}]"),
            Act::Ids { uid, gid } => write!(f, "become user {uid}, group {gid}"),
            Act::Child { child } => write!(f, "start child {child}"),
            Act::Unlink { name } => write!(f, "unlink {name}"),
            Act::Rename { name, to } => write!(f, "rename {name} to FOLDER/s{to}"),
            Act::Touch { name } => write!(f, "make an ordinary file {name}"),
        }
    }
}
