//! What each socket is doing, and what of that cannot be dumped.
//!
//! Where the kernel's memory can be read, only the role is told here: peers and queues are looked into with
//! the connections. Where it cannot, sock_diag's report has to do, and what it leaves open is refused.

use super::{Assembly, Party, Reason, Stock};
use crate::{
    image::Role,
    model::{SeenSocket, Shutdown, SocketState, SocketType, UnixName},
    snapshot::memory::Sock,
};

impl Assembly<'_> {
    /// As the kernel's memory says.
    pub(super) fn role_in_memory(&mut self, stock: &Stock, sock: &Sock) -> Role {
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

    /// What the socket is doing; a state that cannot be dumped is refused on the way.
    pub(super) fn role(&mut self, stock: &Stock, seen: &SeenSocket) -> Role {
        if seen.socket_type == SocketType::Dgram {
            return self.datagram_role(stock, seen);
        }
        match seen.state {
            SocketState::Listening => {
                if seen.receive_queue > 0 {
                    let clients = self.waiting_clients(seen);
                    let connections = seen.receive_queue;
                    self.refuse(stock, Reason::Waiting { connections, clients });
                }
                return Role::Listening { backlog: seen.send_queue };
            }
            SocketState::Unconnected => {
                self.refuse_queue(stock, seen, None);
                return Role::Unconnected;
            }
            SocketState::Connected => {}
        }
        let peer = seen.peer.and_then(|inode| self.inventory.view.get(inode));
        self.refuse_queue(stock, seen, peer);
        match seen.peer {
            Some(inode) if self.by_inode.contains_key(&inode) => {
                let theirs = peer.map_or(seen.shutdown.mirrored(), |peer| peer.shutdown);
                if seen.shutdown != theirs.mirrored() {
                    let reason = Reason::OneSidedShutdown { own: seen.shutdown, peer: theirs };
                    self.refuse(stock, reason);
                }
            }
            Some(inode) => self.refuse_external(stock, inode, peer),
            None => {
                let reason = self.without_peer(stock, seen);
                self.refuse(stock, reason);
            }
        }
        Role::Connected
    }

    /// What a datagram socket is doing: its state says only that somebody has connected to it, or it to
    /// somebody.
    fn datagram_role(&mut self, stock: &Stock, seen: &SeenSocket) -> Role {
        if seen.receive_queue > 0 {
            self.refuse(stock, Reason::QueuedData { bytes: seen.receive_queue });
        } else if stock.details.has_messages {
            self.refuse(stock, Reason::QueuedMessages);
        }
        self.refuse_senders(stock);
        match seen.peer {
            None if stock.details.peer_name.is_none() => return Role::Unconnected,
            None => self.refuse(stock, Reason::PeerClosed),
            Some(inode) if self.by_inode.contains_key(&inode) => {}
            Some(inode) => self.refuse_external(stock, inode, self.inventory.view.get(inode)),
        }
        Role::Connected
    }

    /// Whoever is connected to it from outside has nobody left, once it is gone. (Its own peer is refused as
    /// that.)
    fn refuse_senders(&mut self, stock: &Stock) {
        let senders = self.senders.remove(&stock.held.inode).unwrap_or_default();
        let own = self.seen(stock).and_then(|seen| seen.peer);
        let others: Vec<u32> = senders.into_iter().filter(|inode| Some(*inode) != own).collect();
        if others.is_empty() {
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

    /// A connected socket whose peer has no inode: not accepted yet, or closed.
    fn without_peer(&mut self, stock: &Stock, seen: &SeenSocket) -> Reason {
        let listener = self.waiting.get(&stock.held.inode).copied();
        let closed = self.tracked(stock).is_some_and(|tracked| tracked.peer_closed);
        match listener {
            Some(inode) => Reason::NotAccepted { listener: self.parties(inode) },
            // The end of a peer shuts a stream down in both directions.
            None if closed || seen.shutdown == Shutdown::BOTH => Reason::PeerClosed,
            None => Reason::NotAccepted { listener: Vec::new() },
        }
    }

    fn refuse_queue(&mut self, stock: &Stock, seen: &SeenSocket, peer: Option<&SeenSocket>) {
        if seen.receive_queue > 0 {
            self.refuse(stock, Reason::QueuedData { bytes: seen.receive_queue });
        } else if peer.is_some_and(|peer| peer.send_queue > 0) {
            // The sender is charged for something that has no bytes: messages without data.
            self.refuse(stock, Reason::QueuedMessages);
        }
    }

    pub(super) fn waiting_clients(&mut self, listener: &SeenSocket) -> Vec<Party> {
        let inodes: Vec<u32> = listener.pending.iter().copied().filter(|i| *i != 0).collect();
        inodes.into_iter().flat_map(|inode| self.parties(inode)).collect()
    }

    pub(super) fn parties(&mut self, inode: u32) -> Vec<Party> {
        self.outside.holders(inode)
    }
}
