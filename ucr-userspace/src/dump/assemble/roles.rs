//! What each socket is doing, and who outside has to do with it.

use super::{Assembly, Party, Reason, Stock};
use crate::{
    dump::external::Policy,
    image::Role,
    model::{SeenSocket, SocketState, SocketType, UnixName},
    snapshot::memory::Sock,
};

impl Assembly<'_> {
    /// What it is doing; with whom is looked into with the connections.
    pub(super) fn role(&mut self, stock: &Stock, sock: &Sock) -> Role {
        if stock.waits_at.is_some() {
            return Role::Embryo;
        }
        self.refuse_senders(stock);
        if stock.details.socket_type == SocketType::Dgram {
            return if sock.peer == 0 { Role::Unconnected } else { Role::Connected };
        }
        match SocketState::from_raw(sock.state) {
            Some(SocketState::Listening) => Role::Listening { backlog: sock.backlog },
            Some(SocketState::Connected) => Role::Connected,
            Some(SocketState::Unconnected) | None => Role::Unconnected,
        }
    }

    /// Whoever is connected to it from outside has nobody left, once it is gone, unless it is kept. (Its own
    /// peer is refused as that.)
    fn refuse_senders(&mut self, stock: &Stock) {
        let senders = self.senders.remove(&stock.held.inode).unwrap_or_default();
        let own = self.seen(stock).and_then(|seen| seen.peer);
        let is_in_the_way = |sender: &u32| {
            Some(*sender) != own
                && self.policy_of_sender(*sender, stock.held.inode) != Policy::Dangling
        };
        let others: Vec<u32> = senders.into_iter().filter(is_in_the_way).collect();
        if others.is_empty() || self.is_kept(stock) {
            return;
        }
        let mut holders: Vec<Party> =
            others.into_iter().flat_map(|inode| self.outside.holders(inode)).collect();
        holders.sort();
        self.refuse(stock, Reason::ExternalSenders { holders });
    }

    pub(super) fn refuse_external(&mut self, stock: &Stock, inode: u32, peer: Option<&SeenSocket>) {
        let name = peer.map_or(UnixName::Unnamed, |peer| peer.name.clone());
        let holders = self.outside.holders(inode);
        self.refuse(stock, Reason::ExternalPeer { peer: inode, name, holders });
    }

    pub(super) fn waiting_clients(&mut self, listener: &SeenSocket) -> Vec<Party> {
        let inodes: Vec<u32> = listener.pending.iter().copied().filter(|i| *i != 0).collect();
        inodes.into_iter().flat_map(|inode| self.parties(inode)).collect()
    }

    pub(super) fn parties(&mut self, inode: u32) -> Vec<Party> {
        self.outside.holders(inode)
    }
}
