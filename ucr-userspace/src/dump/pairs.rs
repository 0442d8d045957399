//! Who is at the other ends of the connections of internet sockets, in what is dumped or wherever else on this host.

use foldhash::HashMap;
use ucr_common::identity::Actor;

use super::inet::InetStock;
use crate::{
    causes::one_line,
    ledger::pairs::Connection,
    tracer::{pairs, pins::PinDirectory, store::Store},
};

/// The socket at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherEnd {
    /// Its inode.
    pub inode: u32,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Who connected or accepted it, if that was seen.
    pub opener: Option<Actor>,
}

/// All of them, as far as they are known.
#[derive(Debug, Default)]
pub struct OtherEnds {
    /// By the address of the sock at this end.
    pub found: HashMap<u64, OtherEnd>,
    /// Why none could be looked for.
    pub failed: Option<String>,
}

impl OtherEnds {
    /// Looks for them. That costs a pass over what was tracked, if there are connections at all.
    pub(super) fn find(pins: &PinDirectory, store: &Store, sockets: &[InetStock]) -> Self {
        let connections: Vec<(u64, Connection)> = sockets.iter().filter_map(connection).collect();
        if connections.is_empty() {
            return Self::default();
        }
        let sought: Vec<Connection> = connections.iter().map(|(_, sought)| *sought).collect();
        match pairs::other_ends(pins, store, &sought) {
            Ok(found) => {
                let found = connections.iter().zip(found).filter_map(|((sk, _), socket)| {
                    let socket = socket?;
                    let (inode, netns) = (socket.inode?, socket.netns);
                    Some((*sk, OtherEnd { inode, netns, opener: socket.opener }))
                });
                Self { found: found.collect(), failed: None }
            }
            Err(error) => Self { failed: Some(one_line(&error)), ..Self::default() },
        }
    }
}

fn connection(stock: &InetStock) -> Option<(u64, Connection)> {
    let inet = &stock.details.inet;
    let (local, remote) = (inet.local?, inet.remote?);
    let (protocol, netns) = (inet.protocol, stock.netns);
    Some((stock.held.sk, Connection { protocol, netns, local, remote }))
}
