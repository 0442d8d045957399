//! An event as user space handles it: decoded from the ring buffer, its directories spelled.

use ucr_common::{
    event::{BindEvent, Event, kind},
    paths::{BindPaths, PATH_TRUNCATED, PATH_UNREADABLE},
};
use zerocopy::FromBytes as _;

use crate::model::{SocketType, UnixName};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// As the kernel side sent it.
    pub raw: Event,
    /// For a bind to a pathname.
    pub directories: Option<Directories>,
}

/// Where a binder stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// Working directory, absolute in its mount namespace.
    pub cwd: Directory,
    /// Root directory, absolute in its mount namespace.
    pub root: Directory,
}

/// One directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Absolute path; if it is not whole, only its lower end is there.
    pub path: Vec<u8>,
    /// Whether all of it could be read.
    pub whole: bool,
}

impl TraceEvent {
    /// Decodes one entry of the ring buffer; `None` if it has no known shape.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if let Ok(raw) = Event::read_from_bytes(bytes) {
            return Some(Self { raw, directories: None });
        }
        let whole = BindEvent::read_from_bytes(bytes).ok()?;
        Some(Self { raw: whole.event, directories: Some(Directories::spell(&whole.paths)) })
    }

    /// What happened, in a word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.raw.kind {
            kind::SOCKET => "socket",
            kind::SOCKETPAIR => "socketpair",
            kind::BIND => "bind",
            kind::LISTEN => "listen",
            kind::CONNECT => "connect",
            kind::ACCEPT => "accept",
            kind::SHUTDOWN => "shutdown",
            kind::CLOSE => "close",
            _ => "unknown",
        }
    }

    /// The name it is about: the new name of a bind, the other end's of a connect, the listener's
    /// of an accept, the socket's own of a listen, shutdown or close.
    #[must_use]
    pub fn name(&self) -> UnixName {
        UnixName::from_sun_path(self.raw.name.as_bytes())
    }

    /// The errno of a call that failed.
    #[must_use]
    pub fn errno(&self) -> Option<nix::errno::Errno> {
        (self.raw.result < 0).then(|| nix::errno::Errno::from_raw(self.raw.result.wrapping_neg()))
    }

    /// The socket's type, if it is one that we know.
    #[must_use]
    pub fn socket_type(&self) -> Option<SocketType> {
        i32::try_from(self.raw.socket_type).ok().and_then(SocketType::from_raw)
    }
}

impl Directories {
    /// From the dentries that the program climbed.
    #[must_use]
    pub fn spell(paths: &BindPaths) -> Self {
        Self {
            cwd: Directory::spell(&paths.cwd, paths.cwd_len, paths.cwd_flags),
            root: Directory::spell(&paths.root, paths.root_len, paths.root_flags),
        }
    }
}

impl Directory {
    fn spell(bytes: &[u8], len: u32, flags: u32) -> Self {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let climbed = bytes.get(..len).unwrap_or(bytes);
        let mut components: Vec<&[u8]> =
            climbed.split(|b| *b == b'/').filter(|c| !c.is_empty()).collect();
        components.reverse();
        let mut path = Vec::with_capacity(climbed.len() + 1);
        for component in components {
            path.push(b'/');
            path.extend_from_slice(component);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Self { path, whole: flags & (PATH_TRUNCATED | PATH_UNREADABLE) == 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_climbed_path_is_turned_round() {
        let spelled = Directory::spell(b"leaf/parent/top/", 16, 0);
        assert_eq!(spelled, Directory { path: b"/top/parent/leaf".to_vec(), whole: true });
        assert_eq!(Directory::spell(&[0; 8], 0, 0).path, b"/");
        assert!(!Directory::spell(b"leaf/", 5, PATH_TRUNCATED).whole);
        // A length beyond the array must not reach beyond it.
        assert_eq!(Directory::spell(b"a/", 4096, 0).path, b"/a");
    }

    #[test]
    fn bytes_of_another_length_are_no_event() {
        assert_eq!(TraceEvent::decode(&[0; 7]), None);
        assert!(TraceEvent::decode(&[0; size_of::<Event>()]).is_some());
        assert!(TraceEvent::decode(&[0; size_of::<BindEvent>()]).is_some());
    }
}
