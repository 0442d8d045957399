//! The options of internet sockets beside those of `SOL_SOCKET`, as a table: when and how each is set again. Pure.
//!
//! What an option is to a socket of another protocol or version the kernel says itself (`ENOPROTOOPT`).

use super::inet::Protocol;

/// When an option is set again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// Before `bind`: it decides what may be bound, or what the kernel does then.
    First,
    /// After `listen`, or when the socket is connected.
    Opened,
    /// When nothing is sent or received any more by ucr: it changes what is.
    Last,
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// `SOL_IP`, `SOL_IPV6`, `SOL_TCP`, `SOL_UDP` (UDP-Lite takes the same).
    pub level: i32,
    /// Its number on that level.
    pub number: i32,
    /// Its name.
    pub name: &'static str,
    /// When it is set.
    pub when: When,
}

const fn ip(number: i32, name: &'static str, when: When) -> Known {
    Known { level: libc::SOL_IP, number, name, when }
}

const fn ipv6(number: i32, name: &'static str, when: When) -> Known {
    Known { level: libc::SOL_IPV6, number, name, when }
}

const fn tcp(number: i32, name: &'static str, when: When) -> Known {
    Known { level: libc::SOL_TCP, number, name, when }
}

const fn udp(number: i32, name: &'static str, when: When) -> Known {
    Known { level: libc::SOL_UDP, number, name, when }
}

use When::{First, Last, Opened};

/// In the order in which they are set.
pub const TABLE: &[Known] = &[
    ip(libc::IP_FREEBIND, "IP_FREEBIND", First),
    ip(libc::IP_TRANSPARENT, "IP_TRANSPARENT", First),
    ip(libc::IP_BIND_ADDRESS_NO_PORT, "IP_BIND_ADDRESS_NO_PORT", First),
    ip(IP_LOCAL_PORT_RANGE, "IP_LOCAL_PORT_RANGE", First),
    ip(libc::IP_OPTIONS, "IP_OPTIONS", First),
    ip(libc::IP_TOS, "IP_TOS", First),
    ip(libc::IP_TTL, "IP_TTL", First),
    ip(libc::IP_MTU_DISCOVER, "IP_MTU_DISCOVER", First),
    ip(IP_UNICAST_IF, "IP_UNICAST_IF", First),
    ip(libc::IP_MULTICAST_IF, "IP_MULTICAST_IF", First),
    ip(libc::IP_MULTICAST_TTL, "IP_MULTICAST_TTL", First),
    ip(libc::IP_MULTICAST_LOOP, "IP_MULTICAST_LOOP", First),
    ip(libc::IP_MULTICAST_ALL, "IP_MULTICAST_ALL", First),
    ip(libc::IP_PKTINFO, "IP_PKTINFO", First),
    ip(libc::IP_RECVOPTS, "IP_RECVOPTS", First),
    ip(libc::IP_RETOPTS, "IP_RETOPTS", First),
    ip(libc::IP_RECVTTL, "IP_RECVTTL", First),
    ip(libc::IP_RECVTOS, "IP_RECVTOS", First),
    ip(libc::IP_RECVORIGDSTADDR, "IP_RECVORIGDSTADDR", First),
    ip(IP_CHECKSUM, "IP_CHECKSUM", First),
    ip(IP_RECVFRAGSIZE, "IP_RECVFRAGSIZE", First),
    ip(libc::IP_PASSSEC, "IP_PASSSEC", First),
    ip(libc::IP_RECVERR, "IP_RECVERR", Last),
    ip(IP_RECVERR_RFC4884, "IP_RECVERR_RFC4884", Last),
    ip(libc::IP_MINTTL, "IP_MINTTL", Last),
    ipv6(libc::IPV6_V6ONLY, "IPV6_V6ONLY", First),
    ipv6(IPV6_FREEBIND, "IPV6_FREEBIND", First),
    ipv6(libc::IPV6_TRANSPARENT, "IPV6_TRANSPARENT", First),
    ipv6(libc::IPV6_UNICAST_HOPS, "IPV6_UNICAST_HOPS", First),
    ipv6(libc::IPV6_TCLASS, "IPV6_TCLASS", First),
    ipv6(libc::IPV6_MTU_DISCOVER, "IPV6_MTU_DISCOVER", First),
    ipv6(libc::IPV6_DONTFRAG, "IPV6_DONTFRAG", First),
    ipv6(IPV6_AUTOFLOWLABEL, "IPV6_AUTOFLOWLABEL", First),
    ipv6(IPV6_FLOWINFO_SEND, "IPV6_FLOWINFO_SEND", First),
    ipv6(libc::IPV6_ADDR_PREFERENCES, "IPV6_ADDR_PREFERENCES", First),
    ipv6(IPV6_UNICAST_IF, "IPV6_UNICAST_IF", First),
    ipv6(libc::IPV6_MULTICAST_IF, "IPV6_MULTICAST_IF", First),
    ipv6(libc::IPV6_MULTICAST_HOPS, "IPV6_MULTICAST_HOPS", First),
    ipv6(libc::IPV6_MULTICAST_LOOP, "IPV6_MULTICAST_LOOP", First),
    ipv6(IPV6_MULTICAST_ALL, "IPV6_MULTICAST_ALL", First),
    ipv6(IPV6_ROUTER_ALERT_ISOLATE, "IPV6_ROUTER_ALERT_ISOLATE", First),
    ipv6(libc::IPV6_RECVPKTINFO, "IPV6_RECVPKTINFO", First),
    ipv6(IPV6_2292PKTINFO, "IPV6_2292PKTINFO", First),
    ipv6(libc::IPV6_RECVHOPLIMIT, "IPV6_RECVHOPLIMIT", First),
    ipv6(IPV6_2292HOPLIMIT, "IPV6_2292HOPLIMIT", First),
    ipv6(libc::IPV6_RECVRTHDR, "IPV6_RECVRTHDR", First),
    ipv6(IPV6_2292RTHDR, "IPV6_2292RTHDR", First),
    ipv6(libc::IPV6_RECVHOPOPTS, "IPV6_RECVHOPOPTS", First),
    ipv6(IPV6_2292HOPOPTS, "IPV6_2292HOPOPTS", First),
    ipv6(libc::IPV6_RECVDSTOPTS, "IPV6_RECVDSTOPTS", First),
    ipv6(IPV6_2292DSTOPTS, "IPV6_2292DSTOPTS", First),
    ipv6(libc::IPV6_RECVTCLASS, "IPV6_RECVTCLASS", First),
    ipv6(libc::IPV6_FLOWINFO, "IPV6_FLOWINFO", First),
    ipv6(libc::IPV6_RECVPATHMTU, "IPV6_RECVPATHMTU", First),
    ipv6(libc::IPV6_RECVORIGDSTADDR, "IPV6_RECVORIGDSTADDR", First),
    ipv6(IPV6_RECVFRAGSIZE, "IPV6_RECVFRAGSIZE", First),
    ipv6(libc::IPV6_RECVERR, "IPV6_RECVERR", Last),
    ipv6(IPV6_RECVERR_RFC4884, "IPV6_RECVERR_RFC4884", Last),
    ipv6(IPV6_MINHOPCOUNT, "IPV6_MINHOPCOUNT", Last),
    // Headers of every packet that is sent; those before a routing header only beside one.
    ipv6(libc::IPV6_HOPOPTS, "IPV6_HOPOPTS", First),
    ipv6(libc::IPV6_RTHDR, "IPV6_RTHDR", First),
    ipv6(libc::IPV6_RTHDRDSTOPTS, "IPV6_RTHDRDSTOPTS", First),
    ipv6(libc::IPV6_DSTOPTS, "IPV6_DSTOPTS", First),
    tcp(libc::TCP_CONGESTION, "TCP_CONGESTION", First),
    tcp(libc::TCP_MAXSEG, "TCP_MAXSEG", First),
    tcp(libc::TCP_WINDOW_CLAMP, "TCP_WINDOW_CLAMP", First),
    tcp(libc::TCP_NODELAY, "TCP_NODELAY", First),
    tcp(libc::TCP_KEEPIDLE, "TCP_KEEPIDLE", First),
    tcp(libc::TCP_KEEPINTVL, "TCP_KEEPINTVL", First),
    tcp(libc::TCP_KEEPCNT, "TCP_KEEPCNT", First),
    tcp(libc::TCP_SYNCNT, "TCP_SYNCNT", First),
    tcp(libc::TCP_LINGER2, "TCP_LINGER2", First),
    tcp(libc::TCP_DEFER_ACCEPT, "TCP_DEFER_ACCEPT", First),
    tcp(libc::TCP_USER_TIMEOUT, "TCP_USER_TIMEOUT", First),
    tcp(libc::TCP_THIN_LINEAR_TIMEOUTS, "TCP_THIN_LINEAR_TIMEOUTS", First),
    tcp(libc::TCP_THIN_DUPACK, "TCP_THIN_DUPACK", First),
    tcp(libc::TCP_NOTSENT_LOWAT, "TCP_NOTSENT_LOWAT", First),
    tcp(TCP_SAVE_SYN, "TCP_SAVE_SYN", First),
    tcp(libc::TCP_FASTOPEN, "TCP_FASTOPEN", Opened),
    tcp(libc::TCP_FASTOPEN_KEY, "TCP_FASTOPEN_KEY", Opened),
    tcp(libc::TCP_FASTOPEN_CONNECT, "TCP_FASTOPEN_CONNECT", First),
    tcp(libc::TCP_FASTOPEN_NO_COOKIE, "TCP_FASTOPEN_NO_COOKIE", First),
    tcp(libc::TCP_INQ, "TCP_INQ", First),
    tcp(TCP_TX_DELAY, "TCP_TX_DELAY", First),
    tcp(TCP_RTO_MAX_MS, "TCP_RTO_MAX_MS", First),
    tcp(TCP_RTO_MIN_US, "TCP_RTO_MIN_US", First),
    tcp(TCP_DELACK_MAX_US, "TCP_DELACK_MAX_US", First),
    tcp(libc::TCP_QUICKACK, "TCP_QUICKACK", Last),
    tcp(libc::TCP_CORK, "TCP_CORK", Last),
    udp(UDP_CORK, "UDP_CORK", Last),
    udp(UDP_ENCAP, "UDP_ENCAP", Last),
    udp(UDP_NO_CHECK6_TX, "UDP_NO_CHECK6_TX", First),
    udp(UDP_NO_CHECK6_RX, "UDP_NO_CHECK6_RX", First),
    udp(libc::UDP_SEGMENT, "UDP_SEGMENT", Last),
    udp(libc::UDP_GRO, "UDP_GRO", Last),
    udp(UDPLITE_SEND_CSCOV, "UDPLITE_SEND_CSCOV", First),
    udp(UDPLITE_RECV_CSCOV, "UDPLITE_RECV_CSCOV", First),
];

// Not in libc.
const IP_CHECKSUM: i32 = 23;
const IP_RECVFRAGSIZE: i32 = 25;
const IP_RECVERR_RFC4884: i32 = 26;
const IP_UNICAST_IF: i32 = 50;
const IP_LOCAL_PORT_RANGE: i32 = 51;
const IPV6_2292PKTINFO: i32 = 2;
const IPV6_2292HOPOPTS: i32 = 3;
const IPV6_2292DSTOPTS: i32 = 4;
const IPV6_2292RTHDR: i32 = 5;
const IPV6_2292HOPLIMIT: i32 = 8;
const IPV6_MULTICAST_ALL: i32 = 29;
const IPV6_ROUTER_ALERT_ISOLATE: i32 = 30;
const IPV6_RECVERR_RFC4884: i32 = 31;
const IPV6_FLOWINFO_SEND: i32 = 33;
const IPV6_AUTOFLOWLABEL: i32 = 70;
pub(crate) const IPV6_MINHOPCOUNT: i32 = 73;
const IPV6_UNICAST_IF: i32 = 76;
const IPV6_RECVFRAGSIZE: i32 = 77;
const IPV6_FREEBIND: i32 = 78;
const TCP_SAVE_SYN: i32 = 27;
pub(crate) const TCP_TX_DELAY: i32 = 37;
const TCP_RTO_MAX_MS: i32 = 44;
const TCP_RTO_MIN_US: i32 = 45;
const TCP_DELACK_MAX_US: i32 = 46;
const UDP_CORK: i32 = 1;
pub(crate) const UDP_ENCAP: i32 = 100;
const UDP_NO_CHECK6_TX: i32 = 101;
const UDP_NO_CHECK6_RX: i32 = 102;
const UDPLITE_SEND_CSCOV: i32 = 10;
const UDPLITE_RECV_CSCOV: i32 = 11;

/// The entry for an option.
#[must_use]
pub fn known(level: i32, number: i32) -> Option<&'static Known> {
    TABLE.iter().find(|known| (known.level, known.number) == (level, number))
}

/// Where an option stands in the order in which they are set.
#[must_use]
pub fn rank(level: i32, number: i32) -> usize {
    TABLE
        .iter()
        .position(|known| (known.level, known.number) == (level, number))
        .unwrap_or(TABLE.len())
}

/// The option's name, or its numbers if it is not in the table.
#[must_use]
pub fn name(level: i32, number: i32) -> String {
    known(level, number)
        .map_or_else(|| format!("option {number} of level {level}"), |known| known.name.to_owned())
}

/// The options that sockets of a protocol can have.
pub fn of(protocol: Protocol) -> impl Iterator<Item = &'static Known> {
    TABLE.iter().filter(move |known| match known.level {
        libc::SOL_TCP => protocol == Protocol::Tcp,
        libc::SOL_UDP => protocol.is_datagram(),
        _ => true,
    })
}

/// Options that a new socket takes and that are no part of an image, with the reason.
pub const LEFT_OUT: &[(i32, i32, &str, &str)] =
    &[(libc::SOL_TCP, libc::TCP_REPAIR, "TCP_REPAIR", "by it ucr itself makes connections anew")];
