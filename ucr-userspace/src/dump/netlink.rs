//! Sockets that are neither unix nor of UDP or TCP: netlink ones, which can be dumped as long as nothing waits at them,
//! and those that cannot.

use std::os::fd::AsFd as _;

use foldhash::{HashMap, HashSet};
use ucr_common::descriptor::SocketDescriptor;

use super::{DumpError, inet::InetStock, inventory, owner_of, reader::Duplicates};
use crate::{
    crosscheck::Held,
    model::netlink::NetlinkProtocol,
    process::{
        netlink::{self, NetlinkDetails, Usual},
        state,
    },
};

/// One netlink socket.
#[derive(Debug)]
pub struct NetlinkStock {
    /// Under which identities it is known.
    pub held: Held,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Positions in [`Inventory::descriptors`](super::inventory::Inventory::descriptors).
    pub holders: Vec<usize>,
    /// What it says itself.
    pub details: NetlinkDetails,
    /// References to its file that are neither its holders' nor ours.
    pub references: u64,
}

/// What there is.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) netlink: Vec<NetlinkStock>,
    /// `SO_PROTOCOL` of the others, by the address of the sock.
    pub(super) protocols: HashMap<u64, i32>,
}

/// Takes stock of them, in order of first descriptor.
pub(super) fn find(
    descriptors: &[SocketDescriptor],
    inet: &[InetStock],
) -> Result<Found, DumpError> {
    let known: HashSet<u64> = inet.iter().map(|stock| stock.held.sk).collect();
    let is_other = |descriptor: &SocketDescriptor| {
        let is_unix = i32::try_from(descriptor.family) == Ok(libc::AF_UNIX);
        !is_unix && descriptor.tid == descriptor.pid && !known.contains(&descriptor.socket.sk)
    };
    let (mut duplicates, mut usual) = (Duplicates::default(), Usual::default());
    let mut found = Found::default();
    for (sk, holders) in inventory::holders(descriptors, is_other) {
        let Some(first) = holders.first().and_then(|at| descriptors.get(*at)) else { continue };
        let (pid, fd) = owner_of(first);
        let failed = |source| DumpError::State { pid, fd, source };
        let socket = duplicates.of(first)?;
        let protocol = state::int(socket.as_fd(), libc::SO_PROTOCOL, "SO_PROTOCOL");
        let protocol = protocol.map_err(failed)?;
        let is_netlink = i32::try_from(first.family) == Ok(libc::AF_NETLINK);
        if !(is_netlink && NetlinkProtocol(protocol).is_all()) {
            found.protocols.insert(sk, protocol);
            continue;
        }
        let details = netlink::read(socket.as_fd(), &mut usual).map_err(failed)?;
        found.netlink.push(NetlinkStock {
            held: Held { sk, inode: details.inode, cookie: details.cookie },
            netns: first.netns,
            references: inventory::references(descriptors, &holders),
            holders,
            details,
        });
    }
    Ok(found)
}
