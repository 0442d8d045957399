//! Internet sockets in words: protocols, addresses, TCP's states.

use core::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::fmt;

use serde::{Deserialize, Serialize};
use ucr_common::inet::RawEnd;

/// `AF_INET` or `AF_INET6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`; unless `IPV6_V6ONLY` is set it talks to both.
    V6,
}

impl Family {
    /// From the number that the kernel uses.
    #[must_use]
    pub fn from_raw(raw: i32) -> Option<Self> {
        match raw {
            libc::AF_INET => Some(Self::V4),
            libc::AF_INET6 => Some(Self::V6),
            _ => None,
        }
    }

    /// The `AF_*` number.
    #[must_use]
    pub fn raw(self) -> i32 {
        match self {
            Self::V4 => libc::AF_INET,
            Self::V6 => libc::AF_INET6,
        }
    }

    /// The address that stands for all.
    #[must_use]
    pub fn any(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// `IPPROTO_UDP`.
    Udp,
    /// `IPPROTO_UDPLITE`: a checksum that need not cover everything.
    UdpLite,
    /// `IPPROTO_TCP`.
    Tcp,
}

impl Protocol {
    /// From the number that the kernel uses.
    #[must_use]
    pub fn from_raw(raw: i32) -> Option<Self> {
        match raw {
            libc::IPPROTO_UDP => Some(Self::Udp),
            libc::IPPROTO_UDPLITE => Some(Self::UdpLite),
            libc::IPPROTO_TCP => Some(Self::Tcp),
            _ => None,
        }
    }

    /// The `IPPROTO_*` number.
    #[must_use]
    pub fn raw(self) -> i32 {
        match self {
            Self::Udp => libc::IPPROTO_UDP,
            Self::UdpLite => libc::IPPROTO_UDPLITE,
            Self::Tcp => libc::IPPROTO_TCP,
        }
    }

    /// Whether messages are kept apart, and nothing is promised of them.
    #[must_use]
    pub fn is_datagram(self) -> bool {
        matches!(self, Self::Udp | Self::UdpLite)
    }
}

/// A protocol over a version of IP, as `ss` and `lsof` call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Over(pub Protocol, pub Family);

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.0, self.1) {
            (Protocol::Udp, Family::V4) => "udp",
            (Protocol::Udp, Family::V6) => "udp6",
            (Protocol::UdpLite, Family::V4) => "udplite",
            (Protocol::UdpLite, Family::V6) => "udplite6",
            (Protocol::Tcp, Family::V4) => "tcp",
            (Protocol::Tcp, Family::V6) => "tcp6",
        })
    }
}

/// An address with a port: `struct sockaddr_in` or `sockaddr_in6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The port, 0 if there is none.
    pub port: u16,
    /// `sin6_flowinfo` in the host's byte order; 0 for IPv4.
    pub flow: u32,
    /// `sin6_scope_id`, the index of an interface; 0 for IPv4 and where no interface is meant.
    pub scope: u32,
}

impl Endpoint {
    /// Without flow label and scope.
    #[must_use]
    pub fn new(address: IpAddr, port: u16) -> Self {
        Self { address, port, flow: 0, scope: 0 }
    }

    /// From how the programs write it.
    #[must_use]
    pub fn from_raw(family: Family, raw: &RawEnd) -> Self {
        let [a, b, c, d, ..] = raw.address;
        let address = match family {
            Family::V4 => IpAddr::from([a, b, c, d]),
            Family::V6 => IpAddr::from(raw.address),
        };
        Self { scope: scope_of(address, raw.interface), ..Self::new(address, raw.port) }
    }

    /// As the programs write it.
    #[must_use]
    pub fn to_raw(&self) -> RawEnd {
        let mut address = [0; 16];
        match self.address {
            IpAddr::V4(v4) => {
                let bytes = v4.octets();
                address.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
            }
            IpAddr::V6(v6) => address = v6.octets(),
        }
        RawEnd { address, port: self.port, interface: self.scope }
    }

    /// From the bytes of a `struct sockaddr_in` or `sockaddr_in6`; `None` if it is another one's.
    #[must_use]
    pub fn from_sockaddr(bytes: &[u8]) -> Option<Self> {
        let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
        let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
        match Family::from_raw(family.into())? {
            Family::V4 => {
                let address: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
                Some(Self::new(address.into(), port))
            }
            Family::V6 => {
                let address: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
                let scope = u32::from_ne_bytes(bytes.get(24..28)?.try_into().ok()?);
                let address = IpAddr::from(address);
                Some(Self { scope: scope_of(address, scope), ..Self::new(address, port) })
            }
        }
    }

    /// The same without a flow label, which says nothing of where it is.
    #[must_use]
    pub fn place(self) -> Self {
        Self { flow: 0, ..self }
    }

    /// Whether neither address nor port is given.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.port == 0 && self.address.is_unspecified()
    }

    /// Which family's sockets can have it.
    #[must_use]
    pub fn family(&self) -> Family {
        match self.address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The same place without the disguise of an IPv4 address as an IPv6 one.
    #[must_use]
    pub fn unmapped(self) -> Self {
        match self.address {
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(v4) => Self::new(IpAddr::V4(v4), self.port),
                None => self,
            },
            IpAddr::V4(_) => self,
        }
    }
}

/// The interface that an address belongs to, if addresses like it are of one.
#[must_use]
pub fn scope_of(address: IpAddr, interface: u32) -> u32 {
    match address {
        IpAddr::V6(v6)
            if v6.is_unicast_link_local() || matches!(v6.segments(), [0xff01 | 0xff02, ..]) =>
        {
            interface
        }
        _ => 0,
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        let (flow, scope) = match address {
            SocketAddr::V4(_) => (0, 0),
            SocketAddr::V6(v6) => (v6.flowinfo(), v6.scope_id()),
        };
        Self { address: address.ip(), port: address.port(), flow, scope }
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint.address {
            IpAddr::V4(_) => Self::new(endpoint.address, endpoint.port),
            IpAddr::V6(v6) => {
                Self::V6(SocketAddrV6::new(v6, endpoint.port, endpoint.flow, endpoint.scope))
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

/// `sk_state` of a TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TcpState {
    /// Data flows both ways.
    Established,
    /// `connect` has sent a SYN and waits for the answer.
    SynSent,
    /// A connection request is being answered; only of sockets that nobody has yet, and of those that
    /// connect to each other at once.
    SynReceived,
    /// We have sent a FIN that was not acknowledged.
    FinWait1,
    /// Our FIN was acknowledged, the other end has not sent any.
    FinWait2,
    /// Both FINs have been acknowledged; the kernel alone keeps it.
    TimeWait,
    /// Neither listening nor connected.
    Closed,
    /// The other end has sent a FIN, we have not.
    CloseWait,
    /// The other end's FIN came first, ours was not acknowledged.
    LastAck,
    /// Listening.
    Listening,
    /// Both ends have sent a FIN at once, ours was not acknowledged.
    Closing,
}

impl TcpState {
    /// From the number that the kernel uses (`net/tcp_states.h`).
    #[must_use]
    pub fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Established,
            2 => Self::SynSent,
            // `TCP_NEW_SYN_RECV` is that of a request, which has no socket of its own.
            3 | 12 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Closed,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listening,
            11 => Self::Closing,
            _ => return None,
        })
    }

    /// Whether the other end's FIN has come.
    #[must_use]
    pub fn has_received_fin(self) -> bool {
        matches!(self, Self::CloseWait | Self::LastAck | Self::Closing | Self::TimeWait)
    }

    /// Whether our own FIN stands behind what was written.
    #[must_use]
    pub fn has_sent_fin(self) -> bool {
        matches!(
            self,
            Self::FinWait1 | Self::FinWait2 | Self::LastAck | Self::Closing | Self::TimeWait
        )
    }

    /// As RFC 9293 and `ss` write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::TimeWait => "TIME-WAIT",
            Self::Closed => "CLOSED",
            Self::CloseWait => "CLOSE-WAIT",
            Self::LastAck => "LAST-ACK",
            Self::Listening => "LISTEN",
            Self::Closing => "CLOSING",
        }
    }
}

impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_the_same_address_again() {
        for text in ["127.0.0.1:80", "[::1]:443", "[fe80::1%3]:9", "[::ffff:10.0.0.1]:7"] {
            let address: SocketAddr = text.parse().expect("an address");
            let endpoint = Endpoint::from(address);
            assert_eq!(SocketAddr::from(endpoint), address);
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn ends_go_through_the_kernels_shapes() {
        let end = |text: &str| Endpoint::from(text.parse::<SocketAddr>().expect("an address"));
        for text in ["10.0.0.1:80", "[fe80::1%3]:9", "[2001:db8::7]:65535"] {
            assert_eq!(Endpoint::from_raw(end(text).family(), &end(text).to_raw()), end(text));
        }
        let bound = RawEnd { interface: 3, ..end("[2001:db8::7]:1").to_raw() };
        assert_eq!(Endpoint::from_raw(Family::V6, &bound), end("[2001:db8::7]:1"));
        let sockaddr = [2, 0, 0, 80, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Endpoint::from_sockaddr(&sockaddr), Some(end("10.0.0.1:80")));
        assert_eq!(Endpoint::from_sockaddr(&[1, 0, 0, 80]), None);
    }

    #[test]
    fn a_mapped_address_is_ipv4_in_disguise() {
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:7".parse().expect("an address");
        let plain: SocketAddr = "10.0.0.1:7".parse().expect("an address");
        assert_eq!(Endpoint::from(mapped).unmapped(), plain.into());
        assert_eq!(Endpoint::from(plain).unmapped(), plain.into());
    }
}
