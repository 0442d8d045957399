//! How connections came to be.

use super::{Assembly, Stock};
use crate::{ledger::TrackedRole, model::SocketType};

impl Assembly<'_> {
    /// Whether two datagram sockets have each other since `socketpair` made them: it is that which
    /// gives a datagram socket credentials, and `connect` does not.
    pub(super) fn is_datagram_pair(&self, a: &Stock, b: &Stock) -> bool {
        let is_peer_of = |one: &Stock, other: &Stock| {
            self.seen(one).is_some_and(|seen| seen.peer == Some(other.held.inode))
        };
        let is_half = |stock: &Stock| stock.details.credentials.is_some();
        // If both have names, they may have left each other and come back, or be halves of two pairs.
        let is_nameless = |stock: &Stock| !stock.details.name.is_named();
        a.held.inode != b.held.inode
            && (is_nameless(a) || is_nameless(b))
            && [(a, b), (b, a)].iter().all(|(one, other)| is_peer_of(one, other) && is_half(one))
    }

    /// Which of two connected ends is which: as it was tracked, else by what the kernel lets
    /// conclude.
    pub(super) fn ends(&self, a: &Stock, b: &Stock) -> Ends {
        if a.details.socket_type == SocketType::Dgram {
            return Ends::Pair;
        }
        let role = |stock| self.tracked(stock).map_or(TrackedRole::None, |t| t.role);
        match (role(a), role(b)) {
            (TrackedRole::Pair, _) | (_, TrackedRole::Pair) => return Ends::Pair,
            (TrackedRole::Client, _) | (_, TrackedRole::Server) => return Ends::ClientFirst,
            (TrackedRole::Server, _) | (_, TrackedRole::Client) => return Ends::ServerFirst,
            (TrackedRole::None, TrackedRole::None) => {}
        }
        // An accepted end always has a name, since a listener must have one.
        match (a.details.name.is_named(), b.details.name.is_named()) {
            (false, false) => Ends::Pair,
            (false, true) => Ends::ClientFirst,
            (true, false) => Ends::ServerFirst,
            // A client that is bound as well. The accepted end got its inode later.
            (true, true) => match (self.listener_of(a).is_some(), self.listener_of(b).is_some()) {
                (true, false) => Ends::ServerFirst,
                (false, true) => Ends::ClientFirst,
                _ if a.held.inode < b.held.inode => Ends::ClientFirst,
                _ => Ends::ServerFirst,
            },
        }
    }
}

/// Which end is which.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    Pair,
    ClientFirst,
    ServerFirst,
}
