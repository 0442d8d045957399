//! Entries as they stand in a block: what repeats is said once, numbers as steps from the row before.
//!
//! A few processes close most sockets, and cookies, inodes and stamps grow slowly: against entries
//! written out, that makes blocks smaller by more than half, and writing them faster.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    entry::{End, Gone, How, Identity, Past, PeerThen},
    step::{Last, Way},
    stock::{Stock, Tables, at},
};
use crate::{
    ledger::{Origin, TrackedRole},
    model::{Directories, SocketState, SocketType, UnixName, Who},
};

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Closed sockets.
    Gone,
    /// Events.
    Past,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Gone, Self::Past];

    /// As it stands in blocks and tables. Never renumbered.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Gone => 1,
            Self::Past => 2,
        }
    }
}

/// An entry that blocks are made of.
pub trait Kept: Sized {
    /// Which.
    const KIND: Kind;
    /// How it stands in a block.
    type Row: fmt::Debug + Serialize + DeserializeOwned;

    /// The moment that it is found and forgotten by.
    fn stamp(&self) -> u64;
    /// Bytes that it has beyond those of fixed size.
    fn variable_len(&self) -> usize;
    /// As a row, with what may repeat put into the tables.
    fn pack(&self, tables: &mut Tables) -> Row<Self>;
    /// From a row; `None` if that names what is not in the tables.
    fn unpack(row: &Row<Self>, stock: &Stock) -> Option<Self>;
    /// Turns a row's numbers into steps from the row before, or back.
    fn step(row: &mut Row<Self>, last: &mut Last, way: Way);
}

/// The row of an entry.
pub type Row<T> = <T as Kept>::Row;

/// A closed socket's row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GoneRow {
    socket: Identity,
    netns: u32,
    socket_type: SocketType,
    state: SocketState,
    name: Option<u32>,
    directories: Option<u32>,
    origin: Origin,
    role: TrackedRole,
    created_at: Option<u64>,
    creator: Option<u32>,
    bound_at: Option<u64>,
    binder: Option<u32>,
    opened_at: Option<u64>,
    opener: Option<u32>,
    closed_at: u64,
    closer: Option<u32>,
    end: End,
    peer: Option<(Identity, Option<u32>)>,
    listener: Option<Identity>,
    how: How,
}

impl Kept for Gone {
    const KIND: Kind = Kind::Gone;
    type Row = GoneRow;

    fn stamp(&self) -> u64 {
        self.closed_at
    }

    fn variable_len(&self) -> usize {
        let actors = [&self.creator, &self.binder, &self.opener, &self.closer];
        let partner = self.peer.as_ref().and_then(|peer| peer.owner.as_ref());
        actors.into_iter().flatten().map(|who| who.comm.len()).sum::<usize>()
            + partner.map_or(0, |partner| partner.comm.len())
            + self.name.as_bytes().len()
            + directories_len(&self.directories)
    }

    fn pack(&self, tables: &mut Tables) -> GoneRow {
        GoneRow {
            socket: Identity { cookie: self.cookie, inode: self.inode },
            netns: self.netns,
            socket_type: self.socket_type,
            state: self.state,
            name: name(tables, &self.name),
            directories: directories(tables, &self.directories),
            origin: self.origin,
            role: self.role,
            created_at: self.created_at,
            creator: who(tables, &self.creator),
            bound_at: self.bound_at,
            binder: who(tables, &self.binder),
            opened_at: self.opened_at,
            opener: who(tables, &self.opener),
            closed_at: self.closed_at,
            closer: who(tables, &self.closer),
            end: self.end,
            peer: self.peer.as_ref().map(|peer| {
                (peer.socket, peer.owner.as_ref().map(|owner| tables.partners.place(owner)))
            }),
            listener: self.listener,
            how: self.how,
        }
    }

    fn unpack(row: &GoneRow, stock: &Stock) -> Option<Self> {
        let who = |place| at(place, &stock.actors);
        Some(Self {
            cookie: row.socket.cookie,
            inode: row.socket.inode,
            netns: row.netns,
            socket_type: row.socket_type,
            state: row.state,
            name: at(row.name, &stock.names)?.unwrap_or_default(),
            directories: at(row.directories, &stock.directories)?,
            origin: row.origin,
            role: row.role,
            created_at: row.created_at,
            creator: who(row.creator)?,
            bound_at: row.bound_at,
            binder: who(row.binder)?,
            opened_at: row.opened_at,
            opener: who(row.opener)?,
            closed_at: row.closed_at,
            closer: who(row.closer)?,
            end: row.end,
            peer: match row.peer {
                Some((socket, owner)) => {
                    Some(PeerThen { socket, owner: at(owner, &stock.partners)? })
                }
                None => None,
            },
            listener: row.listener,
            how: row.how,
        })
    }

    fn step(row: &mut GoneRow, last: &mut Last, way: Way) {
        last.stamp.step(&mut row.closed_at, way);
        // Moments of one life are near to its end, which is known in both ways by now.
        let moments = [&mut row.created_at, &mut row.bound_at, &mut row.opened_at];
        last.stamp.step_each(moments, way);
        last.step_socket(&mut row.socket, way);
        last.netns.step(&mut row.netns, way);
        if let Some((peer, _)) = &mut row.peer {
            let mut near = *last;
            near.step_socket(peer, way);
        }
        if let Some(listener) = &mut row.listener {
            last.step_listener(listener, way);
        }
    }
}

/// An event's row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PastRow {
    kind: u32,
    result: i32,
    time: u64,
    actor: u32,
    fd: i32,
    fd2: i32,
    socket: Option<Identity>,
    peer: Option<Identity>,
    listener: Option<Identity>,
    netns: u32,
    socket_type: u32,
    argument: u32,
    name: Option<u32>,
    directories: Option<u32>,
}

impl Kept for Past {
    const KIND: Kind = Kind::Past;
    type Row = PastRow;

    fn stamp(&self) -> u64 {
        self.time
    }

    fn variable_len(&self) -> usize {
        self.actor.comm.len()
            + self.name.as_bytes().len()
            + directories_len(&self.directories)
    }

    fn pack(&self, tables: &mut Tables) -> PastRow {
        PastRow {
            kind: self.kind,
            result: self.result,
            time: self.time,
            actor: tables.actors.place(&self.actor),
            fd: self.fd,
            fd2: self.fd2,
            socket: self.socket,
            peer: self.peer,
            listener: self.listener,
            netns: self.netns,
            socket_type: self.socket_type,
            argument: self.argument,
            name: name(tables, &self.name),
            directories: directories(tables, &self.directories),
        }
    }

    fn unpack(row: &PastRow, stock: &Stock) -> Option<Self> {
        Some(Self {
            kind: row.kind,
            result: row.result,
            time: row.time,
            actor: at(Some(row.actor), &stock.actors)??,
            fd: row.fd,
            fd2: row.fd2,
            socket: row.socket,
            peer: row.peer,
            listener: row.listener,
            netns: row.netns,
            socket_type: row.socket_type,
            argument: row.argument,
            name: at(row.name, &stock.names)?.unwrap_or_default(),
            directories: at(row.directories, &stock.directories)?,
        })
    }

    fn step(row: &mut PastRow, last: &mut Last, way: Way) {
        last.stamp.step(&mut row.time, way);
        last.netns.step(&mut row.netns, way);
        if let Some(socket) = &mut row.socket {
            last.step_socket(socket, way);
        }
        if let Some(peer) = &mut row.peer {
            let mut near = *last;
            near.step_socket(peer, way);
        }
        if let Some(listener) = &mut row.listener {
            last.step_listener(listener, way);
        }
    }
}

fn who(tables: &mut Tables, who: &Option<Who>) -> Option<u32> {
    who.as_ref().map(|who| tables.actors.place(who))
}

fn name(tables: &mut Tables, name: &UnixName) -> Option<u32> {
    name.is_named().then(|| tables.names.place(name))
}

fn directories(tables: &mut Tables, directories: &Option<Directories>) -> Option<u32> {
    directories.as_ref().map(|both| tables.directories.place(both))
}

fn directories_len(directories: &Option<Directories>) -> usize {
    directories.as_ref().map_or(0, |both| both.cwd.path.len() + both.root.path.len())
}
