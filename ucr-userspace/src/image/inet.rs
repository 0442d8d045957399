//! What only internet sockets have.

use serde::{Deserialize, Serialize};

use super::SocketIndex;
use crate::model::inet::{Endpoint, Family, Protocol, TcpState};

/// An `AF_INET` or `AF_INET6` socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inet {
    /// `SO_DOMAIN`.
    pub family: Family,
    /// `SO_PROTOCOL`.
    pub protocol: Protocol,
    /// `getsockname`; `None` if it has neither address nor port.
    pub local: Option<Endpoint>,
    /// `getpeername`; `None` if it is not connected.
    pub remote: Option<Endpoint>,
    /// Options of all levels but `SOL_SOCKET` whose value differs from that of a new socket.
    pub options: Vec<InetOption>,
    /// Multicast groups that it is in, in the order in which they are joined.
    pub memberships: Vec<Membership>,
    /// Its place among those that share its port (`SO_REUSEPORT`), which are made in this order.
    pub turn: Option<u32>,
    /// UDP: what waits to be received, in order.
    pub datagrams: Vec<Datagram>,
    /// UDP: a datagram that is not finished.
    pub held_back: Option<HeldBack>,
    /// TCP, neither closed nor listening.
    pub tcp: Option<Box<Tcp>>,
    /// Of a listener: connections that wait to be accepted, in order.
    pub waiting: Vec<Waiting>,
}

/// An option of `IPPROTO_IP`, `IPPROTO_IPV6`, `IPPROTO_TCP` or `IPPROTO_UDP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InetOption {
    /// Which of them.
    pub level: i32,
    /// Its number on that level.
    pub number: i32,
    /// The bytes that `getsockopt` gave.
    pub value: Vec<u8>,
}

/// A multicast group that a socket is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The group's address.
    pub group: core::net::IpAddr,
    /// Index of the interface.
    pub interface: u32,
    /// `MCAST_EXCLUDE`: all sources but these; else these only.
    pub excludes: bool,
    /// Sources.
    pub sources: Vec<core::net::IpAddr>,
}

/// A datagram that waits to be received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagram {
    /// What is in it.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
    /// Where it came from.
    pub from: Endpoint,
    /// Where it was sent to.
    pub to: Endpoint,
}

/// A datagram that is not finished: the socket is corked (`UDP_CORK`), or was told that more is to come
/// (`MSG_MORE`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// What there is of it.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
    /// Where it is to be sent.
    pub to: Endpoint,
}

/// A TCP connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tcp {
    /// Which state it is in.
    pub state: TcpState,
    /// What came and was not read. A FIN stands behind it, if one has come in this state.
    pub received: Stream,
    /// What was written and not acknowledged. A FIN stands behind it, if there is one in this state; of `SynSent`
    /// its end is the number behind the SYN.
    pub sent: Stream,
    /// How many sequence numbers at the end of what was written were never sent: bytes, and that of a FIN.
    pub unsent: u32,
    /// `tcpi_options` and what goes with them: what both ends agreed upon.
    pub agreed: Agreed,
    /// `TCP_REPAIR_WINDOW`; `None` before the other end has answered.
    pub window: Option<Window>,
    /// How large its buffers have become.
    pub buffers: Buffers,
    /// An urgent byte (`MSG_OOB`) of the other end's.
    pub urgent: Option<Urgent>,
    /// The number behind our own last urgent byte, if it is not acknowledged.
    pub sent_urgent: Option<u32>,
}

/// A connection that waits to be accepted: nobody has a descriptor of its end at the listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The end that connected.
    pub client: SocketIndex,
    /// What came at the end that waits, all that the client's has had acknowledged: nobody can have read it.
    pub received: Stream,
    /// An urgent byte among it.
    pub urgent: Option<Urgent>,
}

impl Waiting {
    /// All that the client has sent: what came, and what of its own queue (`sent`) is behind that. `None` if these do
    /// not fit.
    #[must_use]
    pub fn with(&self, sent: &Stream) -> Option<Stream> {
        let came = self.received.end.wrapping_sub(sent.begin());
        let rest = sent.data.get(usize::try_from(came).ok()?..)?;
        Some(Stream { end: sent.end, data: [&self.received.data, rest].concat() })
    }
}

/// An urgent byte that was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Urgent {
    /// Its sequence number.
    pub number: u32,
    /// What has become of it.
    pub progress: Progress,
}

/// What has become of an urgent byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// It has not come yet.
    Announced,
    /// It has come.
    Waiting,
    /// It was read; what came before it was not.
    Read,
}

/// Sizes of buffers as the kernel counts them (`sk_sndbuf`, `sk_rcvbuf`), in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffers {
    /// `SO_SNDBUF`.
    pub send: u32,
    /// `SO_RCVBUF`.
    pub receive: u32,
}

impl Buffers {
    /// The nearest that `SO_SNDBUF` and `SO_RCVBUF` can make of a socket, which take half of it: never less. What the
    /// kernel has enlarged by itself can be odd.
    #[must_use]
    pub fn settable(self) -> Self {
        let even = |size: u32| size.saturating_add(size % 2);
        Self { send: even(self.send), receive: even(self.receive) }
    }
}

/// Bytes with their sequence number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// The sequence number behind the last byte (`TCP_QUEUE_SEQ`).
    pub end: u32,
    /// The bytes before it.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

impl Stream {
    /// The sequence number of the first byte.
    #[must_use]
    pub fn begin(&self) -> u32 {
        self.end.wrapping_sub(u32::try_from(self.data.len()).unwrap_or(u32::MAX))
    }
}

/// What both ends agreed upon when the connection was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// The largest segment that the other end takes (`mss_clamp`).
    pub mss: u16,
    /// By how many bits the other end's windows are shifted, and ours; `None` without window scaling.
    pub scale: Option<(u8, u8)>,
    /// `SACK`.
    pub sack: bool,
    /// `TCP_TIMESTAMP`; `None` without time stamps.
    pub timestamp: Option<u32>,
}

/// `struct tcp_repair_window`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Sequence number of the last window update.
    pub send_update: u32,
    /// The window that the other end announced.
    pub send: u32,
    /// The largest that it ever did.
    pub most: u32,
    /// The window that we announced.
    pub receive: u32,
    /// Up to which sequence number we had received then.
    pub receive_update: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_buffers_become_even_and_never_less() {
        let settable = Buffers { send: 87_041, receive: 131_072 }.settable();
        assert_eq!(settable, Buffers { send: 87_042, receive: 131_072 });
    }
}
