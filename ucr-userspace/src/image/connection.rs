//! How the connected sockets of an image hang together.

use serde::{Deserialize, Serialize};

use super::message::Sender;
use super::schema::SocketIndex;
use crate::model::{Pid, UnixName};

/// Two connected ends, or what is left of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Connection {
    /// Made by `socketpair`.
    Pair {
        /// One end.
        a: SocketIndex,
        /// The other end.
        b: SocketIndex,
    },
    /// Made by `connect` and `accept`.
    Accepted {
        /// The end that called `connect`.
        client: SocketIndex,
        /// The end that `accept` returned.
        server: SocketIndex,
        /// The listener it came through, if it is in the image.
        listener: Option<SocketIndex>,
        /// Position in the order of acceptance among the connections of the image; lower was
        /// earlier.
        order: u32,
    },
    /// A datagram socket that has a peer, which need not have it as its own. If both have each other
    /// there are two of these, unless `socketpair` made them. (Since 1.1.)
    Datagram {
        /// The one that called `connect`; it may be its own receiver.
        sender: SocketIndex,
        /// Its peer.
        receiver: SocketIndex,
    },
    /// Made by `connect` and not yet accepted.
    Waiting {
        /// The end that called `connect`.
        client: Sender,
        /// The other end.
        embryo: SocketIndex,
        /// Where it waits.
        listener: SocketIndex,
        /// Position in the queue of the listener, among the connections of the image; all of
        /// [`Connection::Accepted`] come before.
        order: u32,
    },
    /// One whose peer has closed.
    Ended {
        /// What is left.
        survivor: SocketIndex,
        /// What the other end was.
        was: Was,
    },
    /// One whose peer is not in the image.
    External {
        /// The end that is in the image.
        socket: SocketIndex,
        /// How it comes back.
        how: External,
    },
}

/// What an end was that has closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Was {
    /// The other half of a pair, with this name.
    Half(UnixName),
    /// The end that called `connect`, with this name.
    Client {
        /// Its own.
        name: UnixName,
        /// The listener that the survivor was accepted from, if it is in the image.
        listener: Option<SocketIndex>,
    },
    /// The end that was accepted, or never was.
    Server {
        /// The name that it shared with its listener.
        name: UnixName,
        /// That listener, if it is in the image.
        listener: Option<SocketIndex>,
    },
}

/// How an end comes back whose peer is not in the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum External {
    /// It is connected anew, to whoever has this name then.
    Reconnect {
        /// The peer's name.
        name: UnixName,
        /// For a relative path: the directory.
        directory: Option<Vec<u8>>,
    },
    /// The very socket is taken from a process that still has it.
    Keep {
        /// Which process.
        pid: Pid,
        /// Its descriptor.
        fd: i32,
    },
}

impl Connection {
    /// Both ends, if both are in the image: a pair's in stored order, else the one that connected first.
    #[must_use]
    pub fn ends(&self) -> Option<(SocketIndex, SocketIndex)> {
        match *self {
            Self::Pair { a, b } => Some((a, b)),
            Self::Accepted { client, server, .. } => Some((client, server)),
            Self::Datagram { sender, receiver } => Some((sender, receiver)),
            Self::Waiting { client: Sender::Socket(client), embryo, .. } => Some((client, embryo)),
            Self::Waiting { client: Sender::Gone(_), .. }
            | Self::Ended { .. }
            | Self::External { .. } => None,
        }
    }

    /// The only end that is in the image.
    #[must_use]
    pub fn alone(&self) -> Option<SocketIndex> {
        match *self {
            Self::Pair { .. }
            | Self::Accepted { .. }
            | Self::Datagram { .. }
            | Self::Waiting { client: Sender::Socket(_), .. } => None,
            Self::Waiting { client: Sender::Gone(_), embryo, .. } => Some(embryo),
            Self::Ended { survivor, .. } => Some(survivor),
            Self::External { socket, .. } => Some(socket),
        }
    }

    /// The end that is taken over as it is.
    #[must_use]
    pub fn kept(&self) -> Option<SocketIndex> {
        match *self {
            Self::External { socket, how: External::Keep { .. } } => Some(socket),
            _ => None,
        }
    }

    /// Who has whom as its peer.
    pub fn peers(&self) -> impl Iterator<Item = (SocketIndex, SocketIndex)> + use<> {
        let ends = self.ends();
        let back = ends.filter(|_| !matches!(self, Self::Datagram { .. })).map(|(a, b)| (b, a));
        ends.into_iter().chain(back)
    }
}
