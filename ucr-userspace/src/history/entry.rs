//! What is kept: sockets that have closed, events, and what is missing between them.
//!
//! All stamps are nanoseconds of `CLOCK_BOOTTIME`; what turns them into time of day stands beside the
//! block that an entry is kept in.

use serde::{Deserialize, Serialize};
use ucr_common::identity::SocketId;

use crate::{
    ledger::{Origin, Tracked, TrackedPeer, TrackedRole},
    model::{Directories, SocketState, SocketType, UnixName, Who},
    tracer::event::TraceEvent,
};

/// A socket that has closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Its cookie, if somebody had asked for it.
    pub cookie: Option<u64>,
    /// Its inode; one that was never accepted has none.
    pub inode: Option<u32>,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// `SO_TYPE`.
    pub socket_type: SocketType,
    /// `sk_state`, the last one.
    pub state: SocketState,
    /// Its own name.
    pub name: UnixName,
    /// For a pathname whose `bind` was seen: where the binder stood.
    pub directories: Option<Directories>,
    /// How it came into the ledger.
    pub origin: Origin,
    /// Which end of a connection it was.
    pub role: TrackedRole,
    /// When it was created.
    pub created_at: Option<u64>,
    /// Who created it.
    pub creator: Option<Who>,
    /// When it got its name.
    pub bound_at: Option<u64>,
    /// Who bound it.
    pub binder: Option<Who>,
    /// When `listen`, `connect` or `accept` was called on it.
    pub opened_at: Option<u64>,
    /// Who called it.
    pub opener: Option<Who>,
    /// When it closed; if that was not seen, a moment by which it had (see [`How`]).
    pub closed_at: u64,
    /// Who closed it, if that was seen.
    pub closer: Option<Who>,
    /// How its life ended.
    pub end: End,
    /// Its last peer.
    pub peer: Option<PeerThen>,
    /// The listener that it came through.
    pub listener: Option<Identity>,
    /// How it is known that it has closed.
    pub how: How,
}

/// How a socket's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// Its last descriptor was closed.
    Closed,
    /// It was a connection that nobody had accepted when its listener closed.
    NeverAccepted,
}

/// How it is known that a socket has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// The close was seen.
    Seen,
    /// A reconciliation found that it is gone: `closed_at` is an upper bound.
    Reconciled,
}

/// Another socket, as it was known then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its cookie, if somebody had asked for it.
    pub cookie: Option<u64>,
    /// Its inode; one that is not accepted has none.
    pub inode: Option<u32>,
}

/// The other end, when one end closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerThen {
    /// Which socket.
    pub socket: Identity,
    /// Whose it was, if that is known.
    pub owner: Option<Partner>,
}

/// A process at the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partner {
    /// Process, in the initial pid namespace.
    pub pid: u32,
    /// Real user id, in the initial user namespace.
    pub uid: u32,
    /// The thread's name: any bytes.
    pub comm: Vec<u8>,
}

/// What the ledger's record of a closed socket does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// See [`Gone::closed_at`].
    pub at: u64,
    /// Who closed it, if that was seen.
    pub closer: Option<Who>,
    /// How its life ended.
    pub end: End,
    /// Its last peer, as well as it is known; without one, what the record says of it is kept.
    pub peer: Option<PeerThen>,
    /// How it is known.
    pub how: How,
}

impl Gone {
    /// From the socket's last record and how it closed.
    #[must_use]
    pub fn new(tracked: &Tracked, closing: Closing) -> Self {
        let who = |actor: &Option<_>| actor.as_ref().map(Who::from);
        Self {
            cookie: tracked.cookie,
            inode: tracked.inode,
            netns: tracked.netns,
            socket_type: tracked.socket_type,
            state: tracked.state,
            name: tracked.name.clone(),
            directories: tracked.directories.clone(),
            origin: tracked.origin,
            role: tracked.role,
            created_at: tracked.created_at,
            creator: who(&tracked.creator),
            bound_at: tracked.bound_at,
            binder: who(&tracked.binder),
            opened_at: tracked.opened_at,
            opener: who(&tracked.opener),
            closed_at: closing.at,
            closer: closing.closer,
            end: closing.end,
            peer: closing.peer.or_else(|| {
                tracked.peer.map(|peer| PeerThen { socket: Identity::from(peer), owner: None })
            }),
            listener: tracked.listener.map(Identity::from),
            how: closing.how,
        }
    }
}

impl From<TrackedPeer> for Identity {
    fn from(peer: TrackedPeer) -> Self {
        Self { cookie: None, inode: peer.inode }
    }
}

impl Identity {
    /// Of a socket in an event; `None` if there is none.
    #[must_use]
    pub fn of(id: &SocketId) -> Option<Self> {
        (*id != SocketId::NONE).then(|| Self {
            cookie: (id.cookie != 0).then_some(id.cookie),
            // Inode numbers of sockfs have 32 bits; 0 stands for none.
            inode: u32::try_from(id.inode).ok().filter(|inode| *inode != 0),
        })
    }
}

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// One of [`ucr_common::event::kind`].
    pub kind: u32,
    /// 0 or a descriptor, or a negative errno.
    pub result: i32,
    /// When.
    pub time: u64,
    /// Who made the call.
    pub actor: Who,
    /// The descriptor that the call named, or made; -1 if none.
    pub fd: i32,
    /// The other descriptor of `accept` and `socketpair`; -1 if none.
    pub fd2: i32,
    /// The socket that it happened to.
    pub socket: Option<Identity>,
    /// Its peer.
    pub peer: Option<Identity>,
    /// The listener of an accepted or connected socket.
    pub listener: Option<Identity>,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// `SOCK_*` number, as the kernel side sent it.
    pub socket_type: u32,
    /// See [`ucr_common::event::kind`].
    pub argument: u32,
    /// See [`ucr_common::event::kind`].
    pub name: UnixName,
    /// For a bind to a pathname: where the caller stood.
    pub directories: Option<Directories>,
}

impl From<&TraceEvent> for Past {
    fn from(event: &TraceEvent) -> Self {
        let raw = &event.raw;
        Self {
            kind: raw.kind,
            result: raw.result,
            time: raw.time,
            actor: Who::from(&raw.actor),
            fd: raw.fd,
            fd2: raw.fd2,
            socket: Identity::of(&raw.socket),
            peer: Identity::of(&raw.peer),
            listener: Identity::of(&raw.listener),
            netns: raw.netns,
            socket_type: raw.socket_type,
            argument: raw.argument,
            name: event.name(),
            directories: event.directories.clone(),
        }
    }
}

/// A stretch of time in which something may have happened that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When it began.
    pub from: u64,
    /// When it ended.
    pub until: u64,
    /// Why.
    pub reason: GapReason,
    /// How many entries are missing; `None` if that cannot be told.
    pub lost: Option<u64>,
}

/// Why something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The programs could not hand over what they saw: they were faster than whoever reads.
    Lost,
    /// Nobody was there to keep anything.
    Absent,
    /// There was no room to write it, or writing failed.
    Unwritten,
    /// It was kept, and the file that it was in is damaged.
    Damaged,
}

#[cfg(test)]
mod tests {
    use ucr_common::{
        event::{Event, kind},
        identity::Actor,
        record::{Record, origin, role},
    };
    use zerocopy::FromZeros as _;

    use super::*;

    fn accepted() -> Tracked {
        let mut record = Record::new_zeroed();
        record.socket = SocketId { sk: 1, cookie: 70, inode: 700 };
        record.peer = SocketId { sk: 2, cookie: 71, inode: 701 };
        record.listener = SocketId { sk: 3, cookie: 72, inode: 702 };
        (record.family, record.socket_type, record.state) = (1, 1, 1);
        (record.origin, record.role) = (origin::CONNECTION, role::SERVER);
        record.created_at = 5;
        record.creator = Actor { pid: 9, ..Actor::UNKNOWN };
        Tracked::new(&record, None).expect("a sound record")
    }

    fn closing(peer: Option<PeerThen>) -> Closing {
        Closing { at: 8, closer: None, end: End::Closed, peer, how: How::Seen }
    }

    #[test]
    fn a_closed_socket_is_its_last_record_and_how_it_closed() {
        let gone = Gone::new(&accepted(), closing(None));
        assert_eq!((gone.cookie, gone.inode, gone.closed_at), (Some(70), Some(700), 8));
        assert_eq!((gone.origin, gone.role), (Origin::Connection, TrackedRole::Server));
        assert_eq!(gone.creator.map(|who| who.pid), Some(9));
        assert_eq!((gone.bound_at, gone.binder), (None, None), "what was not seen stays unknown");
        assert_eq!(gone.listener, Some(Identity { cookie: None, inode: Some(702) }));
    }

    #[test]
    fn what_is_known_of_the_peer_goes_before_what_the_record_says() {
        let from_record = Identity { cookie: None, inode: Some(701) };
        let known = PeerThen {
            socket: Identity { cookie: Some(71), inode: Some(701) },
            owner: Some(Partner { pid: 4, uid: 0, comm: b"x".to_vec() }),
        };
        let gone = |peer| Gone::new(&accepted(), closing(peer)).peer;
        assert_eq!(gone(None), Some(PeerThen { socket: from_record, owner: None }));
        assert_eq!(gone(Some(known.clone())), Some(known));
    }

    #[test]
    fn an_event_names_only_the_sockets_that_it_has() {
        let mut raw = Event::new_zeroed();
        raw.kind = kind::CONNECT;
        raw.socket = SocketId { sk: 1, cookie: 0, inode: 700 };
        raw.peer = SocketId { sk: 2, cookie: 0, inode: 0 };
        let past = Past::from(&TraceEvent { raw, directories: None, record: None });
        assert_eq!(past.socket, Some(Identity { cookie: None, inode: Some(700) }));
        assert_eq!(past.peer, Some(Identity::default()), "an embryo is a socket without numbers");
        assert_eq!(past.listener, None);
    }
}
