//! An event as user space handles it: decoded from the ring buffer, its directories spelled.

use ucr_common::{
    event::{BindEvent, CloseEvent, Event, kind},
    inet::{AF_UNIX, ASKED_LEN, RawEnds},
    name::RawName,
    record::Record,
};
use zerocopy::FromBytes as _;

use crate::model::{
    Directories, SocketType, UnixName,
    inet::{Endpoint, Family, Over, Protocol, TcpState},
};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// As the kernel side sent it.
    pub raw: Event,
    /// For a bind to a pathname.
    pub directories: Option<Directories>,
    /// For a close: all that the ledger held of the socket, unless it did not know it.
    pub record: Option<Box<Record>>,
}

/// Every kind of event, as [`TraceEvent::kind`] calls them.
pub const KINDS: [&str; 13] = [
    "socket",
    "socketpair",
    "bind",
    "listen",
    "connect",
    "accept",
    "shutdown",
    "close",
    "disconnect",
    "autobind",
    "pass",
    "take",
    "state",
];

impl TraceEvent {
    /// Decodes one entry of the ring buffer; `None` if it has no known shape.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if let Ok(mut raw) = Event::read_from_bytes(bytes) {
            end_pathname(&mut raw.name, raw.family);
            return Some(Self { raw, directories: None, record: None });
        }
        if let Ok(mut whole) = CloseEvent::read_from_bytes(bytes) {
            end_pathname(&mut whole.event.name, whole.event.family);
            let known = whole.record.socket.sk != 0;
            let record = known.then(|| Box::new(whole.record.join()));
            return Some(Self { raw: whole.event, directories: None, record });
        }
        let mut whole = BindEvent::read_from_bytes(bytes).ok()?;
        end_pathname(&mut whole.event.name, whole.event.family);
        let directories = Some(Directories::spell(&whole.paths));
        Some(Self { raw: whole.event, directories, record: None })
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
            kind::DISCONNECT => "disconnect",
            kind::AUTOBIND => "autobind",
            kind::PASS => "pass",
            kind::TAKE => "take",
            kind::STATE => "state",
            _ => "unknown",
        }
    }

    /// The name it is about: the new name of a bind, the other end's of a connect, the listener's
    /// of an accept, the socket's own of a listen, shutdown or close.
    #[must_use]
    pub fn name(&self) -> UnixName {
        if self.is_inet() {
            return UnixName::Unnamed;
        }
        UnixName::from_sun_path(self.raw.name.as_bytes())
    }

    /// Whether it happened to an internet socket.
    #[must_use]
    pub fn is_inet(&self) -> bool {
        Family::from_raw(self.raw.family.cast_signed()).is_some()
    }

    /// The family in a word, if there was a socket or at least the wish for one.
    #[must_use]
    pub fn family(&self) -> Option<&'static str> {
        match self.over() {
            Some(Over(_, Family::V4)) => Some("inet"),
            Some(Over(_, Family::V6)) => Some("inet6"),
            None => (self.raw.family == AF_UNIX).then_some("unix"),
        }
    }

    /// Whether a connection was asked for that is not there yet.
    #[must_use]
    pub fn is_in_progress(&self) -> bool {
        /// `TCP_SYN_SENT`.
        const SENT: u32 = 2;
        self.is_inet() && self.raw.result >= 0 && self.raw.argument == SENT
    }

    /// What an internet socket speaks.
    #[must_use]
    pub fn over(&self) -> Option<Over> {
        let protocol = Protocol::from_raw(self.raw.protocol.cast_signed())?;
        Some(Over(protocol, Family::from_raw(self.raw.family.cast_signed())?))
    }

    /// Both ends of an internet socket, its own first. Of a call that failed: what it asked for.
    #[must_use]
    pub fn ends(&self) -> [Option<Endpoint>; 2] {
        let Some(Over(_, family)) = self.over() else { return [None, None] };
        let something = |end: &Endpoint| !end.is_nothing();
        if self.raw.name.len == ASKED_LEN {
            let asked = Endpoint::from_sockaddr(self.raw.name.as_bytes());
            return if self.raw.kind == kind::BIND { [asked, None] } else { [None, asked] };
        }
        let ends = RawEnds::of(&self.raw.name).unwrap_or_default();
        // What has been disconnected keeps an address, which means nothing.
        let remote = Some(ends.remote).filter(|end| end.port != 0);
        [Some(ends.local), remote]
            .map(|end| end.map(|end| Endpoint::from_raw(family, &end)).filter(something))
    }

    /// The state of a TCP socket before and after, where that is what is told.
    #[must_use]
    pub fn states(&self) -> Option<[TcpState; 2]> {
        let state = |raw: u32| u8::try_from(raw & 0xff).ok().and_then(TcpState::from_raw);
        let argument = self.raw.argument;
        let is_told = self.raw.kind == kind::STATE;
        is_told.then(|| Some([state(argument >> 8)?, state(argument)?]))?
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

/// Clears what lies behind a name. One that a failed call asked for may go on behind its NUL.
fn end_pathname(name: &mut RawName, family: u32) {
    let bytes = name.as_bytes();
    if family == AF_UNIX
        && bytes.first().is_some_and(|first| *first != 0)
        && let Some(end) = bytes.iter().position(|byte| *byte == 0)
    {
        name.len = u32::try_from(end).unwrap_or(name.len);
    }
    name.clear_tail();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pathname_ends_at_its_nul() {
        let named = |bytes: &[u8]| {
            let mut name = RawName::UNNAMED;
            name.len = u32::try_from(bytes.len()).expect("short");
            name.bytes[..bytes.len()].copy_from_slice(bytes);
            end_pathname(&mut name, AF_UNIX);
            name.as_bytes().to_vec()
        };
        assert_eq!(named(b"/run/x\0stack"), b"/run/x");
        assert_eq!(named(b"/run/x"), b"/run/x");
        assert_eq!(named(b"\0a\0b"), b"\0a\0b");
    }

    #[test]
    fn bytes_of_another_length_are_no_event() {
        assert_eq!(TraceEvent::decode(&[0; 7]), None);
        assert!(TraceEvent::decode(&[0; size_of::<Event>()]).is_some());
        assert!(TraceEvent::decode(&[0; size_of::<BindEvent>()]).is_some());
        assert!(TraceEvent::decode(&[0; size_of::<CloseEvent>()]).is_some());
    }
}
