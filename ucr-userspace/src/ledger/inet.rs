//! Internet sockets as they were tracked. Pure.

use ucr_common::{
    inet::{AF_UNIX, RawEnds},
    record::Record,
};

use super::BadRecord;
use crate::model::{
    SocketState,
    inet::{Endpoint, Family, Over, Protocol, TcpState},
};

/// What only internet sockets have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackedInet {
    /// Protocol and family.
    pub kind: Over,
    /// `sk_state`; of UDP closed or, if it has an other end, established.
    pub state: TcpState,
    /// Its own end.
    pub local: Option<Endpoint>,
    /// The other end. What one that is closed again was connected to the kernel does not show any more.
    pub remote: Option<Endpoint>,
}

impl TrackedInet {
    /// `None` for a unix socket.
    ///
    /// # Errors
    /// A number that has no meaning.
    pub(super) fn of(record: &Record) -> Result<Option<Self>, BadRecord> {
        if record.family == AF_UNIX {
            return Ok(None);
        }
        let bad = |field, value| BadRecord { sk: record.socket.sk, field, value };
        let signed = |value: u32| i32::try_from(value).ok();
        let family = signed(record.family).and_then(Family::from_raw);
        let family = family.ok_or(bad("family", record.family))?;
        let protocol = signed(record.protocol).and_then(Protocol::from_raw);
        let protocol = protocol.ok_or(bad("protocol", record.protocol))?;
        let state = u8::try_from(record.state).ok().and_then(TcpState::from_raw);
        let state = state.ok_or(bad("state", record.state))?;
        let ends = RawEnds::of(&record.name).unwrap_or_default();
        let end = |raw| Some(Endpoint::from_raw(family, raw)).filter(|end| !end.is_nothing());
        let has_remote = !matches!(state, TcpState::Closed | TcpState::Listening);
        Ok(Some(Self {
            kind: Over(protocol, family),
            state,
            local: end(&ends.local),
            remote: end(&ends.remote).filter(|_| has_remote),
        }))
    }

    /// As unix sockets have it.
    pub(super) fn rough_state(&self) -> SocketState {
        match self.state {
            TcpState::Listening => SocketState::Listening,
            TcpState::Closed => SocketState::Unconnected,
            _ => SocketState::Connected,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use core::net::SocketAddr;

    use ucr_common::{
        inet::{AF_INET, AF_INET6},
        record::origin,
    };
    use zerocopy::FromZeros as _;

    use super::{super::Tracked, *};

    /// One end of a TCP connection, in a network namespace of the same number.
    pub(in super::super) fn tcp(sk: u64, local: &str, remote: &str) -> Tracked {
        let end = |text: &str| Endpoint::from(text.parse::<SocketAddr>().expect("an address"));
        let mut record = Record::new_zeroed();
        record.socket.sk = sk;
        let family = if local.starts_with('[') { AF_INET6 } else { AF_INET };
        (record.family, record.protocol, record.socket_type) = (family, 6, 1);
        (record.state, record.origin) = (1, origin::ACCEPT);
        record.netns = u32::try_from(sk).expect("small");
        let ends = RawEnds { local: end(local).to_raw(), remote: end(remote).to_raw() };
        record.name = ends.to_name();
        Tracked::new(&record, None).expect("a sound record")
    }

    #[test]
    fn an_accepted_one_has_been_seen_from_the_beginning() {
        let accepted = tcp(1, "10.0.0.1:80", "10.0.0.2:999");
        assert!(accepted.is_live() && !accepted.name.is_named());
    }
}
