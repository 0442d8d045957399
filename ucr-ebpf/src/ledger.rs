//! What an event does to the maps: shared by all backends, so that they cannot differ.
//!
//! A hook finds out which socks a call was about and calls one function here. Each puts the event
//! together in scratch memory, brings the ledger up to date, and sends the event. The functions
//! are not inlined: the verifier would have to look at each copy.

use aya_ebpf::bindings::BPF_ANY;
use ucr_common::{
    control::counter,
    event::{Event, kind},
    identity::{Actor, SocketId},
    name::RawName,
    record::{FLAG_AUTOBOUND, FLAG_PEER_CLOSED, Record, origin, role},
};

use crate::{
    emit,
    kernel::{self, Pointer},
    maps::{BIND_PATHS, LEDGER, Scratch, User, count, scratch},
    paths,
};

/// `TCP_LISTEN`.
const LISTENING: u32 = 10;
/// `SHUTDOWN_MASK`.
const SHUT_BOTH: u32 = 3;
/// `SOCK_DGRAM`.
const DGRAM: u32 = 2;

/// What a call that failed was about.
pub(crate) struct Failure {
    /// Descriptor that it named; -1 if none.
    pub fd: i32,
    /// `listen`: backlog; `shutdown`: how.
    pub argument: u32,
    /// `bind`, `connect`: the name in user memory and its length; 0 if none.
    pub name: (u64, u64),
    /// `socket`, `socketpair`: the type.
    pub socket_type: u32,
}

/// Reports a call that failed. The ledger stays as it is.
#[inline(always)]
pub(crate) fn failed(kind: u32, result: i64, sk: Option<Pointer>, failure: &Failure) {
    let Some(Scratch { event, .. }) = scratch(User::Tracepoint) else { return };
    let event = &mut event.event;
    emit::begin(event, kind, result, failure.fd);
    event.socket_type = failure.socket_type;
    if let Some(sk) = sk {
        describe(event, sk);
    }
    event.argument = failure.argument;
    if failure.name.0 != 0 {
        kernel::read_user_name(failure.name.0, failure.name.1, &mut event.name);
    }
    emit::send(event);
}

/// `socket(2)` made `sk`.
#[inline(never)]
pub(crate) fn socket(sk: Pointer, fd: i32) -> u32 {
    let Some(Scratch { event, record, .. }) = scratch(User::Tracepoint) else { return 0 };
    let event = &mut event.event;
    emit::begin(event, kind::SOCKET, i64::from(fd), fd);
    describe(event, sk);
    begin_record(record, sk, origin::SOCKET, role::NONE, event);
    insert(record);
    emit::send(event);
    0
}

/// `socketpair(2)` made `a` and `b`.
#[inline(never)]
pub(crate) fn socketpair(a: Pointer, b: Pointer, fd_a: i32, fd_b: i32) -> u32 {
    let Some(Scratch { event, record, .. }) = scratch(User::Tracepoint) else { return 0 };
    let event = &mut event.event;
    emit::begin(event, kind::SOCKETPAIR, 0, fd_a);
    event.fd2 = fd_b;
    describe(event, a);
    event.peer = kernel::identity(b);
    begin_record(record, a, origin::PAIR, role::PAIR, event);
    insert(record);
    begin_record(record, b, origin::PAIR, role::PAIR, event);
    insert(record);
    emit::send(event);
    0
}

/// `bind(2)` gave `sk` its name.
#[inline(never)]
pub(crate) fn bound(sk: Pointer, fd: i32) -> u32 {
    let Some(Scratch { event: whole, record, .. }) = scratch(User::Tracepoint) else { return 0 };
    emit::begin(&mut whole.event, kind::BIND, 0, fd);
    describe(&mut whole.event, sk);
    kernel::read_name(sk, &mut whole.event.name);
    let event = &whole.event;
    if let Some(record) = find(sk, record, event) {
        record.name = event.name;
        record.bound_at = event.time;
        record.binder = event.actor;
    }
    if event.name.len > 0 && event.name.bytes[0] != 0 {
        paths::fill(&mut whole.paths);
        if BIND_PATHS.insert(&(sk as u64), &whole.paths, BPF_ANY.into()).is_err() {
            count(counter::PATHS_FULL);
        }
        emit::send_bind(whole);
    } else {
        emit::send(&whole.event);
    }
    0
}

/// `listen(2)` made `sk` a listener, or changed its backlog.
#[inline(never)]
pub(crate) fn listening(sk: Pointer, fd: i32) -> u32 {
    let Some(Scratch { event, record, .. }) = scratch(User::Tracepoint) else { return 0 };
    let event = &mut event.event;
    emit::begin(event, kind::LISTEN, 0, fd);
    describe(event, sk);
    event.argument = kernel::backlog_of(sk);
    if let Some(record) = find(sk, record, event) {
        record.state = kernel::state_of(sk);
        record.backlog = event.argument;
        record.opened_at = event.time;
        record.opener = event.actor;
        event.name = record.name;
    }
    emit::send(event);
    0
}

/// `connect(2)` connected `sk`; a dgram socket perhaps anew, or to nothing.
#[inline(never)]
pub(crate) fn connected(sk: Pointer, fd: i32) -> u32 {
    let Some(Scratch { event, record, .. }) = scratch(User::Tracepoint) else { return 0 };
    let event = &mut event.event;
    emit::begin(event, kind::CONNECT, 0, fd);
    describe(event, sk);
    let is_stream = event.socket_type != DGRAM;
    // A server may have accepted and closed before this call returned.
    let peer = kernel::peer_of(sk);
    let alive = peer.filter(|peer| !kernel::is_dead(*peer));
    if let Some(record) = find(sk, record, event) {
        record.state = kernel::state_of(sk);
        record.shutdown = kernel::shutdown_of(sk);
        record.peer = event.peer;
        if peer.is_some() && alive.is_none() {
            record.peer.sk = 0;
            record.flags |= FLAG_PEER_CLOSED;
        } else {
            record.flags &= !FLAG_PEER_CLOSED;
        }
        record.opened_at = event.time;
        record.opener = event.actor;
        if is_stream {
            record.role = role::CLIENT;
        }
        if record.name.len == 0 {
            kernel::read_name(sk, &mut record.name);
            if record.name.len > 0 {
                record.flags |= FLAG_AUTOBOUND;
            }
        }
    }
    if let Some(peer) = alive {
        kernel::read_name(peer, &mut event.name);
        if !is_stream {
            // `unix_dgram_connect` marks both ends.
            if let Some(known) = lookup(peer) {
                known.state = kernel::state_of(peer);
            }
        } else {
            event.listener = kernel::listener_of(peer).map_or(SocketId::NONE, kernel::identity);
            embryo(peer, sk, record, event);
        }
    }
    emit::send(event);
    0
}

/// Records the accepting end that `connect` made. It may have been accepted already.
#[inline(always)]
fn embryo(sk: Pointer, client: Pointer, record: &mut Record, event: &Event) {
    if let Some(known) = lookup(sk) {
        if known.peer.sk == client as u64 && known.origin == origin::ACCEPT {
            known.origin = origin::CONNECTION;
            known.created_at = event.time;
            known.creator = event.actor;
            return;
        }
    }
    begin_record(record, sk, origin::CONNECTION, role::SERVER, event);
    insert(record);
}

/// `accept(2)` returned `sk`.
#[inline(never)]
pub(crate) fn accepted(sk: Pointer, listener: Pointer, fd: i32, listener_fd: i32) -> u32 {
    let Some(Scratch { event, record, .. }) = scratch(User::Tracepoint) else { return 0 };
    let event = &mut event.event;
    emit::begin(event, kind::ACCEPT, i64::from(fd), listener_fd);
    event.fd2 = fd;
    describe(event, sk);
    if !listener.is_null() {
        event.listener = kernel::identity(listener);
    }
    kernel::read_name(sk, &mut event.name);
    let waiting = lookup(sk).filter(|known| known.socket.inode == 0 && known.opened_at == 0);
    if waiting.is_none() {
        begin_record(record, sk, origin::ACCEPT, role::SERVER, event);
        record.created_at = 0;
        record.creator = Actor::UNKNOWN;
        insert(record);
    }
    if let Some(known) = lookup(sk) {
        known.socket = event.socket;
        known.listener = event.listener;
        known.role = role::SERVER;
        known.opened_at = event.time;
        known.opener = event.actor;
    }
    if let Some(client) = kernel::peer_of(sk).and_then(lookup) {
        if client.peer.sk == sk as u64 {
            client.peer = event.socket;
        }
    }
    emit::send(event);
    0
}

/// `shutdown(2)` shut down one or both directions of `sk`.
#[inline(never)]
pub(crate) fn shut_down(sk: Pointer, fd: i32) -> u32 {
    let Some(Scratch { event, record, .. }) = scratch(User::Tracepoint) else { return 0 };
    let event = &mut event.event;
    emit::begin(event, kind::SHUTDOWN, 0, fd);
    describe(event, sk);
    event.argument = kernel::shutdown_of(sk);
    if let Some(record) = find(sk, record, event) {
        record.shutdown = event.argument;
        event.name = record.name;
    }
    if let Some(peer) = kernel::peer_of(sk) {
        if let Some(known) = lookup(peer) {
            known.shutdown = kernel::shutdown_of(peer);
        }
    }
    emit::send(event);
    0
}

/// The last descriptor of `sk` is about to be closed.
#[inline(never)]
pub(crate) fn closed(sk: Pointer, fd: i32) -> u32 {
    let Some(Scratch { event, .. }) = scratch(User::Tracepoint) else { return 0 };
    let event = &mut event.event;
    emit::begin(event, kind::CLOSE, 0, fd);
    describe(event, sk);
    if let Some(known) = lookup(sk) {
        event.name = known.name;
    }
    if kernel::state_of(sk) == LISTENING {
        kernel::for_each_embryo(sk, forget_embryo);
    }
    if let Some(peer) = kernel::peer_of(sk) {
        abandon(peer, sk);
    }
    forget(sk);
    emit::send(event);
    0
}

/// A listener dies with this connection in its queue: the kernel closes it, and its client sees
/// `ECONNRESET`.
#[inline(always)]
fn forget_embryo(sk: Pointer) {
    if let Some(client) = kernel::peer_of(sk) {
        abandon(client, sk);
    }
    forget(sk);
}

/// Notes that the peer of `survivor` is gone (`unix_release_sock`).
#[inline(always)]
fn abandon(survivor: Pointer, gone: Pointer) {
    let Some(known) = lookup(survivor) else { return };
    if known.peer.sk == gone as u64 {
        known.peer.sk = 0;
        known.flags |= FLAG_PEER_CLOSED;
        if known.socket_type != DGRAM {
            known.shutdown = SHUT_BOTH;
        }
    }
}

#[inline(always)]
fn forget(sk: Pointer) {
    // Both may be absent: a socket that was never recorded, or has no path.
    let _ = LEDGER.remove(&(sk as u64));
    let _ = BIND_PATHS.remove(&(sk as u64));
}

/// Fills in what every event says of its socket.
#[inline(always)]
fn describe(event: &mut Event, sk: Pointer) {
    event.socket = kernel::identity(sk);
    event.socket_type = kernel::type_of(sk);
    event.netns = kernel::netns_of(sk);
    if let Some(peer) = kernel::peer_of(sk) {
        event.peer = kernel::identity(peer);
    }
}

/// The record of a sock.
#[inline(always)]
fn lookup(sk: Pointer) -> Option<&'static mut Record> {
    let record = LEDGER.get_ptr_mut(&(sk as u64))?;
    // SAFETY: a non-null map value stays readable and writable until the program ends. Two CPUs
    // may write to one record; then the calls themselves raced, and either order is right.
    Some(unsafe { &mut *record })
}

/// The record of a sock, made now if its creation was not seen.
#[inline(always)]
fn find(sk: Pointer, fresh: &mut Record, event: &Event) -> Option<&'static mut Record> {
    if let Some(known) = lookup(sk) {
        return Some(known);
    }
    begin_record(fresh, sk, origin::LATE, role::NONE, event);
    fresh.created_at = 0;
    fresh.creator = Actor::UNKNOWN;
    count(counter::LATE);
    insert(fresh);
    lookup(sk)
}

/// Fills a record with what the kernel says of the sock now.
#[inline(always)]
pub(crate) fn survey(record: &mut Record, sk: Pointer) {
    record.socket = kernel::identity(sk);
    record.peer = kernel::peer_of(sk).map_or(SocketId::NONE, kernel::identity);
    record.listener = kernel::listener_of(sk).map_or(SocketId::NONE, kernel::identity);
    record.netns = kernel::netns_of(sk);
    record.socket_type = kernel::type_of(sk);
    record.state = kernel::state_of(sk);
    record.shutdown = kernel::shutdown_of(sk);
    record.backlog = if record.state == LISTENING { kernel::backlog_of(sk) } else { 0 };
    record.role = role::NONE;
    record.flags = 0;
    record.created_at = 0;
    record.bound_at = 0;
    record.opened_at = 0;
    record.creator = Actor::UNKNOWN;
    record.binder = Actor::UNKNOWN;
    record.opener = Actor::UNKNOWN;
    record.name = RawName::UNNAMED;
    kernel::read_name(sk, &mut record.name);
}

/// A record that begins with the event at hand.
#[inline(always)]
fn begin_record(record: &mut Record, sk: Pointer, origin: u32, role: u32, event: &Event) {
    survey(record, sk);
    record.origin = origin;
    record.role = role;
    record.created_at = event.time;
    record.creator = event.actor;
}

/// Puts a new record into the ledger. What stands there already belongs to a sock whose end was
/// not seen and whose address has been used again.
#[inline(always)]
fn insert(record: &Record) {
    if LEDGER.get_ptr(&record.socket.sk).is_some() {
        count(counter::STALE);
        let _ = BIND_PATHS.remove(&record.socket.sk);
    }
    if LEDGER.insert(&record.socket.sk, record, BPF_ANY.into()).is_err() {
        count(counter::LEDGER_FULL);
    }
}
