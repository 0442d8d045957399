//! Small vocabulary types: what a socket is, which state it is in, who somebody is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A process id as seen from ucr's own pid namespace (the kernel's tgid).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Pid(pub i32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `SO_TYPE` of a unix socket.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum SocketType {
    /// `SOCK_STREAM`: a byte stream between two ends.
    #[default]
    Stream,
    /// `SOCK_DGRAM`: datagrams. (`SOCK_RAW` becomes this one in `unix_create`.)
    Dgram,
    /// `SOCK_SEQPACKET`: a connection that keeps message boundaries.
    Seqpacket,
}

impl SocketType {
    /// From the number that the kernel uses (`SOCK_*` without flags).
    #[must_use]
    pub fn from_raw(raw: i32) -> Option<Self> {
        match raw {
            libc::SOCK_STREAM => Some(Self::Stream),
            libc::SOCK_DGRAM => Some(Self::Dgram),
            libc::SOCK_SEQPACKET => Some(Self::Seqpacket),
            _ => None,
        }
    }

    /// The `SOCK_*` number.
    #[must_use]
    pub fn raw(self) -> i32 {
        match self {
            Self::Stream => libc::SOCK_STREAM,
            Self::Dgram => libc::SOCK_DGRAM,
            Self::Seqpacket => libc::SOCK_SEQPACKET,
        }
    }
}

impl SocketType {
    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Dgram => "dgram",
            Self::Seqpacket => "seqpacket",
        }
    }
}

impl fmt::Display for SocketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `sk_state` of a unix socket (`net/unix/af_unix.c` uses three of the TCP states).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketState {
    /// `TCP_CLOSE`: neither connected nor listening.
    Unconnected,
    /// `TCP_LISTEN`.
    Listening,
    /// `TCP_ESTABLISHED`: connected now, or was (a peer may have closed since).
    Connected,
}

impl SocketState {
    /// From `sk_state`.
    #[must_use]
    pub fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            1 => Some(Self::Connected),
            7 => Some(Self::Unconnected),
            10 => Some(Self::Listening),
            _ => None,
        }
    }
}

impl SocketState {
    /// As `sk_state` has it.
    #[must_use]
    pub fn raw(self) -> u8 {
        match self {
            Self::Connected => 1,
            Self::Unconnected => 7,
            Self::Listening => 10,
        }
    }
}

impl fmt::Display for SocketState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unconnected => "unconnected",
            Self::Listening => "listening",
            Self::Connected => "connected",
        })
    }
}

/// Which directions are shut down: `sk_shutdown` (`RCV_SHUTDOWN` 1, `SEND_SHUTDOWN` 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Shutdown(pub u8);

impl Shutdown {
    /// Nothing can be received any more.
    pub const RECEIVE: Self = Self(1);
    /// Nothing can be sent any more.
    pub const SEND: Self = Self(2);
    /// Both.
    pub const BOTH: Self = Self(3);

    /// Neither direction is shut down.
    #[must_use]
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// What `shutdown(2)` on one end does to the other: receiving there is sending here.
    #[must_use]
    pub fn mirrored(self) -> Self {
        Self((self.0 & 1) << 1 | (self.0 & 2) >> 1)
    }
}

impl fmt::Display for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 & 3 {
            0 => "none",
            1 => "receive",
            2 => "send",
            _ => "both",
        })
    }
}

/// Peer credentials as `SO_PEERCRED` reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Credentials {
    /// The process (0: outside the reader's pid namespace).
    pub pid: Pid,
    /// Effective user id at that time.
    pub uid: u32,
    /// Effective group id at that time.
    pub gid: u32,
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} uid {} gid {}", self.pid, self.uid, self.gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shutting_down_one_end_mirrors_on_the_other() {
        assert_eq!(Shutdown::RECEIVE.mirrored(), Shutdown::SEND);
        assert_eq!(Shutdown::SEND.mirrored(), Shutdown::RECEIVE);
        assert_eq!(Shutdown::BOTH.mirrored(), Shutdown::BOTH);
        assert_eq!(Shutdown::default().mirrored(), Shutdown::default());
    }
}
