//! What an event does to the ledger where it happens to an internet socket.
//!
//! Who has the other end, this host need not know: the two ends are addresses, and pairs are found by them. The
//! state of a TCP socket changes whenever a packet comes, so it is taken from where the kernel announces that
//! (`inet_sock_set_state`), never from a later look; all else is read again at the end of each call.

use ucr_common::{
    control::counter,
    event::{Event, kind},
    record::{FLAG_AUTOBOUND, FLAG_UNANNOUNCED, Record, origin, role},
};

use super::{
    Failure, NameAsked, announce, announce_first,
    record::{
        CLOSED, LISTENING, SHUT_BOTH, forget, lookup, mark, note_creation, place, put_shut, settle,
        without_history,
    },
    tell,
};
use crate::{
    emit::{self, Head, Moment},
    kernel::{
        self, Pointer,
        inet::{TCP, ends_of, has_file, port_in, protocol_of, put_ends},
    },
    maps::count,
};

/// `-EINPROGRESS`: a connection is under way.
pub(crate) const IN_PROGRESS: i32 = -115;

/// Fills a record with what the kernel says of the sock now.
#[inline(always)]
pub(crate) fn survey(record: &mut Record, sk: Pointer, time: u64) {
    // First, so that a change of state from now on finds the record.
    record.socket = kernel::identity(sk);
    record.peer = ucr_common::identity::SocketId::NONE;
    record.listener = ucr_common::identity::SocketId::NONE;
    record.netns = kernel::netns_of(sk);
    record.socket_type = kernel::type_of(sk);
    record.family = kernel::family_of(sk);
    record.protocol = protocol_of(sk);
    record.shutdown = 0;
    without_history(record, time);
    settle(&mut record.state, || kernel::state_of(sk));
    put_shut(record, kernel::shutdown_of(sk));
    record.backlog = if record.state == LISTENING { kernel::backlog_of(sk) } else { 0 };
    put_ends(&ends_of(sk), &mut record.name);
}

#[inline(always)]
fn make(sk: Pointer, origin: u32, time: u64) -> Option<&'static mut Record> {
    let record = place(sk)?;
    survey(record, sk, time);
    record.origin = origin;
    Some(record)
}

/// The record of a sock, made now if its creation was not seen. What the kernel has for itself is not tracked.
#[inline(always)]
fn find(sk: Pointer, moment: &Moment) -> Option<&'static mut Record> {
    if let Some(known) = lookup(sk) {
        return Some(known);
    }
    if !has_file(sk) {
        return None;
    }
    count(counter::LATE);
    make(sk, origin::LATE, moment.time)
}

/// Whether calls on a sock are reported at all.
#[inline(always)]
fn is_reported(sk: Pointer) -> bool {
    lookup(sk).is_some() || has_file(sk)
}

/// Takes over what a call may have changed.
#[inline(always)]
fn refresh(record: &mut Record, sk: Pointer) {
    put_shut(record, kernel::shutdown_of(sk));
    put_ends(&ends_of(sk), &mut record.name);
    if record.protocol != TCP {
        settle(&mut record.state, || kernel::state_of(sk));
    }
}

/// Fills in what every event says of its socket, from the kernel.
#[inline(always)]
fn describe(event: &mut Event, sk: Pointer) {
    event.socket = kernel::identity(sk);
    event.socket_type = kernel::type_of(sk);
    event.netns = kernel::netns_of(sk);
    event.family = kernel::family_of(sk);
    event.protocol = protocol_of(sk);
    put_ends(&ends_of(sk), &mut event.name);
}

/// `socket(2)` made `sk`, with this descriptor.
#[inline(never)]
pub(crate) fn socket(sk: Pointer, fd: i32) -> u32 {
    begin(sk, origin::SOCKET, role::NONE);
    announce(sk, fd, -1);
    0
}

/// The kernel made `sk`, and the call that asked for it goes on to give it a descriptor, or not.
#[inline(never)]
pub(crate) fn created(sk: Pointer, gets_descriptor: u32) -> u32 {
    begin(sk, origin::SOCKET, role::NONE);
    if gets_descriptor == 0 {
        announce(sk, -1, -1);
    }
    0
}

/// A record whose event waits for [`announce`].
#[inline(never)]
fn begin(sk: Pointer, origin: u32, role: u32) -> u32 {
    let moment = Moment::now();
    if let Some(record) = make(sk, origin, moment.time) {
        note_creation(record, role, &moment);
        mark(record, FLAG_UNANNOUNCED, true);
    }
    0
}

/// `accept(2)` returned `sk`.
#[inline(never)]
pub(crate) fn accepted(sk: Pointer, listener: Pointer, fd: i32, listener_fd: i32) -> u32 {
    take_up(sk, listener);
    announce(sk, fd, listener_fd);
    0
}

/// `accept` took `sk` out of its listener's queue; the event waits for [`announce`]. Packets have made it, so
/// nobody but who accepts it can be named.
#[inline(never)]
pub(crate) fn take_up(sk: Pointer, listener: Pointer) -> u32 {
    begin(sk, origin::ACCEPT, role::SERVER);
    let Some(record) = lookup(sk) else { return 0 };
    record.opened_at = record.created_at;
    record.opener = record.creator;
    if !listener.is_null() {
        record.listener = kernel::identity(listener);
    }
    0
}

/// `bind(2)` gave `sk` its own end.
#[inline(never)]
pub(crate) fn bound(sk: Pointer, fd: i32) -> u32 {
    let moment = Moment::now();
    announce_first(sk);
    let Some(record) = find(sk, &moment) else { return 0 };
    mark(record, FLAG_AUTOBOUND, false);
    refresh(record, sk);
    record.bound_at = moment.time;
    record.binder = moment.actor;
    send(kind::BIND, fd, &moment, record, 0)
}

/// The kernel may have given `sk` a port by itself.
#[inline(never)]
pub(crate) fn autobound(sk: Pointer, fd: i32) -> u32 {
    if lookup(sk).is_none_or(|record| port_in(&record.name) != 0) {
        return 0;
    }
    let moment = Moment::now();
    announce_first(sk);
    let Some(record) = lookup(sk) else { return 0 };
    refresh(record, sk);
    if note_autobind(record, &moment) {
        send(kind::AUTOBIND, fd, &moment, record, 0);
    }
    0
}

/// Notes that a port came with another call.
#[inline(always)]
fn note_autobind(record: &mut Record, moment: &Moment) -> bool {
    if record.bound_at != 0 || port_in(&record.name) == 0 {
        return false;
    }
    mark(record, FLAG_AUTOBOUND, true);
    record.bound_at = moment.time;
    record.binder = moment.actor;
    true
}

/// `listen(2)` made `sk` a listener, or changed its backlog.
#[inline(never)]
pub(crate) fn listening(sk: Pointer, fd: i32) -> u32 {
    let moment = Moment::now();
    announce_first(sk);
    let Some(record) = find(sk, &moment) else { return 0 };
    refresh(record, sk);
    settle(&mut record.backlog, || kernel::backlog_of(sk));
    record.opened_at = moment.time;
    record.opener = moment.actor;
    note_autobind(record, &moment);
    send(kind::LISTEN, fd, &moment, record, kernel::backlog_of(sk))
}

/// `connect(2)` gave `sk` its other end, or took it away.
#[inline(never)]
pub(crate) fn connected(sk: Pointer, fd: i32) -> u32 {
    let moment = Moment::now();
    announce_first(sk);
    let Some(record) = find(sk, &moment) else { return 0 };
    refresh(record, sk);
    record.role = if record.state == CLOSED { role::NONE } else { role::CLIENT };
    record.opened_at = moment.time;
    record.opener = moment.actor;
    note_autobind(record, &moment);
    send(kind::CONNECT, fd, &moment, record, record.state)
}

/// `shutdown(2)` shut down one or both directions of `sk`.
#[inline(never)]
pub(crate) fn shut_down(sk: Pointer, fd: i32) -> u32 {
    let moment = Moment::now();
    announce_first(sk);
    let Some(record) = find(sk, &moment) else { return 0 };
    refresh(record, sk);
    send(kind::SHUTDOWN, fd, &moment, record, kernel::shutdown_of(sk))
}

/// Sends what a record tells.
#[inline(never)]
fn send(kind: u32, fd: i32, moment: &Moment, record: &Record, argument: u32) -> u32 {
    emit::send(&Head { kind, result: 0, fd, fd2: -1 }, moment, |event| {
        tell(event, record);
        event.argument = argument;
        event.name = record.name;
    });
    0
}

/// What a call that failed leaves behind: a refused `connect` takes back what was chosen for it, and `shutdown`
/// shuts down what is not connected, too.
#[inline(never)]
pub(crate) fn failed(sk: Pointer, failure: &Failure) -> u32 {
    if !is_reported(sk) {
        return 0;
    }
    announce_first(sk);
    if let Some(record) = lookup(sk) {
        refresh(record, sk);
    }
    let moment = Moment::now();
    let head = Head { kind: failure.kind, result: failure.result, fd: failure.fd, fd2: -1 };
    emit::send(&head, &moment, |event| {
        describe(event, sk);
        event.argument = failure.argument;
        let NameAsked { address, length, is_in_kernel } = failure.name;
        if length != 0 {
            kernel::inet::read_asked(address, is_in_kernel, &mut event.name);
        }
    });
    0
}

/// `socket(2)` failed.
#[inline(never)]
pub(crate) fn failed_to_create(result: i32, family: u32, socket_type: u32, protocol: u32) -> u32 {
    let moment = Moment::now();
    let head = Head { kind: kind::SOCKET, result, fd: -1, fd2: -1 };
    emit::send(&head, &moment, |event| {
        event.family = family;
        event.protocol = protocol;
        event.socket_type = socket_type;
    });
    0
}

/// The state of a TCP socket is about to become `to`. That may be anybody's doing, in the middle of what somebody
/// else does.
#[inline(never)]
pub(crate) fn state_changes(sk: Pointer, from: u32, to: u32) -> u32 {
    let Some(record) = lookup(sk) else { return 0 };
    announce_first(sk);
    record.state = to;
    put_ends(&ends_of(sk), &mut record.name);
    // Where the kernel closes one it shuts it down right after; a call that takes it apart takes that back, and
    // looks again when it is through.
    put_shut(record, if to == CLOSED { SHUT_BOTH } else { kernel::shutdown_of(sk) });
    let time = emit::now();
    let actor = if record.opened_at != 0 { record.opener } else { record.creator };
    send(kind::STATE, -1, &Moment { time, actor }, record, from << 8 | to)
}

/// The last descriptor of `sk` is about to be closed, or the kernel lets go of it: what TCP does after that is
/// nobody's.
#[inline(never)]
pub(crate) fn closed(sk: Pointer, fd: i32) -> u32 {
    if is_reported(sk) {
        announce_first(sk);
        report(sk, fd);
        forget(sk);
    }
    0
}

#[inline(never)]
fn report(sk: Pointer, fd: i32) -> u32 {
    if !emit::is_followed(emit::now()) {
        return 0;
    }
    let moment = Moment::now();
    let head = Head { kind: kind::CLOSE, result: 0, fd, fd2: -1 };
    let record = lookup(sk);
    emit::send_close(&head, &moment, record.as_deref(), |close| describe(&mut close.event, sk));
    0
}
