//! What making and losing a connection does to the ledger.

use aya_ebpf::{bindings::BPF_ANY, helpers::bpf_get_current_pid_tgid};
use ucr_common::{
    event::kind,
    identity::SocketId,
    record::{FLAG_PAIRING, FLAG_PEER_CLOSED, Record, origin, role},
};

use super::{
    announce_first, describe,
    record::{
        DGRAM, ESTABLISHED, begin, begin_newborn, find, has, lookup, mark, note_autobind, settle,
        shut,
    },
    tell,
};
use crate::{
    emit::{self, Head, Moment},
    kernel::{self, Pointer},
    maps::FORMER,
};

/// `connect(2)` has decided to connect a stream or seqpacket socket. The kernel writes it down after
/// this, and nothing can come between, so it is put together from what the call is about.
#[inline(never)]
pub(crate) fn pairing(client: Pointer, listener: Pointer, embryo: Pointer, fd: i32) -> u32 {
    let moment = Moment::now();
    announce_first(client);
    let own = kernel::identity(client);
    let accepting = kernel::identity(embryo);
    let through = kernel::identity(listener);
    let socket_type = kernel::type_of(client);
    let begun = begin_newborn(embryo, accepting, origin::CONNECTION, role::SERVER, &moment);
    if let Some(record) = begun {
        record.socket_type = socket_type;
        record.state = ESTABLISHED;
        record.peer = own;
        record.listener = through;
        kernel::read_name(listener, &mut record.name);
    }
    if let Some(record) = find(client, &moment) {
        record.state = ESTABLISHED;
        record.peer = accepting;
        mark(record, FLAG_PEER_CLOSED, false);
        record.role = role::CLIENT;
        record.opened_at = moment.time;
        record.opener = moment.actor;
        mark(record, FLAG_PAIRING, true);
        note_autobind(record, client, &moment);
    }
    let head = Head { kind: kind::CONNECT, result: 0, fd, fd2: -1 };
    emit::send(&head, &moment, |event| {
        event.socket = own;
        event.peer = accepting;
        event.listener = through;
        event.socket_type = socket_type;
        event.netns = kernel::netns_of(client);
        event.family = kernel::AF_UNIX.into();
        kernel::read_name(listener, &mut event.name);
    });
    0
}

/// The `connect` of a stream or seqpacket socket is over; the kernel has written it down.
#[inline(always)]
pub(crate) fn paired(client: Pointer) {
    if let Some(record) = lookup(client) {
        mark(record, FLAG_PAIRING, false);
    }
}

/// `connect(2)` connected `sk`; a dgram socket perhaps anew, or to nothing.
#[inline(never)]
pub(crate) fn connected(sk: Pointer, fd: i32) -> u32 {
    let moment = Moment::now();
    announce_first(sk);
    let is_stream = kernel::type_of(sk) != DGRAM;
    // A server may have accepted and closed before this call returned.
    let peer = kernel::peer_of(sk);
    let alive = peer.filter(|peer| !kernel::is_dead(*peer));
    // For a datagram socket the peer it had, for others the listener.
    let mut other = SocketId::NONE;
    if let Some(record) = find(sk, &moment) {
        other = record.peer;
        shut(record, kernel::shutdown_of(sk));
        follow_peer(record, sk);
        settle(&mut record.state, || kernel::state_of(sk));
        if peer.is_some() && alive.is_none() {
            record.peer.sk = 0;
            mark(record, FLAG_PEER_CLOSED, true);
        } else {
            mark(record, FLAG_PEER_CLOSED, false);
        }
        record.opened_at = moment.time;
        record.opener = moment.actor;
        if is_stream {
            record.role = role::CLIENT;
        }
        note_autobind(record, sk, &moment);
    }
    if let Some(peer) = alive {
        if is_stream {
            other = kernel::identity(kernel::listener_pointer(peer));
            embryo(peer, sk, &moment);
        } else {
            // `unix_dgram_connect` marks both ends.
            follow_state(peer);
        }
    }
    if !is_stream {
        // One that has no peer itself is closed again, after the lock on this one is given up: which one
        // that is the ledger may not say any more.
        let thread = bpf_get_current_pid_tgid();
        if let Some(former) = FORMER.get_ptr(&thread) {
            // SAFETY: a non-null map value.
            follow_state(unsafe { *former } as Pointer);
            let _ = FORMER.remove(&thread);
        } else if other.sk != 0 && other.sk != kernel::peer_pointer(sk) as u64 {
            follow_state(other.sk as Pointer);
        }
    }
    let head = Head { kind: kind::CONNECT, result: 0, fd, fd2: -1 };
    emit::send(&head, &moment, |event| {
        describe(event, sk);
        event.listener = other;
        if let Some(peer) = alive {
            kernel::read_name(peer, &mut event.name);
        }
    });
    0
}

/// Takes over the peer of a sock.
#[inline(always)]
fn follow_peer(record: &mut Record, sk: Pointer) {
    settle(&mut record.peer.sk, || kernel::peer_pointer(sk) as u64);
    let peer = record.peer.sk as Pointer;
    record.peer.cookie = kernel::cookie_of(peer);
    record.peer.inode = kernel::inode_of(peer);
}

/// Takes over the state of a sock that something else was done to.
#[inline(always)]
fn follow_state(sk: Pointer) {
    if let Some(known) = lookup(sk) {
        settle(&mut known.state, || kernel::state_of(sk));
    }
}

/// A datagram socket lets go of this peer, in the `connect` that the current thread may be in.
#[inline(always)]
pub(crate) fn former(peer: Pointer) {
    let thread = bpf_get_current_pid_tgid();
    // If it does not fit, the ledger's own record is asked.
    let _ = FORMER.insert(&thread, &(peer as u64), BPF_ANY.into());
}

/// Records the accepting end that `connect` made. It may have been accepted already. Not inlined: the frames
/// of the call that connects and of the event that it puts before its own have 512 bytes together.
#[inline(never)]
fn embryo(sk: Pointer, client: Pointer, moment: &Moment) -> u32 {
    if let Some(known) = lookup(sk) {
        if known.peer.sk == client as u64 && known.origin == origin::ACCEPT {
            known.origin = origin::CONNECTION;
            known.created_at = moment.time;
            known.creator = moment.actor;
            return 0;
        }
    }
    begin(sk, origin::CONNECTION, role::SERVER, moment);
    0
}

/// A datagram socket has lost its peer: it was told to have none, has another one, or found it gone.
#[inline(never)]
pub(crate) fn disconnected(sk: Pointer, former: Pointer) -> u32 {
    let peer = kernel::peer_of(sk);
    let Some(record) = lookup(sk) else { return 0 };
    if peer.is_some() || record.peer.sk == 0 && !has(record, FLAG_PEER_CLOSED) {
        return 0;
    }
    let before = record.peer;
    record.peer = SocketId::NONE;
    mark(record, FLAG_PEER_CLOSED, false);
    follow_peer(record, sk);
    settle(&mut record.state, || kernel::state_of(sk));
    let former = if former.is_null() { before.sk as Pointer } else { former };
    if former.is_null() || kernel::is_dead(former) {
        let moment = Moment::now();
        let head = Head { kind: kind::DISCONNECT, result: 0, fd: -1, fd2: -1 };
        emit::send(&head, &moment, |event| {
            tell(event, record);
            event.peer = before;
            event.name = record.name;
        });
    }
    0
}
