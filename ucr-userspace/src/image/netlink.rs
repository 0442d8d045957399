//! What only netlink sockets have.

use serde::{Deserialize, Serialize};

use super::InetOption;

/// An `AF_NETLINK` socket that waits for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netlink {
    /// `SO_TYPE`: `SOCK_RAW`, or else `SOCK_DGRAM`; the kernel treats both alike.
    pub is_raw: bool,
    /// `SO_PROTOCOL`: `NETLINK_ROUTE` and so on.
    pub protocol: i32,
    /// Its address (`nl_pid`); 0 if it has none yet.
    pub port: u32,
    /// Multicast groups that it is in, in ascending order.
    pub groups: Vec<u32>,
    /// To whom it is connected: port and mask of groups.
    pub peer: Option<(u32, u32)>,
    /// `SOL_NETLINK` options that are set.
    pub options: Vec<InetOption>,
}
