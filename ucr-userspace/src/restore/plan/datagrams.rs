//! What makes pairs, and connects datagram sockets: those are connected by name where they can be, and
//! what `socketpair` has once made is made so again.

use std::collections::BTreeSet;

use super::Planner;
use super::binders::indexed;
use super::step::{Holder, Identity, Step};
use crate::image::{Connection, SocketIndex};
use crate::model::SocketType;

impl Planner<'_> {
    pub(super) fn pairs(&mut self) {
        for connection in &self.image.connections {
            if let Connection::Pair { a, b } = *connection
                && let Some(socket) = self.socket(a)
            {
                let identity = self.seen_by(a).or_else(|| self.seen_by(b));
                self.pair(Holder::Saved(a), Holder::Saved(b), socket.socket_type, identity);
            }
        }
        self.gone_halves();
        for (sender, receiver) in self.datagrams.halves.clone() {
            let identity = self.seen_by(sender).or_else(|| self.seen_by(receiver));
            let (sender, receiver) = (Holder::Saved(sender), Holder::Saved(receiver));
            self.pair(sender, receiver, SocketType::Dgram, identity);
        }
        for (sender, receiver) in self.datagrams.parted.clone() {
            let identity = self.seen_by(sender).or_else(|| self.seen_by(receiver));
            self.part_from(receiver, Holder::Saved(sender), identity);
        }
        self.widows();
    }

    /// Makes a pair of which this half has left the other, which has not left this one yet.
    fn part_from(&mut self, half: SocketIndex, other: Holder, identity: Option<Identity>) {
        self.pair(other, Holder::Saved(half), SocketType::Dgram, identity);
        self.steps.push(Step::Disconnect { socket: half });
    }

    pub(super) fn pair(
        &mut self,
        a: Holder,
        b: Holder,
        socket_type: SocketType,
        identity: Option<Identity>,
    ) {
        self.steps.push(Step::Pair { a, b, socket_type, identity });
        self.made.extend([a, b]);
    }

    /// Datagram sockets that were an end of a pair and are not any more: `SO_PEERCRED` still says so.
    fn widows(&mut self) {
        for (index, socket) in indexed(self.image) {
            let made = Holder::Saved(index);
            if socket.socket_type != SocketType::Dgram
                || socket.peer_credentials.is_none()
                || self.made.contains(&made)
                || self.kept.contains(&index)
            {
                continue;
            }
            if let Some(other) = self.parted.get(&index).copied() {
                self.part_from(index, other, self.seen_by(index));
                continue;
            }
            let other = self.temporary();
            self.pair(made, other, SocketType::Dgram, self.seen_by(index));
            self.steps.push(Step::Close { made: other });
            self.steps.push(Step::Disconnect { socket: index });
        }
    }

    /// Leaves those alone that the other half of a pair has left; what waits for them comes later, since
    /// this would take it away.
    pub(super) fn part(&mut self) {
        let connected = self.connected();
        for (sender, receiver) in self.datagrams.halves.clone() {
            // What it had not read when it turned away is an error to its half.
            if self.socket(sender).is_some_and(|socket| socket.error != 0) {
                self.steps.push(Step::Spoil { socket: sender });
            }
            if !connected.contains(&receiver) {
                self.steps.push(Step::Disconnect { socket: receiver });
            }
        }
        for (sender, _) in self.datagrams.parted.clone() {
            if !connected.contains(&sender) {
                self.steps.push(Step::Disconnect { socket: sender });
            }
        }
    }

    /// Everybody who has a peer.
    pub(super) fn connected(&self) -> BTreeSet<SocketIndex> {
        let peers = self.image.connections.iter().flat_map(Connection::peers);
        peers.map(|(from, _)| from).collect()
    }

    /// Connects datagram sockets by name.
    pub(super) fn datagrams(&mut self) {
        for (sender, receiver) in self.datagrams.named.clone() {
            if let Some(binder) = self.binder_of(Holder::Saved(receiver)) {
                let place = binder.place.clone();
                let receiver = Holder::Saved(receiver);
                self.steps.push(Step::ConnectDatagram { sender, receiver, place });
            }
        }
    }
}
