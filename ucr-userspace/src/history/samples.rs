//! Entries for tests: any at all, and such as a busy machine makes.

use proptest::{option, prelude::*};

use super::entry::{End, Gone, How, Identity, Partner, Past, PeerThen};
use crate::{
    ledger::{Origin, TrackedRole},
    model::{Directories, Directory, SocketState, SocketType, UnixName, Who},
};

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=most)
}

fn name() -> impl Strategy<Value = UnixName> {
    prop_oneof![
        Just(UnixName::Unnamed),
        bytes(108).prop_map(UnixName::Pathname),
        bytes(107).prop_map(UnixName::Abstract),
    ]
}

fn who() -> impl Strategy<Value = Who> {
    // Few of them, so that they repeat.
    let number = 0..3_u32;
    (number.clone(), any::<bool>(), number, any::<bool>()).prop_map(|(pid, big, uid, named)| Who {
        pid: if big { u32::MAX } else { pid },
        tid: pid,
        uid,
        gid: u32::MAX - uid,
        cgroup: u64::MAX / u64::from(uid + 1),
        comm: if named { b"\xffany\0thing".to_vec() } else { Vec::new() },
    })
}

fn identity() -> impl Strategy<Value = Identity> {
    (option::of(any::<u64>()), option::of(any::<u32>()))
        .prop_map(|(cookie, inode)| Identity { cookie, inode })
}

fn directories() -> impl Strategy<Value = Directories> {
    let directory =
        || (bytes(30), any::<bool>()).prop_map(|(path, whole)| Directory { path, whole });
    (directory(), directory()).prop_map(|(cwd, root)| Directories { cwd, root })
}

fn peer() -> impl Strategy<Value = PeerThen> {
    let partner = (any::<u32>(), any::<u32>(), bytes(16));
    let partner = partner.prop_map(|(pid, uid, comm)| Partner { pid, uid, comm });
    (identity(), option::of(partner)).prop_map(|(socket, owner)| PeerThen { socket, owner })
}

/// Any closed socket.
pub(super) fn gone() -> impl Strategy<Value = Gone> {
    let deed = || (option::of(any::<u64>()), option::of(who()));
    let kinds = (
        prop::sample::select(vec![SocketType::Stream, SocketType::Dgram, SocketType::Seqpacket]),
        prop::sample::select(vec![
            SocketState::Connected,
            SocketState::Listening,
            SocketState::Unconnected,
        ]),
        prop::sample::select(vec![Origin::Socket, Origin::Found, Origin::Connection]),
        prop::sample::select(vec![TrackedRole::None, TrackedRole::Server, TrackedRole::Pair]),
        prop::sample::select(vec![End::Closed, End::NeverAccepted]),
        prop::sample::select(vec![How::Seen, How::Reconciled]),
    );
    let close = (any::<u64>(), option::of(who()), option::of(peer()), option::of(identity()));
    let own = (identity(), any::<u32>(), name(), option::of(directories()));
    (own, kinds, deed(), deed(), deed(), close).prop_map(
        |(own, kinds, created, bound, opened, close)| Gone {
            cookie: own.0.cookie,
            inode: own.0.inode,
            netns: own.1,
            socket_type: kinds.0,
            state: kinds.1,
            name: own.2,
            directories: own.3,
            origin: kinds.2,
            role: kinds.3,
            created_at: created.0,
            creator: created.1,
            bound_at: bound.0,
            binder: bound.1,
            opened_at: opened.0,
            opener: opened.1,
            closed_at: close.0,
            closer: close.1,
            end: kinds.4,
            peer: close.2,
            listener: close.3,
            how: kinds.5,
        },
    )
}

/// Any event.
pub(super) fn past() -> impl Strategy<Value = Past> {
    let sockets = (option::of(identity()), option::of(identity()), option::of(identity()));
    let numbers = (any::<u32>(), any::<i32>(), any::<u64>(), any::<i32>(), any::<i32>());
    let more = (any::<u32>(), any::<u32>(), any::<u32>());
    (numbers, who(), sockets, more, name(), option::of(directories())).prop_map(
        |(numbers, actor, sockets, more, name, directories)| Past {
            kind: numbers.0,
            result: numbers.1,
            time: numbers.2,
            actor,
            fd: numbers.3,
            fd2: numbers.4,
            socket: sockets.0,
            peer: sockets.1,
            listener: sockets.2,
            netns: more.0,
            socket_type: more.1,
            argument: more.2,
            name,
            directories,
        },
    )
}

/// Closed sockets, one a microsecond from stamp 1000 on, with cookies from 0 on.
pub(super) fn closed_sockets(count: usize) -> Vec<Gone> {
    (0_u64..).take(count).map(closed_socket).collect()
}

/// One of them.
pub(super) fn closed_socket(number: u64) -> Gone {
    let pid = u32::try_from(1000 + number % 7).unwrap_or(0);
    let who =
        || Who { pid, tid: pid, uid: 0, gid: 0, cgroup: 77, comm: format!("worker-{pid}").into() };
    let closed_at = number * 1000 + 1000;
    Gone {
        cookie: Some(number),
        inode: u32::try_from(number + 1).ok(),
        netns: 4_026_531_840,
        socket_type: SocketType::Stream,
        state: SocketState::Connected,
        name: UnixName::Pathname(b"/run/service.sock".to_vec()),
        directories: None,
        origin: Origin::Connection,
        role: TrackedRole::Server,
        created_at: Some(closed_at - 700),
        creator: Some(who()),
        bound_at: None,
        binder: None,
        opened_at: Some(closed_at - 600),
        opener: Some(who()),
        closed_at,
        closer: Some(who()),
        end: End::Closed,
        peer: Some(PeerThen {
            socket: Identity { cookie: Some(number + 1), inode: None },
            owner: Some(Partner { pid: 5, uid: 0, comm: b"client".to_vec() }),
        }),
        listener: Some(Identity { cookie: None, inode: Some(12) }),
        how: How::Seen,
    }
}

/// Events, one a microsecond from stamp 1000 on, with cookies from 0 on.
pub(super) fn events(count: usize) -> Vec<Past> {
    (0_u64..).take(count).map(event).collect()
}

/// One of them.
pub(super) fn event(number: u64) -> Past {
    Past {
        kind: ucr_common::event::kind::CLOSE,
        result: 0,
        time: number * 1000 + 1000,
        actor: Who { pid: 9, ..Who::default() },
        fd: 3,
        fd2: -1,
        socket: Some(Identity { cookie: Some(number), inode: Some(4) }),
        peer: None,
        listener: None,
        netns: 4_026_531_840,
        socket_type: 1,
        argument: 0,
        name: UnixName::Unnamed,
        directories: None,
    }
}
