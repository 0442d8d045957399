//! An event as user space handles it: decoded from the ring buffer, its directories spelled.

use ucr_common::{
    event::{BindEvent, CloseEvent, Event, kind},
    name::RawName,
    record::Record,
};
use zerocopy::FromBytes as _;

use crate::model::{Directories, SocketType, UnixName};

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
pub const KINDS: [&str; 12] = [
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
];

impl TraceEvent {
    /// Decodes one entry of the ring buffer; `None` if it has no known shape.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if let Ok(mut raw) = Event::read_from_bytes(bytes) {
            end_pathname(&mut raw.name);
            return Some(Self { raw, directories: None, record: None });
        }
        if let Ok(mut whole) = CloseEvent::read_from_bytes(bytes) {
            end_pathname(&mut whole.event.name);
            let known = whole.record.socket.sk != 0;
            let record = known.then(|| Box::new(whole.record.join()));
            return Some(Self { raw: whole.event, directories: None, record });
        }
        let mut whole = BindEvent::read_from_bytes(bytes).ok()?;
        end_pathname(&mut whole.event.name);
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

/// Clears what lies behind a name. One that a failed call asked for may go on behind its NUL.
fn end_pathname(name: &mut RawName) {
    let bytes = name.as_bytes();
    if bytes.first().is_some_and(|first| *first != 0)
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
            end_pathname(&mut name);
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
