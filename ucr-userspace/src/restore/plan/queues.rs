//! What waits to be received: who sends it again, and when.

use std::collections::{BTreeSet, HashMap};

use super::binders::indexed;
use super::step::{Holder, Step};
use super::{PlanError, Planner};
use crate::image::datagrams::order;
use crate::image::{Connection, Image, Message, Sender, SocketIndex};
use crate::model::SocketType;

/// When the messages of a datagram socket are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// By the other half of a pair, before that one leaves it.
    BeforeParted,
    /// Before it is connected: then only its peer may.
    BeforeConnected,
    /// When it is connected: it gave up an earlier peer then, and with it all that had waited.
    Afterwards,
}

impl Planner<'_> {
    /// Sends again what waits for datagram sockets.
    pub(super) fn datagram_queues(&mut self, when: When) {
        let (turned, left): (BTreeSet<SocketIndex>, BTreeSet<SocketIndex>) =
            (self.turned(), self.left());
        for (index, socket) in indexed(self.image) {
            let now = match (turned.contains(&index), left.contains(&index)) {
                (true, _) => When::Afterwards,
                (false, true) => When::BeforeParted,
                (false, false) => When::BeforeConnected,
            };
            let has_none = socket.socket_type != SocketType::Dgram || socket.queue.is_empty();
            if has_none || self.kept.contains(&index) {
                continue;
            }
            let place = self.binder_of(Holder::Saved(index)).map(|binder| binder.place.clone());
            let faithful = self.faithful(index);
            let sender = |message: &Message| match (&message.sender, faithful) {
                (Some(Sender::Socket(sender)), _) => Some(Holder::Saved(*sender)),
                (Some(Sender::Gone(_)), Some(half)) => Some(half),
                (Some(Sender::Gone(name)), None) => self.strangers.get(name).copied(),
                (None, _) => None,
            };
            let mut steps = Vec::new();
            let all = runs(socket.queue.iter().map(sender));
            // What its own peer has sent since the last of the others: however much that is, the kernel
            // lets nobody but the peer exceed `net.unix.max_dgram_qlen`.
            let own = if faithful.is_some() { None } else { self.across.get(&index).copied() };
            let is_own = |run: &Run| own.is_some() && run.from == own;
            let late = all.iter().rposition(|run| !is_own(run)).map_or(0, |last| last + 1);
            for (number, run) in all.into_iter().enumerate() {
                let Some(from) = run.from else { continue };
                let is_late = number >= late && now == When::BeforeConnected;
                if (if is_late { When::Afterwards } else { now }) != when {
                    continue;
                }
                // A half of a pair needs no address.
                let place = if faithful == Some(from) { None } else { place.clone() };
                let (first, count) = (run.first, run.count);
                steps.push(Step::Send { from, to: index, first, count, place });
            }
            for step in steps {
                if let Step::Send { from, .. } = step {
                    self.create(from, SocketType::Dgram);
                }
                self.steps.push(step);
            }
        }
    }

    /// Halves of pairs whose other half is connected to nobody any more.
    fn left(&self) -> BTreeSet<SocketIndex> {
        let connected = self.connected();
        let halves = self.datagrams.halves.iter();
        let left = halves.filter(|(_, other)| !connected.contains(other)).map(|(half, _)| *half);
        left.chain(self.parted.keys().copied()).collect()
    }

    /// Halves of pairs that have turned to another peer since.
    fn turned(&self) -> BTreeSet<SocketIndex> {
        let connected = self.connected();
        let receivers = self.datagrams.halves.iter().map(|(_, receiver)| *receiver);
        receivers.filter(|receiver| connected.contains(receiver)).collect()
    }

    /// The half of a pair that this one still has as its peer, since it was made.
    fn faithful(&self, index: SocketIndex) -> Option<Holder> {
        let of = |connection: &Connection| match *connection {
            Connection::Pair { a, b } if a == index => Some(Holder::Saved(b)),
            Connection::Pair { a, b } if b == index => Some(Holder::Saved(a)),
            Connection::Ended { survivor, was: crate::image::Was::Half(_) }
                if survivor == index =>
            {
                self.across.get(&index).copied()
            }
            _ => None,
        };
        let half = || {
            let mut halves = self.datagrams.halves.iter();
            halves.find(|(sender, _)| *sender == index).map(|(_, other)| Holder::Saved(*other))
        };
        let parted = || self.parted.get(&index).copied();
        self.image.connections.iter().find_map(of).or_else(half).or_else(parted)
    }

    /// Sends again what waits for all others, from their other ends.
    pub(super) fn queues(&mut self) {
        for (index, socket) in indexed(self.image) {
            if socket.socket_type == SocketType::Dgram
                || socket.queue.is_empty()
                || self.kept.contains(&index)
            {
                continue;
            }
            if let Some(from) = self.across.get(&index).copied() {
                let (first, count) = (0, socket.queue.len());
                self.steps.push(Step::Send { from, to: index, first, count, place: None });
            }
        }
    }
}

/// Messages one after another from one sender.
struct Run {
    from: Option<Holder>,
    first: usize,
    count: usize,
}

fn runs(senders: impl Iterator<Item = Option<Holder>>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (at, from) in senders.enumerate() {
        match runs.last_mut() {
            Some(run) if run.from == from => run.count += 1,
            _ => runs.push(Run { from, first: at, count: 1 }),
        }
    }
    runs
}

/// Whether every message can be sent: a datagram socket without a name is sent to by its other half alone.
pub(super) fn check(image: &Image) -> Result<(), PlanError> {
    let order = order(image).unwrap_or_default();
    let mut halves: HashMap<SocketIndex, SocketIndex> = HashMap::new();
    for connection in &image.connections {
        if let Connection::Pair { a, b } = *connection {
            halves.extend([(a, b), (b, a)]);
        }
    }
    for (sender, receiver) in order.halves.into_iter().chain(order.parted) {
        halves.extend([(sender, receiver), (receiver, sender)]);
    }
    for (index, socket) in indexed(image) {
        if socket.socket_type != SocketType::Dgram || socket.name.is_some() {
            continue;
        }
        let half = halves.get(&index);
        let is_of_half = |message: &Message| match &message.sender {
            Some(Sender::Socket(sender)) => half == Some(sender),
            // Both ends of a pair have credentials, also when one has closed.
            Some(Sender::Gone(_)) => half.is_none() && socket.peer_credentials.is_some(),
            None => false,
        };
        let senders: BTreeSet<_> = socket.queue.iter().map(|message| &message.sender).collect();
        if senders.len() > 1 || !socket.queue.iter().all(is_of_half) {
            return Err(PlanError::NamelessReceiver { socket: index });
        }
    }
    Ok(())
}
