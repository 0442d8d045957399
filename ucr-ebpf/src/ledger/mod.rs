//! What an event does to the maps: shared by all backends, so that they cannot differ.
//!
//! A hook finds out which socks a call was about and calls one function here. Each brings the ledger
//! up to date and sends the event. The functions are not inlined: the verifier would have to look
//! at each copy.

mod closing;
mod connecting;
pub(crate) mod correction;
pub(crate) mod inet;
pub(crate) mod record;

pub(crate) use closing::{closed, destroyed, ended, released};
pub(crate) use connecting::{connected, disconnected, former, paired, pairing};
use record::{
    begin, begin_newborn, begin_paths, find, is_unannounced, lookup, mark, note_autobind,
    note_creation, settle, shut,
};
use ucr_common::{
    event::{Event, kind},
    identity::{Actor, SocketId},
    name::RawName,
    record::{FLAG_AUTOBOUND, FLAG_PAIRING, FLAG_UNANNOUNCED, Record, origin, role},
};

use crate::{
    emit::{self, Head, Moment},
    kernel::{self, Pointer},
    paths,
};

/// A call that failed.
pub(crate) struct Failure {
    /// One of `kind`.
    pub kind: u32,
    /// A negative errno.
    pub result: i32,
    /// Descriptor that it named; -1 if none.
    pub fd: i32,
    /// `listen`: backlog; `shutdown`: how.
    pub argument: u32,
    /// `socket`, `socketpair`: the type.
    pub socket_type: u32,
    /// `bind`, `connect`: the name that was asked for.
    pub name: NameAsked,
}

/// The name that a call asked for: a `struct sockaddr *`. (No enum: what a variant leaves undefined, the
/// verifier refuses to see passed on.)
#[derive(Clone, Copy)]
pub(crate) struct NameAsked {
    address: u64,
    /// 0: there is none.
    length: u64,
    is_in_kernel: bool,
}

impl NameAsked {
    /// The call takes none.
    pub(crate) const NONE: Self = Self { address: 0, length: 0, is_in_kernel: false };

    /// In user memory.
    #[inline(always)]
    pub(crate) fn user(address: u64, length: u64) -> Self {
        Self { address, length, is_in_kernel: false }
    }

    /// The kernel's own copy.
    #[inline(always)]
    pub(crate) fn kernel(address: Pointer, length: u32) -> Self {
        Self { address: address as u64, length: length.into(), is_in_kernel: true }
    }

    #[inline(always)]
    fn read(self, name: &mut RawName) {
        if self.length == 0 {
        } else if self.is_in_kernel {
            kernel::read_asked_name(self.address as Pointer, self.length, name);
        } else {
            kernel::read_user_name(self.address, self.length, name);
        }
    }
}

/// Reports a call that failed, on a sock or (null) none. The ledger stays as it is.
#[inline(never)]
pub(crate) fn failed(sk: Pointer, failure: &Failure) -> u32 {
    let moment = Moment::now();
    if !emit::is_followed(moment.time) {
        return 0;
    }
    if !sk.is_null() {
        announce_first(sk);
    }
    let head = Head { kind: failure.kind, result: failure.result, fd: failure.fd, fd2: -1 };
    emit::send(&head, &moment, |event| {
        event.socket_type = failure.socket_type;
        event.family = kernel::AF_UNIX.into();
        if !sk.is_null() {
            describe(event, sk);
        }
        event.argument = failure.argument;
        failure.name.read(&mut event.name);
    });
    0
}

/// `socket(2)` made `sk`, with this descriptor.
#[inline(never)]
pub(crate) fn socket(sk: Pointer, fd: i32) -> u32 {
    let moment = Moment::now();
    begin(sk, origin::SOCKET, role::NONE, &moment);
    let head = Head { kind: kind::SOCKET, result: fd, fd, fd2: -1 };
    emit::send(&head, &moment, |event| describe(event, sk));
    0
}

/// The kernel made `sk`, and the call that asked for it goes on to give it a descriptor, or not.
#[inline(never)]
pub(crate) fn created(sk: Pointer, gets_descriptor: u32) -> u32 {
    let moment = Moment::now();
    let socket = kernel::identity(sk);
    if let Some(record) = begin_newborn(sk, socket, origin::SOCKET, role::NONE, &moment) {
        mark(record, FLAG_UNANNOUNCED, true);
    }
    if gets_descriptor == 0 {
        announce(sk, -1, -1);
    }
    0
}

/// `sk` got a descriptor by a call that named `call_fd`: sends the event that waited for it.
#[inline(never)]
pub(crate) fn announce(sk: Pointer, fd: i32, call_fd: i32) -> u32 {
    let Some(record) = lookup(sk) else { return 0 };
    if !is_unannounced(record) {
        return 0;
    }
    mark(record, FLAG_UNANNOUNCED, false);
    // That there is none is no failure.
    let number = if fd < 0 { 0 } else { fd };
    if record.role == role::SERVER {
        let moment = Moment { time: record.opened_at, actor: record.opener };
        let head = Head { kind: kind::ACCEPT, result: number, fd: call_fd, fd2: fd };
        emit::send(&head, &moment, |event| {
            tell(event, record);
            event.listener = record.listener;
            event.name = record.name;
        });
    } else {
        let moment = Moment { time: record.created_at, actor: record.creator };
        let head = Head { kind: kind::SOCKET, result: number, fd, fd2: -1 };
        emit::send(&head, &moment, |event| tell(event, record));
    }
    0
}

/// Sees to it that the first event of a socket comes first.
#[inline(always)]
fn announce_first(sk: Pointer) {
    if lookup(sk).is_some_and(|record| is_unannounced(record)) {
        announce(sk, -1, -1);
    }
}

/// `socketpair(2)` made `a` and `b`.
#[inline(never)]
pub(crate) fn socketpair(a: Pointer, b: Pointer, fd_a: i32, fd_b: i32) -> u32 {
    let moment = Moment::now();
    begin(a, origin::PAIR, role::PAIR, &moment);
    begin(b, origin::PAIR, role::PAIR, &moment);
    let head = Head { kind: kind::SOCKETPAIR, result: 0, fd: fd_a, fd2: fd_b };
    emit::send(&head, &moment, |event| {
        describe(event, a);
        event.peer = kernel::identity(b);
    });
    0
}

/// `socketpair(2)` has paired two socks that nobody has yet: 1 if they were seen being made, else 0, and
/// [`socketpair`] has to be called. (Not from here: their frames together are too large before 6.13.)
#[inline(never)]
pub(crate) fn paired_up(a: Pointer, b: Pointer, fd_a: i32, fd_b: i32) -> u32 {
    let Some(one) = lookup(a) else { return 0 };
    let Some(other) = lookup(b) else { return 0 };
    let moment = Moment::now();
    pair_with(one, a, other.socket, &moment);
    pair_with(other, b, one.socket, &moment);
    let head = Head { kind: kind::SOCKETPAIR, result: 0, fd: fd_a, fd2: fd_b };
    emit::send(&head, &moment, |event| tell(event, one));
    1
}

#[inline(always)]
fn pair_with(record: &mut Record, sk: Pointer, peer: SocketId, moment: &Moment) {
    record.peer = peer;
    // Datagram sockets stay closed on older kernels.
    record.state = kernel::state_of(sk);
    record.origin = origin::PAIR;
    record.seen_at = moment.time;
    mark(record, FLAG_UNANNOUNCED, false);
    note_creation(record, role::PAIR, moment);
}

/// `bind(2)` gave `sk` its name.
#[inline(never)]
pub(crate) fn bound(sk: Pointer, fd: i32) -> u32 {
    let moment = Moment::now();
    announce_first(sk);
    if let Some(record) = find(sk, &moment) {
        mark(record, FLAG_AUTOBOUND, false);
        kernel::read_name(sk, &mut record.name);
        record.bound_at = moment.time;
        record.binder = moment.actor;
    }
    let head = Head { kind: kind::BIND, result: 0, fd, fd2: -1 };
    let fill = |event: &mut Event| {
        describe(event, sk);
        kernel::read_name(sk, &mut event.name);
    };
    if kernel::has_pathname(sk) {
        if let Some(paths) = begin_paths(sk) {
            paths::fill(paths);
            emit::send_bind(&head, &moment, paths, fill);
            return 0;
        }
    }
    emit::send(&head, &moment, fill);
    0
}

/// The kernel may have given `sk` a name by itself.
#[inline(never)]
pub(crate) fn autobound(sk: Pointer, fd: i32) -> u32 {
    let moment = Moment::now();
    announce_first(sk);
    let Some(record) = find(sk, &moment) else { return 0 };
    if note_autobind(record, sk, &moment) {
        let head = Head { kind: kind::AUTOBIND, result: 0, fd, fd2: -1 };
        emit::send(&head, &moment, |event| {
            tell(event, record);
            event.name = record.name;
        });
    }
    0
}

/// `listen(2)` made `sk` a listener, or changed its backlog.
#[inline(never)]
pub(crate) fn listening(sk: Pointer, fd: i32) -> u32 {
    let moment = Moment::now();
    announce_first(sk);
    let head = Head { kind: kind::LISTEN, result: 0, fd, fd2: -1 };
    let backlog = kernel::backlog_of(sk);
    if let Some(record) = find(sk, &moment) {
        settle(&mut record.state, || kernel::state_of(sk));
        settle(&mut record.backlog, || kernel::backlog_of(sk));
        record.opened_at = moment.time;
        record.opener = moment.actor;
        emit::send(&head, &moment, |event| {
            tell(event, record);
            event.argument = backlog;
            event.name = record.name;
        });
        return 0;
    }
    emit::send(&head, &moment, |event| {
        describe(event, sk);
        event.argument = backlog;
    });
    0
}

/// `accept(2)` returned `sk`.
#[inline(never)]
pub(crate) fn accepted(sk: Pointer, listener: Pointer, fd: i32, listener_fd: i32) -> u32 {
    take_up(sk, listener);
    announce(sk, fd, listener_fd);
    0
}

/// `accept` took `sk` out of its listener's queue; the event waits for [`announce`].
#[inline(never)]
pub(crate) fn take_up(sk: Pointer, listener: Pointer) -> u32 {
    let moment = Moment::now();
    // An iterator may have seen the inode already.
    let inode = kernel::inode_of(sk);
    let waiting = lookup(sk).filter(|known| {
        known.opened_at == 0 && (known.socket.inode == 0 || known.socket.inode == inode)
    });
    if waiting.is_none() {
        if let Some(record) = begin(sk, origin::ACCEPT, role::SERVER, &moment) {
            record.created_at = 0;
            record.creator = Actor::UNKNOWN;
        }
    }
    let Some(known) = lookup(sk) else { return 0 };
    known.socket = kernel::identity(sk);
    if !listener.is_null() {
        known.listener = kernel::identity(listener);
    }
    known.role = role::SERVER;
    known.opened_at = moment.time;
    known.opener = moment.actor;
    mark(known, FLAG_UNANNOUNCED, true);
    if let Some(client) = kernel::peer_of(sk).and_then(lookup) {
        if client.peer.sk == sk as u64 {
            client.peer = known.socket;
            mark(client, FLAG_PAIRING, false);
        }
    }
    0
}

/// `shutdown(2)` shut down one or both directions of `sk`.
#[inline(never)]
pub(crate) fn shut_down(sk: Pointer, fd: i32) -> u32 {
    let moment = Moment::now();
    announce_first(sk);
    let now = kernel::shutdown_of(sk);
    if let Some(record) = find(sk, &moment) {
        shut(record, now);
    }
    if let Some(peer) = kernel::peer_of(sk) {
        if let Some(known) = lookup(peer) {
            shut(known, kernel::shutdown_of(peer));
        }
    }
    let head = Head { kind: kind::SHUTDOWN, result: 0, fd, fd2: -1 };
    emit::send(&head, &moment, |event| {
        describe(event, sk);
        event.argument = now;
        if let Some(record) = lookup(sk) {
            event.name = record.name;
        }
    });
    0
}

/// A descriptor of `sk` goes from hand to hand: into the queue of `carrier`, or out of it.
#[inline(never)]
pub(crate) fn handed(sk: Pointer, carrier: Pointer, kind: u32, fd: i32) -> u32 {
    let moment = Moment::now();
    if !emit::is_followed(moment.time) {
        return 0;
    }
    announce_first(sk);
    emit::send(&Head { kind, result: 0, fd, fd2: -1 }, &moment, |event| {
        describe(event, sk);
        event.peer = kernel::identity(carrier);
        if let Some(record) = lookup(sk) {
            event.name = record.name;
        }
    });
    0
}

/// Fills in what every event says of its socket, from the kernel.
#[inline(always)]
fn describe(event: &mut Event, sk: Pointer) {
    event.socket = kernel::identity(sk);
    event.socket_type = kernel::type_of(sk);
    event.netns = kernel::netns_of(sk);
    event.family = kernel::AF_UNIX.into();
    event.peer = kernel::identity(kernel::peer_pointer(sk));
}

/// The same from the record.
#[inline(always)]
fn tell(event: &mut Event, record: &Record) {
    event.socket = record.socket;
    event.socket_type = record.socket_type;
    event.netns = record.netns;
    event.family = record.family;
    event.protocol = record.protocol;
    event.peer = record.peer;
}
