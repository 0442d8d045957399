//! What was found, put into the shape of an answer.

use ucr_common::{identity::Actor, sighting::SIGHT_MORE};

use super::{Search, Surroundings, is_listener};
use crate::{
    inspect::{
        people::People,
        picture::{Condition, is_embryo},
        tracked::{self, Known},
    },
    kernel::clock,
    ledger::{Tracked, TrackedRole},
    model::{Shutdown, SocketState, SocketType, Who},
    query::who::{Connection, Deed, Described, Held, Subject},
    tracer::programs::Sight,
};

impl Search<'_> {
    /// A socket with all that belongs to it; `None` if it has gone.
    pub(super) fn subject(&self, around: &Surroundings, people: &People) -> Option<Subject> {
        let describe = |sk: u64| self.describe(sk, people);
        let connections = around.connections.iter().filter_map(|(server, client)| {
            Some(Connection { server: describe(*server)?, client: client.and_then(describe) })
        });
        Some(Subject {
            socket: describe(around.sk)?,
            peer: around.peer.and_then(describe),
            connections: connections.collect(),
            senders: around.senders.iter().filter_map(|sk| describe(*sk)).collect(),
        })
    }

    fn describe(&self, sk: u64, people: &People) -> Option<Described> {
        let sight = self.seen.get(&sk)?;
        let raw = &sight.raw;
        let Known { source, tracked } = tracked::of(self.store, sight);
        let known = |number: u64| (number != 0).then_some(number);
        let holders = self.holders.get(&sk).into_iter().flatten().map(|holder| Held {
            pid: holder.pid,
            fd: holder.fd,
            comm: holder.comm().to_vec(),
            uid: holder.uid,
            user: people.user(holder.uid).to_string(),
            cgroup: people.cgroup(holder.pid).map(|group| (*group).clone()),
        });
        let listens = is_listener(sight);
        let shutdown = Shutdown(raw.shutdown);
        let deed = |at: Option<u64>, by: Option<Actor>| {
            Some(Deed { at: clock::to_realtime(at?), by: Who::from(&by?) })
        };
        let of = |tracked: &Option<Tracked>,
                  which: fn(&Tracked) -> (Option<u64>, Option<Actor>)| {
            tracked.as_ref().map(which).and_then(|(at, by)| deed(at, by))
        };
        Some(Described {
            inode: u32::try_from(raw.socket.inode).ok().filter(|inode| *inode != 0),
            cookie: known(raw.socket.cookie),
            netns: raw.netns,
            socket_type: SocketType::from_raw(raw.socket_type.into())
                .map_or_else(|| raw.socket_type.to_string(), |kind| kind.to_string()),
            state: self.condition(sight).name().to_owned(),
            name: sight.name.clone(),
            directory: tracked.as_ref().and_then(directory_of),
            shutdown: (!shutdown.is_none()).then(|| shutdown.to_string()),
            backlog: listens.then_some(raw.backlog),
            receive_bytes: raw.receive_bytes,
            receive_more: raw.flags & SIGHT_MORE != 0,
            receive_count: raw.receive_count,
            send_bytes: raw.send_bytes,
            holders: holders.collect(),
            other_references: self.unexplained(sk),
            known: source.name().to_owned(),
            role: tracked.as_ref().and_then(|t| role_of(t.role)).map(str::to_owned),
            created: of(&tracked, |t| (t.created_at, t.creator)),
            bound: of(&tracked, |t| (t.bound_at, t.binder)),
            opened: of(&tracked, |t| (t.opened_at, t.opener)),
            peer_credentials: (raw.peer_pid != 0).then_some(raw.peer_pid),
            maker_uid: raw.uid,
        })
    }

    fn condition(&self, sight: &Sight) -> Condition {
        match SocketState::from_raw(sight.raw.state) {
            Some(SocketState::Listening) => Condition::Listening,
            Some(SocketState::Unconnected) => Condition::Unconnected,
            Some(SocketState::Connected) if is_embryo(sight) => Condition::NotAccepted,
            // A datagram socket that others are connected to: the kernel gives it this state, too.
            Some(SocketState::Connected) if sight.raw.peer.sk == 0 => Condition::Unconnected,
            Some(SocketState::Connected) if self.seen.contains_key(&sight.raw.peer.sk) => {
                Condition::Connected
            }
            Some(SocketState::Connected) => Condition::PeerClosed,
            None => Condition::Unknown,
        }
    }
}

fn role_of(role: TrackedRole) -> Option<&'static str> {
    match role {
        TrackedRole::None => None,
        TrackedRole::Client => Some("client"),
        TrackedRole::Server => Some("server"),
        TrackedRole::Pair => Some("pair"),
    }
}

/// The directory that a relative path begins at.
fn directory_of(tracked: &Tracked) -> Option<Vec<u8>> {
    let directories = tracked.directories.as_ref()?;
    tracked.name.is_relative_path().then(|| directories.cwd.path.clone())
}
