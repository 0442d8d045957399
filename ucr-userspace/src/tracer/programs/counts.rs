//! How many sockets of each kind there are, as the search has counted them.

use ucr_common::sighting::{count_at, count_inet_at};

use crate::model::{
    SocketState, SocketType,
    inet::{Family, Over, Protocol, TcpState},
};

/// By type and state.
pub type UnixCounts = Vec<(SocketType, SocketState, u64)>;
/// By protocol and family, and state.
pub type InetCounts = Vec<(Over, TcpState, u64)>;

const TYPES: [SocketType; 3] = [SocketType::Stream, SocketType::Dgram, SocketType::Seqpacket];
const STATES: [SocketState; 3] =
    [SocketState::Unconnected, SocketState::Listening, SocketState::Connected];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::UdpLite];
/// All that a socket of somebody's can be in, by number.
const TCP_STATES: [u8; 10] = [1, 2, 3, 4, 5, 7, 8, 9, 10, 11];
/// `TCP_ESTABLISHED` and `TCP_CLOSE`: UDP knows no more.
const UDP_STATES: [u8; 2] = [1, 7];

/// Reads the counts where the search has left them.
pub(super) fn read(bytes: &[u8]) -> (UnixCounts, InetCounts) {
    let count = |at: u32| {
        let at = usize::try_from(at).unwrap_or(0) * 8;
        let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
        word.map_or(0, u64::from_ne_bytes)
    };
    let both = TYPES.into_iter().flat_map(|kind| STATES.map(|state| (kind, state)));
    let unix = both.map(|(kind, state)| {
        (kind, state, count(count_at(kind.raw().unsigned_abs(), state.raw().into())))
    });
    let mut inet = Vec::new();
    for family in [Family::V4, Family::V6] {
        for protocol in PROTOCOLS {
            let states: &[u8] = if protocol.is_datagram() { &UDP_STATES } else { &TCP_STATES };
            for raw in states {
                let at = count_inet_at(
                    family.raw().unsigned_abs(),
                    protocol.raw().unsigned_abs(),
                    (*raw).into(),
                );
                let state = TcpState::from_raw(*raw);
                inet.extend(state.map(|state| (Over(protocol, family), state, count(at))));
            }
        }
    }
    (unix.collect(), inet)
}
