//! Netlink sockets: their protocols and their options.

use std::fmt;

/// `SOL_NETLINK`.
pub const LEVEL: i32 = 270;

/// Options that can be read and set, and that are numbers (`linux/netlink.h`); 0 unless somebody has set them.
pub const OPTIONS: [(i32, &str); 7] = [
    (3, "NETLINK_PKTINFO"),
    (4, "NETLINK_BROADCAST_ERROR"),
    (5, "NETLINK_NO_ENOBUFS"),
    (8, "NETLINK_LISTEN_ALL_NSID"),
    (10, "NETLINK_CAP_ACK"),
    (11, "NETLINK_EXT_ACK"),
    (12, "NETLINK_GET_STRICT_CHK"),
];

/// Protocols by number, and whether a socket is all that there is of it: of the others the kernel keeps something
/// under its address that no call tells, a queue of packets, who is the audit daemon, a session.
const PROTOCOLS: [(i32, &str, bool); 16] = [
    (libc::NETLINK_ROUTE, "NETLINK_ROUTE", true),
    (libc::NETLINK_USERSOCK, "NETLINK_USERSOCK", true),
    (libc::NETLINK_SOCK_DIAG, "NETLINK_SOCK_DIAG", true),
    (libc::NETLINK_NFLOG, "NETLINK_NFLOG", false),
    (libc::NETLINK_XFRM, "NETLINK_XFRM", true),
    (libc::NETLINK_SELINUX, "NETLINK_SELINUX", true),
    (libc::NETLINK_ISCSI, "NETLINK_ISCSI", false),
    (libc::NETLINK_AUDIT, "NETLINK_AUDIT", false),
    (libc::NETLINK_FIB_LOOKUP, "NETLINK_FIB_LOOKUP", true),
    (libc::NETLINK_CONNECTOR, "NETLINK_CONNECTOR", true),
    (libc::NETLINK_NETFILTER, "NETLINK_NETFILTER", false),
    (libc::NETLINK_KOBJECT_UEVENT, "NETLINK_KOBJECT_UEVENT", true),
    (libc::NETLINK_GENERIC, "NETLINK_GENERIC", true),
    (libc::NETLINK_SCSITRANSPORT, "NETLINK_SCSITRANSPORT", false),
    (libc::NETLINK_RDMA, "NETLINK_RDMA", false),
    (libc::NETLINK_CRYPTO, "NETLINK_CRYPTO", true),
];

/// A protocol, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetlinkProtocol(pub i32);

impl NetlinkProtocol {
    /// Whether nothing is lost of a socket that is made anew with the same address, groups and options.
    #[must_use]
    pub fn is_all(self) -> bool {
        PROTOCOLS.iter().any(|(number, _, is_all)| *number == self.0 && *is_all)
    }
}

impl fmt::Display for NetlinkProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PROTOCOLS.iter().find(|(number, ..)| *number == self.0) {
            Some((_, name, _)) => f.write_str(name),
            None => write!(f, "netlink protocol {}", self.0),
        }
    }
}

/// The name of an option.
#[must_use]
pub fn option_name(number: i32) -> String {
    let known = OPTIONS.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("SOL_NETLINK option {number}"), |(_, name)| (*name).to_owned())
}
