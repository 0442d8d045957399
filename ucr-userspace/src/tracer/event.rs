//! An event as user space handles it: decoded from the ring buffer, its directories spelled.

use ucr_common::event::{BindEvent, Event, kind};
use zerocopy::FromBytes as _;

use crate::model::{Directories, SocketType, UnixName};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// As the kernel side sent it.
    pub raw: Event,
    /// For a bind to a pathname.
    pub directories: Option<Directories>,
}

/// Every kind of event, as [`TraceEvent::kind`] calls them.
pub const KINDS: [&str; 8] =
    ["socket", "socketpair", "bind", "listen", "connect", "accept", "shutdown", "close"];

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_another_length_are_no_event() {
        assert_eq!(TraceEvent::decode(&[0; 7]), None);
        assert!(TraceEvent::decode(&[0; size_of::<Event>()]).is_some());
        assert!(TraceEvent::decode(&[0; size_of::<BindEvent>()]).is_some());
    }
}
