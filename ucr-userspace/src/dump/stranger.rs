//! Sockets that ucr does not dump, by name, and why.

use std::fmt;

use crate::model::netlink::NetlinkProtocol;

/// What a socket is that is none of those that can be dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stranger {
    /// `AF_*`.
    pub(super) family: u32,
    /// `SOCK_*`.
    pub(super) socket_type: u32,
    /// `SO_PROTOCOL`.
    pub(super) protocol: i32,
}

/// What it is, and what is lost of it; `None` if nothing more is known than its numbers.
fn known(family: i32, socket_type: i32, protocol: i32) -> Option<(&'static str, &'static str)> {
    const ASSOCIATION: &str = "what both ends have agreed upon can be neither read nor set";
    Some(match (family, socket_type, protocol) {
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_RAW, _) => {
            ("a raw socket", "the kernel tells neither its address nor what it has received whole")
        }
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_MPTCP) => (
            "an MPTCP socket",
            "keys and numbers of its subflows cannot be set (it has no repair mode)",
        ),
        (libc::AF_INET | libc::AF_INET6, _, libc::IPPROTO_SCTP) => ("an SCTP socket", ASSOCIATION),
        (libc::AF_INET | libc::AF_INET6, _, libc::IPPROTO_DCCP) => ("a DCCP socket", ASSOCIATION),
        (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP)
        | (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6) => {
            ("a ping socket", "its number is the kernel's choice, and answers come to no other")
        }
        (libc::AF_PACKET, ..) => (
            "a packet socket",
            "its rings are memory that its process shares with the kernel, and its place in a fanout group cannot be \
             had again",
        ),
        (libc::AF_VSOCK, ..) => {
            ("a vsock socket", "its other end is another machine's, which would notice")
        }
        (libc::AF_ALG, ..) => ("a socket of the crypto API", "its key can be set and never read"),
        (libc::AF_XDP, ..) => (
            "an XDP socket",
            "its rings are memory that its process shares with the kernel and a driver",
        ),
        (libc::AF_BLUETOOTH, ..) => ("a Bluetooth socket", ASSOCIATION),
        (libc::AF_CAN, ..) => ("a CAN socket", "what it sends by itself, in turns, no call tells"),
        (libc::AF_TIPC, ..) => ("a TIPC socket", ASSOCIATION),
        _ => return None,
    })
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: u32| i32::try_from(number).unwrap_or(-1);
        let (family, socket_type) = (number(self.family), number(self.socket_type));
        let (name, kind) = (FamilyName(family), TypeName(socket_type));
        if family == libc::AF_NETLINK {
            let protocol = NetlinkProtocol(self.protocol);
            return write!(
                f,
                "a netlink socket ({name}, {kind}, {protocol}): what the kernel keeps under its address no call tells"
            );
        }
        match known(family, socket_type, self.protocol) {
            Some((what, why)) => {
                write!(f, "{what} ({name}, {kind}, protocol {}): {why}", self.protocol)
            }
            None => write!(
                f,
                "a socket of {name}, {kind}, protocol {}: ucr dumps unix, UDP, TCP and netlink sockets",
                self.protocol
            ),
        }
    }
}

struct FamilyName(i32);

impl fmt::Display for FamilyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            libc::AF_INET => "AF_INET",
            libc::AF_INET6 => "AF_INET6",
            libc::AF_NETLINK => "AF_NETLINK",
            libc::AF_PACKET => "AF_PACKET",
            libc::AF_VSOCK => "AF_VSOCK",
            libc::AF_ALG => "AF_ALG",
            libc::AF_XDP => "AF_XDP",
            libc::AF_BLUETOOTH => "AF_BLUETOOTH",
            libc::AF_CAN => "AF_CAN",
            libc::AF_TIPC => "AF_TIPC",
            other => return write!(f, "address family {other}"),
        })
    }
}

struct TypeName(i32);

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            libc::SOCK_STREAM => "stream",
            libc::SOCK_DGRAM => "dgram",
            libc::SOCK_RAW => "raw",
            libc::SOCK_SEQPACKET => "seqpacket",
            other => return write!(f, "type {other}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_refused_by_its_name_and_with_a_reason() {
        let said = |family: i32, kind: i32, protocol: i32| {
            let (family, socket_type) = (family.cast_unsigned(), kind.cast_unsigned());
            Stranger { family, socket_type, protocol }.to_string()
        };
        let stream = libc::SOCK_STREAM;
        for (text, name, why) in [
            (said(libc::AF_INET, stream, libc::IPPROTO_MPTCP), "an MPTCP socket", "subflows"),
            (said(libc::AF_INET6, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP), "an SCTP", "agreed"),
            (said(libc::AF_INET6, libc::SOCK_RAW, 58), "a raw socket (AF_INET6, raw", "received"),
            (said(libc::AF_INET, libc::SOCK_DGRAM, 1), "a ping socket", "no other"),
            (said(libc::AF_PACKET, libc::SOCK_RAW, 768), "a packet socket", "rings"),
            (said(libc::AF_VSOCK, stream, 0), "a vsock socket", "another machine"),
            (said(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER), "NETFILTER", "keeps"),
            (said(99, 7, 3), "address family 99, type 7, protocol 3", "ucr dumps"),
        ] {
            assert!(text.contains(name) && text.contains(why), "{text}");
        }
    }
}
