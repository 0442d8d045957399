//! The answer to: who is on the other end of this socket, since when, who made it? Its shape; it is found
//! in `inspect`, and shown in `render`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::model::{UnixName, Who, cgroup::Cgroup};

/// Which socket is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// All sockets with a name.
    Name(UnixName),
    /// All sockets of a process, or the one behind a descriptor.
    Process {
        /// As ucr sees it.
        pid: i32,
        /// Its descriptor.
        fd: Option<u32>,
    },
    /// The one with this inode.
    Inode(u32),
    /// The one with this cookie.
    Cookie(u64),
}

/// Why some text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no socket: give a PATH (with a slash), @ABSTRACT-NAME, PID, PID:FD, inode:N or cookie:N"
)]
pub struct NoTarget {
    text: String,
}

impl FromStr for Target {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let no = || NoTarget { text: text.to_owned() };
        if let Some(name) = text.strip_prefix('@') {
            return Ok(Self::Name(UnixName::Abstract(unescaped(name).ok_or_else(no)?)));
        }
        if let Some(inode) = text.strip_prefix("inode:") {
            return inode.parse().ok().filter(|inode| *inode != 0).map(Self::Inode).ok_or_else(no);
        }
        if let Some(cookie) = text.strip_prefix("cookie:") {
            return cookie
                .parse()
                .ok()
                .filter(|cookie| *cookie != 0)
                .map(Self::Cookie)
                .ok_or_else(no);
        }
        if text.contains('/') {
            return Ok(Self::Name(UnixName::Pathname(unescaped(text).ok_or_else(no)?)));
        }
        let (pid, fd) = match text.split_once(':') {
            Some((pid, fd)) => (pid, Some(fd.parse().map_err(|_| no())?)),
            None => (text, None),
        };
        let pid = pid.parse().ok().filter(|pid| *pid > 0).ok_or_else(no)?;
        Ok(Self::Process { pid, fd })
    }
}

/// The bytes behind a shown name: `\\` and `\xNN` are taken back.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        bytes.extend_from_slice(before.as_bytes());
        if let Some(after) = escape.strip_prefix("\\\\") {
            bytes.push(b'\\');
            rest = after;
        } else {
            let digits = escape.strip_prefix("\\x")?;
            let (digits, after) = digits.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Process { pid, fd: None } => write!(f, "{pid}"),
            Self::Process { pid, fd: Some(fd) } => write!(f, "{pid}:{fd}"),
            Self::Inode(inode) => write!(f, "inode:{inode}"),
            Self::Cookie(cookie) => write!(f, "cookie:{cookie}"),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked, as text.
    pub target: String,
    /// The sockets, each with its surroundings.
    pub subjects: Vec<Subject>,
    /// Since when tracing is attached, in nanoseconds since the epoch; `None`: it is not, so nobody knows who
    /// made what, and when.
    pub tracing_since: Option<u64>,
    /// What could not be found out, and why.
    pub notes: Vec<String>,
}

/// A socket that was asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The socket.
    pub socket: Described,
    /// The other end, if it is there.
    pub peer: Option<Described>,
    /// Of a listener: its connections.
    pub connections: Vec<Connection>,
    /// Of a datagram socket: those that are connected to it, beside its own peer.
    pub senders: Vec<Described>,
}

/// A connection through a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The end that was accepted, or waits to be.
    pub server: Described,
    /// The end that connected, if it is there.
    pub client: Option<Described>,
}

/// One socket, as far as it is known. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// Inode number; none before it is accepted.
    pub inode: Option<u32>,
    /// Cookie.
    pub cookie: Option<u64>,
    /// Network namespace, by inode number.
    pub netns: u32,
    /// `stream`, `dgram`, `seqpacket`.
    pub socket_type: String,
    /// As a listing calls it.
    pub state: String,
    /// Its own name.
    pub name: UnixName,
    /// Where a relative path begins, if its `bind` was seen.
    pub directory: Option<Vec<u8>>,
    /// `receive`, `send`, `both`, if a direction is shut down.
    pub shutdown: Option<String>,
    /// Of a listener: most connections that wait.
    pub backlog: Option<u32>,
    /// Bytes to be received.
    pub receive_bytes: u64,
    /// Whether there are more messages than were looked at, so that the bytes are a lower bound.
    pub receive_more: bool,
    /// Messages to be received; of a listener, connections to be accepted.
    pub receive_count: u32,
    /// Memory charged for what was sent and not received, in bytes.
    pub send_bytes: u32,
    /// Who holds it.
    pub holders: Vec<Held>,
    /// References to its file that are no descriptors: messages in flight, running calls, io_uring.
    pub other_references: u64,
    /// How it is known, as a listing calls it.
    pub known: String,
    /// `client`, `server`, `pair`.
    pub role: Option<String>,
    /// Who made it (the accepting end: who connected), and when.
    pub created: Option<Deed>,
    /// Who bound it, and when.
    pub bound: Option<Deed>,
    /// Who called `listen`, `connect` or `accept`, and when.
    pub opened: Option<Deed>,
    /// Whom it sees in `SO_PEERCRED`, by process; what is known also of sockets older than the tracer.
    pub peer_credentials: Option<u32>,
    /// User id of who made it.
    pub maker_uid: u32,
}

/// Who did something, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// In nanoseconds since the epoch.
    pub at: u64,
    /// By whom.
    pub by: Who,
}

/// A descriptor that leads to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Process, in the initial pid namespace.
    pub pid: u32,
    /// Descriptor.
    pub fd: u32,
    /// Command.
    pub comm: Vec<u8>,
    /// User id.
    pub uid: u32,
    /// The user's name, or number.
    pub user: String,
    /// Control group with what it tells: unit, container.
    pub cgroup: Option<Cgroup>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_what_it_looks_like() {
        let name = |name: UnixName| Ok(Target::Name(name));
        for (text, target) in [
            ("/run/x.sock", name(UnixName::Pathname(b"/run/x.sock".to_vec()))),
            ("./x", name(UnixName::Pathname(b"./x".to_vec()))),
            ("@bus", name(UnixName::Abstract(b"bus".to_vec()))),
            ("@", name(UnixName::Abstract(Vec::new()))),
            ("@a\\x00\\xff\\\\", name(UnixName::Abstract(b"a\0\xff\\".to_vec()))),
            ("12", Ok(Target::Process { pid: 12, fd: None })),
            ("12:3", Ok(Target::Process { pid: 12, fd: Some(3) })),
            ("inode:77", Ok(Target::Inode(77))),
            ("cookie:5", Ok(Target::Cookie(5))),
        ] {
            assert_eq!(text.parse(), target, "{text}");
        }
        for text in [
            "",
            "x",
            "-1",
            "0",
            "1:",
            "1:x",
            "inode:",
            "inode:x",
            "inode:0",
            "cookie:0",
            "cookie:-1",
            "@\\x0",
            "@\\q",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_asked_again() {
        for text in ["/run/x.sock", "@a\\x00\\xff\\\\", "12:3", "12", "inode:77", "cookie:5"] {
            let target: Target = text.parse().expect("a target");
            assert_eq!(target.to_string(), text);
        }
    }
}
