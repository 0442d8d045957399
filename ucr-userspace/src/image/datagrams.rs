//! How the datagram sockets of an image come to be connected. Pure.
//!
//! A socket without a name can have been connected to only by `socketpair`. To connect to one that has
//! a peer of its own the kernel allows only that peer (`unix_may_send`): so whoever sends to a socket
//! has connected before that socket did, and three or more cannot be connected in a circle.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::connection::Connection;
use super::message::Sender;
use super::schema::{Image, SocketIndex};
use crate::model::SocketType;

/// What makes the connections of an image's datagram sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// By `socketpair`, sender and receiver, though the receiver does not have the sender as its peer
    /// any more.
    pub halves: Vec<(SocketIndex, SocketIndex)>,
    /// By `socketpair`, though both have left: the sender of what still waits, and who is to receive it.
    pub parted: Vec<(SocketIndex, SocketIndex)>,
    /// By name, sender and receiver, in an order that the kernel allows.
    pub named: Vec<(SocketIndex, SocketIndex)>,
}

/// Why there is no such order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impossible {
    /// The peer of this one has no name, and nothing has made the two as a pair.
    Nameless(SocketIndex),
    /// The peer of this one has had another peer since `socketpair` made that one.
    Taken(SocketIndex),
    /// This one stands in a circle.
    Circle(SocketIndex),
}

/// Who has sent what waits for sockets without a name: only their other halves can.
fn senders(image: &Image) -> BTreeMap<SocketIndex, SocketIndex> {
    let mut senders = BTreeMap::new();
    for (index, socket) in (0..).map(SocketIndex).zip(&image.sockets) {
        if socket.socket_type == SocketType::Dgram && socket.name.is_none() {
            for message in &socket.queue {
                if let Some(Sender::Socket(sender)) = message.sender {
                    senders.insert(index, sender);
                }
            }
        }
    }
    senders
}

/// Finds it.
///
/// # Errors
///
/// Connections that no sequence of calls makes.
pub fn order(image: &Image) -> Result<Order, Impossible> {
    let is_named = |index: SocketIndex| {
        image.sockets.get(index.get()).is_some_and(|socket| socket.name.is_some())
    };
    let mut paired: HashSet<SocketIndex> = HashSet::new();
    // Who has been whose peer from the beginning.
    let mut faithful: HashMap<SocketIndex, SocketIndex> = HashMap::new();
    let mut links: Vec<(SocketIndex, SocketIndex)> = Vec::new();
    for connection in &image.connections {
        match *connection {
            Connection::Pair { a, b } => {
                paired.extend([a, b]);
                faithful.extend([(a, b), (b, a)]);
            }
            Connection::Datagram { sender, receiver } => links.push((sender, receiver)),
            Connection::Accepted { .. }
            | Connection::Waiting { .. }
            | Connection::Ended { .. }
            | Connection::External { .. } => {}
        }
    }
    let by_half = senders(image);
    let mut order = Order::default();
    let mut named = Vec::new();
    for (sender, receiver) in links {
        // One that has got a name since is known by what it had sent before.
        if is_named(receiver) && by_half.get(&sender) != Some(&receiver) {
            named.push((sender, receiver));
        } else if sender != receiver && paired.insert(sender) & paired.insert(receiver) {
            order.halves.push((sender, receiver));
            faithful.insert(sender, receiver);
        } else {
            return Err(Impossible::Nameless(sender));
        }
    }

    for (receiver, sender) in by_half {
        if sender != receiver && !paired.contains(&sender) && !paired.contains(&receiver) {
            paired.extend([sender, receiver]);
            order.parted.push((sender, receiver));
        }
    }

    let is_taken = |(sender, receiver): &&(SocketIndex, SocketIndex)| {
        faithful.get(receiver).is_some_and(|peer| peer != sender)
    };
    if let Some((sender, _)) = named.iter().find(is_taken) {
        return Err(Impossible::Taken(*sender));
    }

    // How many have yet to connect to a sender before it may.
    let receivers: HashMap<SocketIndex, SocketIndex> = named.iter().copied().collect();
    let mut awaited: HashMap<SocketIndex, usize> = HashMap::new();
    let waits = |sender: SocketIndex, receiver: SocketIndex| {
        // Its own peer and itself may also connect later.
        let next = receivers.get(&receiver).copied()?;
        (next != sender && receiver != sender).then_some((receiver, next))
    };
    for (sender, receiver) in &named {
        if waits(*sender, *receiver).is_some() {
            *awaited.entry(*receiver).or_default() += 1;
        }
    }
    let is_free = |(sender, _): &(SocketIndex, SocketIndex)| !awaited.contains_key(sender);
    let mut free: Vec<_> = named.iter().copied().filter(is_free).rev().collect();
    while let Some((sender, receiver)) = free.pop() {
        order.named.push((sender, receiver));
        if let Some(next) = waits(sender, receiver)
            && let Some(count) = awaited.get_mut(&receiver)
        {
            *count -= 1;
            if *count == 0 {
                awaited.remove(&receiver);
                free.push(next);
            }
        }
    }
    match named.iter().find(|(sender, _)| awaited.contains_key(sender)) {
        Some((sender, _)) => Err(Impossible::Circle(*sender)),
        None => Ok(order),
    }
}
