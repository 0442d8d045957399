//! Netlink sockets, from what was found to the image.

use super::{Assembly, Common};
use crate::{
    dump::netlink::NetlinkStock,
    image::{Fact, KnownFrom, Process, Role, Socket, Source},
    model::{Shutdown, SocketType},
};

impl Assembly<'_> {
    /// Puts the netlink sockets behind the others.
    pub(super) fn netlink(
        &mut self,
        sockets: &mut Vec<Socket>,
        processes: &[Process],
        own_netns: u32,
    ) {
        let inventory = self.inventory;
        for stock in &inventory.netlink {
            self.refuse_netlink(stock, processes, own_netns);
            sockets.push(socket(stock));
        }
    }

    fn refuse_netlink(&mut self, stock: &NetlinkStock, processes: &[Process], own_netns: u32) {
        let details = &stock.details;
        let what = Common {
            netns: stock.netns,
            lost: &details.not_restorable,
            notification: details.notification,
        };
        let mut reasons = what.refused(processes, own_netns);
        let inode = stock.held.inode;
        reasons.extend(self.sharing_of(&stock.holders, inode, stock.references));
        for reason in reasons {
            self.refuse_at(&stock.holders, inode, reason);
        }
    }
}

fn socket(stock: &NetlinkStock) -> Socket {
    let details = &stock.details;
    let has_options = !details.options.is_empty() || !details.netlink.options.is_empty();
    let facts = [
        (details.netlink.port != 0, Fact::Name),
        (details.netlink.peer.is_some(), Fact::Peer),
        (!details.netlink.groups.is_empty(), Fact::Groups),
        (has_options, Fact::Options),
    ];
    Socket {
        cookie: stock.held.cookie,
        inode: stock.held.inode,
        // Netlink has messages, whatever type a socket says.
        socket_type: SocketType::Dgram,
        role: Role::Unconnected,
        name: None,
        status_flags: details.status_flags,
        shutdown: Shutdown::default(),
        peer_credentials: None,
        listener_credentials: None,
        groups: None,
        options: details.options.clone(),
        filter: details.filter.clone(),
        notification: details.notification,
        error: 0,
        queue: Vec::new(),
        known_from: KnownFrom::Snapshot,
        created_at: None,
        creator: None,
        sources: facts
            .into_iter()
            .filter_map(|(is, fact)| is.then_some((fact, Source::Asked)))
            .collect(),
        inet: None,
        netlink: Some(Box::new(details.netlink.clone())),
    }
}
