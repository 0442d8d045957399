//! The ledger as user space sees it: records in, sockets and pairs out. Pure.

pub mod audit;
pub mod inet;
pub mod pairs;
pub mod sequence;

use foldhash::HashMap;

use serde::{Deserialize, Serialize};
use ucr_common::{
    identity::{Actor, SocketId},
    paths::BindPaths,
    record::{FLAG_AUTOBOUND, FLAG_PEER_CLOSED, Record, origin, role},
};

use crate::model::{Directories, Shutdown, SocketState, SocketType, UnixName};
pub use inet::TrackedInet;

/// How a socket came into the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// `socket(2)` was seen.
    Socket,
    /// `socketpair(2)` was seen.
    Pair,
    /// The kernel made it in a `connect(2)` that was seen.
    Connection,
    /// Its `accept(2)` was seen, the `connect(2)` was not.
    Accept,
    /// It predates the tracer.
    Seed,
    /// Tracing was on, but its creation was not seen.
    Late,
    /// Tracing was on, but nothing of it was seen: a reconciliation found it.
    Found,
}

impl Origin {
    /// Whether its whole life was seen.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Socket | Self::Pair | Self::Connection)
    }
}

/// Which end of a connection a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrackedRole {
    /// No connection, or its making was not seen.
    None,
    /// It called `connect`.
    Client,
    /// It was, or will be, returned by `accept`.
    Server,
    /// One end of a `socketpair`.
    Pair,
}

/// One socket as it was tracked. Times are `CLOCK_BOOTTIME` nanoseconds.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// Address of the sock.
    pub sk: u64,
    /// Its cookie, once somebody has asked for it.
    pub cookie: Option<u64>,
    /// Its inode; an embryo has none.
    pub inode: Option<u32>,
    /// The peer, as long as it lives.
    pub peer: Option<TrackedPeer>,
    /// The listener that it came through; it may have gone since.
    pub listener: Option<TrackedPeer>,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// `SO_TYPE`.
    pub socket_type: SocketType,
    /// `sk_state`; of TCP roughly (see [`TrackedInet::state`]).
    pub state: SocketState,
    /// Of an internet socket.
    pub inet: Option<TrackedInet>,
    /// `sk_shutdown`.
    pub shutdown: Shutdown,
    /// Of a listener.
    pub backlog: u32,
    /// How it came into the ledger.
    pub origin: Origin,
    /// Which end it is.
    pub role: TrackedRole,
    /// The peer has closed.
    pub peer_closed: bool,
    /// The name was given by the kernel.
    pub autobound: bool,
    /// Its own name.
    pub name: UnixName,
    /// For a pathname whose `bind` was seen.
    pub directories: Option<Directories>,
    /// When it was created.
    pub created_at: Option<u64>,
    /// Who created it.
    pub creator: Option<Actor>,
    /// When it got its name.
    pub bound_at: Option<u64>,
    /// Who bound it.
    pub binder: Option<Actor>,
    /// When `listen`, `connect` or `accept` was called on it.
    pub opened_at: Option<u64>,
    /// Who called it.
    pub opener: Option<Actor>,
}

/// Another socket that a tracked one has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackedPeer {
    /// Address of the sock.
    pub sk: u64,
    /// Its inode when the two were paired; an embryo has none.
    pub inode: Option<u32>,
}

/// Why a record makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ledger record of sock {sk:#x} has unknown {field} {value}")]
pub struct BadRecord {
    /// Address of the sock.
    pub sk: u64,
    /// Which field.
    pub field: &'static str,
    /// Its value.
    pub value: u32,
}

impl Tracked {
    /// From what the maps hold.
    ///
    /// # Errors
    /// A number that has no meaning: the map was written by something else.
    pub fn new(record: &Record, paths: Option<&BindPaths>) -> Result<Self, BadRecord> {
        let bad = |field, value| BadRecord { sk: record.socket.sk, field, value };
        let socket_type = i32::try_from(record.socket_type)
            .ok()
            .and_then(SocketType::from_raw)
            .ok_or(bad("type", record.socket_type))?;
        let inet = TrackedInet::of(record)?;
        let state = match &inet {
            Some(inet) => Some(inet.rough_state()),
            None => u8::try_from(record.state).ok().and_then(SocketState::from_raw),
        };
        let state = state.ok_or(bad("state", record.state))?;
        let name = match inet {
            Some(_) => UnixName::Unnamed,
            None => UnixName::from_sun_path(record.name.as_bytes()),
        };
        let origin = match record.origin {
            origin::SOCKET => Origin::Socket,
            origin::PAIR => Origin::Pair,
            origin::CONNECTION => Origin::Connection,
            origin::ACCEPT => Origin::Accept,
            origin::SEED => Origin::Seed,
            origin::LATE => Origin::Late,
            origin::FOUND => Origin::Found,
            other => return Err(bad("origin", other)),
        };
        let role = match record.role {
            role::NONE => TrackedRole::None,
            role::CLIENT => TrackedRole::Client,
            role::SERVER => TrackedRole::Server,
            role::PAIR => TrackedRole::Pair,
            other => return Err(bad("role", other)),
        };
        let shutdown =
            u8::try_from(record.shutdown).map_err(|_| bad("shutdown", record.shutdown))?;
        let actor = |at: u64, who: &Actor| (at != 0).then_some(*who);
        let time = |at: u64| (at != 0).then_some(at);
        Ok(Self {
            sk: record.socket.sk,
            cookie: (record.socket.cookie != 0).then_some(record.socket.cookie),
            inode: inode(record.socket.inode),
            peer: other(&record.peer),
            listener: other(&record.listener),
            netns: record.netns,
            socket_type,
            state,
            inet,
            shutdown: Shutdown(shutdown),
            backlog: record.backlog,
            origin,
            role,
            peer_closed: record.flags & FLAG_PEER_CLOSED != 0,
            autobound: record.flags & FLAG_AUTOBOUND != 0,
            name,
            directories: paths.map(Directories::spell),
            created_at: time(record.created_at),
            creator: actor(record.created_at, &record.creator),
            bound_at: time(record.bound_at),
            binder: actor(record.bound_at, &record.binder),
            opened_at: time(record.opened_at),
            opener: actor(record.opened_at, &record.opener),
        })
    }
}

impl Tracked {
    /// Whether its whole life was seen. Before it is accepted a TCP socket is nobody's: nothing was missed.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.origin.is_live() || self.inet.is_some() && self.origin == Origin::Accept
    }
}

fn other(id: &SocketId) -> Option<TrackedPeer> {
    (id.sk != 0).then(|| TrackedPeer { sk: id.sk, inode: inode(id.inode) })
}

/// Inode numbers of sockfs have 32 bits; 0 stands for none.
fn inode(raw: u64) -> Option<u32> {
    u32::try_from(raw).ok().filter(|inode| *inode != 0)
}

/// Tracked sockets by the address of their sock.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    sockets: HashMap<u64, Tracked>,
}

impl Ledger {
    /// Adds a socket, or replaces it.
    pub fn insert(&mut self, socket: Tracked) {
        self.sockets.insert(socket.sk, socket);
    }

    /// The socket whose sock is at this address.
    #[must_use]
    pub fn get(&self, sk: u64) -> Option<&Tracked> {
        self.sockets.get(&sk)
    }

    /// Inode of a socket's living peer: as the peer's own entry has it, else as it was when the
    /// two were paired.
    #[must_use]
    pub fn peer_inode(&self, socket: &Tracked) -> Option<u32> {
        let peer = socket.peer?;
        self.get(peer.sk).map_or(peer.inode, |entry| entry.inode)
    }

    /// What was tracked of the listener that a socket came through, if that is still the same one.
    #[must_use]
    pub fn listener(&self, socket: &Tracked) -> Option<&Tracked> {
        let listener = socket.listener?;
        self.get(listener.sk).filter(|entry| entry.inode == listener.inode)
    }

    /// How many sockets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    fn record(sk: u64, change: impl FnOnce(&mut Record)) -> Record {
        let mut record = Record::new_zeroed();
        record.socket.sk = sk;
        (record.family, record.socket_type) = (1, 1);
        record.state = 7;
        record.origin = origin::SOCKET;
        change(&mut record);
        record
    }

    #[test]
    fn what_is_zero_is_not_known() {
        let tracked = Tracked::new(&record(1, |_| {}), None).expect("a sound record");
        assert_eq!((tracked.cookie, tracked.inode, tracked.listener), (None, None, None));
        assert!(tracked.peer.is_none() && tracked.creator.is_none());
        assert_eq!(tracked.name, UnixName::Unnamed);
    }

    #[test]
    fn numbers_without_meaning_are_refused_by_name() {
        let bad = |change: fn(&mut Record)| {
            Tracked::new(&record(1, change), None).expect_err("refused").field
        };
        assert_eq!(bad(|r| r.family = 9), "family");
        assert_eq!(bad(|r| r.socket_type = 9), "type");
        assert_eq!(bad(|r| r.state = 300), "state");
        assert_eq!(bad(|r| r.origin = 0), "origin");
        assert_eq!(bad(|r| r.role = 77), "role");
        assert_eq!(bad(|r| r.shutdown = 256), "shutdown");
    }

    #[test]
    fn a_listener_whose_address_was_used_again_is_not_mistaken() {
        let mut ledger = Ledger::default();
        let listener = SocketId { sk: 2, cookie: 0, inode: 50 };
        let accepted = record(1, |r| r.listener = listener);
        let accepted = Tracked::new(&accepted, None).expect("sound");
        ledger.insert(Tracked::new(&record(2, |r| r.socket.inode = 50), None).expect("sound"));
        assert!(ledger.listener(&accepted).is_some());
        ledger.insert(Tracked::new(&record(2, |r| r.socket.inode = 51), None).expect("sound"));
        assert!(ledger.listener(&accepted).is_none());
    }

    #[test]
    fn an_accepted_peer_is_known_by_its_own_entry() {
        let mut ledger = Ledger::default();
        let client = record(1, |r| r.peer = SocketId { sk: 2, cookie: 0, inode: 0 });
        let server = record(2, |r| r.socket.inode = 99);
        let client = Tracked::new(&client, None).expect("sound");
        assert_eq!(ledger.peer_inode(&client), None, "an embryo has no inode");
        ledger.insert(Tracked::new(&server, None).expect("sound"));
        assert_eq!(ledger.peer_inode(&client), Some(99));
    }
}
