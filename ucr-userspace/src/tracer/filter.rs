//! Which events somebody wants to see. Pure.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::event::TraceEvent;
use crate::model::{Pid, SocketType, UnixName, inet::Protocol, name::Escaped};

/// Whether calls that failed are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failed {
    /// Only calls that succeeded.
    #[default]
    Hidden,
    /// All calls.
    Shown,
}

/// What a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A unix socket of this type.
    Unix(SocketType),
    /// An internet socket, over either version of IP.
    Inet(Protocol),
}

impl Kind {
    /// All of them, with what each is called.
    pub const ALL: [(&'static str, Self); 6] = [
        ("stream", Self::Unix(SocketType::Stream)),
        ("dgram", Self::Unix(SocketType::Dgram)),
        ("seqpacket", Self::Unix(SocketType::Seqpacket)),
        ("tcp", Self::Inet(Protocol::Tcp)),
        ("udp", Self::Inet(Protocol::Udp)),
        ("udplite", Self::Inet(Protocol::UdpLite)),
    ];

    /// The one that is called so.
    #[must_use]
    pub fn called(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(called, _)| *called == name).map(|(_, kind)| kind)
    }

    fn of(event: &TraceEvent) -> Option<Self> {
        match event.over() {
            Some(over) => Some(Self::Inet(over.0)),
            None => event.socket_type().map(Self::Unix),
        }
    }
}

/// What every wanted event has. An empty list sets no condition.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Made by one of these processes.
    pub pids: Vec<Pid>,
    /// By a thread whose name, as shown, matches one of these.
    pub comms: Vec<GlobSet>,
    /// About a name (as shown, abstract ones with a leading `@`), or an address with its port, that matches one of
    /// these.
    pub names: Vec<GlobSet>,
    /// In one of these network namespaces, by inode number.
    pub netns: Vec<u32>,
    /// About a socket of one of these kinds.
    pub types: Vec<Kind>,
    /// Of one of these kinds, as [`TraceEvent::kind`] calls them.
    pub kinds: Vec<String>,
    /// Calls that failed.
    pub failed: Failed,
}

impl EventFilter {
    /// Whether the event is wanted.
    #[must_use]
    pub fn wants(&self, event: &TraceEvent) -> bool {
        let raw = &event.raw;
        (self.failed == Failed::Shown || raw.result >= 0)
            && any(&self.pids, |pid| u32::try_from(pid.0).is_ok_and(|pid| pid == raw.actor.pid))
            && any(&self.comms, |glob| glob.is_match(Escaped(raw.actor.comm()).to_string()))
            && any(&self.names, |glob| {
                let name = event.name();
                let ends = event.ends().into_iter().flatten();
                name != UnixName::Unnamed && glob.is_match(name.to_string())
                    || ends.map(|end| end.to_string()).any(|end| glob.is_match(end))
            })
            && any(&self.netns, |netns| *netns == raw.netns)
            && any(&self.types, |wanted| Kind::of(event) == Some(*wanted))
            && any(&self.kinds, |kind| kind == event.kind())
    }
}

/// A pattern for what is shown, where odd bytes are `\xNN`: a backslash has no other meaning in it.
///
/// # Errors
/// It is none, or one that is too large or nested too deeply: some of that is found only by building a set
/// (a single matcher would panic).
pub fn pattern(text: &str) -> Result<GlobSet, globset::Error> {
    let glob = GlobBuilder::new(text).backslash_escape(false).build()?;
    GlobSetBuilder::new().add(glob).build()
}

fn any<T>(conditions: &[T], holds: impl FnMut(&T) -> bool) -> bool {
    conditions.is_empty() || conditions.iter().any(holds)
}

#[cfg(test)]
mod tests {
    use ucr_common::event::{Event, kind};
    use zerocopy::FromZeros as _;

    use super::*;

    fn event(change: impl FnOnce(&mut Event)) -> TraceEvent {
        let mut raw = Event::new_zeroed();
        (raw.kind, raw.family) = (kind::BIND, 1);
        change(&mut raw);
        TraceEvent { raw, directories: None, record: None }
    }

    fn glob(text: &str) -> GlobSet {
        pattern(text).expect("a pattern")
    }

    #[test]
    fn no_condition_wants_all_that_succeeded() {
        let all = EventFilter::default();
        assert!(all.wants(&event(|_| {})));
        assert!(!all.wants(&event(|e| e.result = -98)));
        let failed = EventFilter { failed: Failed::Shown, ..EventFilter::default() };
        assert!(failed.wants(&event(|e| e.result = -98)));
    }

    #[test]
    fn every_condition_must_hold() {
        let filter = EventFilter {
            pids: vec![Pid(7)],
            names: vec![glob("@bus*")],
            ..EventFilter::default()
        };
        let named = |pid: u32, name: &[u8]| {
            event(|e| {
                e.actor.pid = pid;
                e.name.bytes[..name.len()].copy_from_slice(name);
                e.name.len = u32::try_from(name.len()).expect("short");
            })
        };
        assert!(filter.wants(&named(7, b"\0bus1")));
        assert!(!filter.wants(&named(8, b"\0bus1")));
        assert!(!filter.wants(&named(7, b"/bus1")));
        assert!(!filter.wants(&named(7, b"")));
    }

    #[test]
    fn kinds_and_types_select() {
        let filter = EventFilter {
            kinds: vec!["bind".to_owned()],
            types: vec![Kind::Unix(SocketType::Stream)],
            ..EventFilter::default()
        };
        assert!(filter.wants(&event(|e| e.socket_type = 1)));
        assert!(!filter.wants(&event(|e| e.socket_type = 2)));
        assert!(!filter.wants(&event(|e| {
            e.socket_type = 1;
            e.kind = kind::CLOSE;
        })));
    }

    #[test]
    fn internet_sockets_are_chosen_by_protocol_and_address() {
        use ucr_common::inet::{RawEnd, RawEnds};
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[10, 0, 0, 1]);
        let tcp = |e: &mut Event| {
            (e.family, e.protocol, e.socket_type) = (2, 6, 1);
            let local = RawEnd { address, port: 80, interface: 0 };
            e.name = RawEnds { local, ..RawEnds::default() }.to_name();
        };
        let kind = |called: &str| Kind::called(called).expect("a kind");
        let of = |called: &str| EventFilter { types: vec![kind(called)], ..EventFilter::default() };
        assert!(of("tcp").wants(&event(tcp)));
        assert!(!of("udp").wants(&event(tcp)) && !of("stream").wants(&event(tcp)));
        let at = |text: &str| EventFilter { names: vec![glob(text)], ..EventFilter::default() };
        assert!(at("10.0.0.*:80").wants(&event(tcp)));
        assert!(!at("*:443").wants(&event(tcp)) && !at("*P*").wants(&event(tcp)));
    }
}
