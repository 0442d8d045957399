//! Records: making, finding and filling them. They are filled where they lie, in the map.

use core::ptr;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use ucr_common::{
    control::counter,
    identity::{Actor, Partner, SocketId},
    name::RawName,
    record::{FLAG_AUTOBOUND, FLAG_PEER_CLOSED, FLAG_UNANNOUNCED, Record, origin, role},
};

use crate::{
    emit::Moment,
    kernel::{self, Pointer},
    maps::{BIND_PATHS, LEDGER, count},
};

/// `TCP_ESTABLISHED`.
pub(super) const ESTABLISHED: u32 = 1;
/// `TCP_CLOSE`.
pub(super) const CLOSED: u32 = 7;
/// `TCP_LISTEN`.
pub(super) const LISTENING: u32 = 10;
/// `SHUTDOWN_MASK`.
pub(super) const SHUT_BOTH: u32 = 3;
/// `SOCK_DGRAM`.
pub(super) const DGRAM: u32 = 2;

/// What a record is made from.
pub(crate) static BLANK: Record = Record {
    socket: SocketId::NONE,
    peer: SocketId::NONE,
    listener: SocketId::NONE,
    netns: 0,
    socket_type: 0,
    family: 0,
    protocol: 0,
    state: 0,
    shutdown: 0,
    origin: 0,
    role: 0,
    flags: 0,
    backlog: 0,
    seen_at: 0,
    created_at: 0,
    bound_at: 0,
    opened_at: 0,
    creator: Actor::UNKNOWN,
    binder: Actor::UNKNOWN,
    opener: Actor::UNKNOWN,
    partner: Partner::UNKNOWN,
    name: RawName::UNNAMED,
};

/// The record of a sock.
#[inline(always)]
pub(crate) fn lookup(sk: Pointer) -> Option<&'static mut Record> {
    lookup_any(sk).filter(|record| record.socket.sk == sk as u64)
}

/// The same, also if it is still blank.
#[inline(always)]
fn lookup_any(sk: Pointer) -> Option<&'static mut Record> {
    let record = LEDGER.get_ptr_mut(&(sk as u64))?;
    // SAFETY: a non-null map value stays memory of this map until the program ends. Two CPUs may write
    // to one record: the fields that matter are written whole. One that is removed meanwhile may be
    // given to another sock at once (since 6.1): who writes to a sock that the call is not about looks
    // first whether the record is that one's, and what is wrong all the same a reconciliation corrects.
    Some(unsafe { &mut *record })
}

/// The record of a sock, made now if its creation was not seen.
#[inline(always)]
pub(super) fn find(sk: Pointer, moment: &Moment) -> Option<&'static mut Record> {
    if let Some(known) = lookup(sk) {
        return Some(known);
    }
    count(counter::LATE);
    make(sk, origin::LATE, moment.time)
}

/// A record that begins with the event at hand.
#[inline(always)]
pub(super) fn begin(
    sk: Pointer,
    origin: u32,
    role: u32,
    moment: &Moment,
) -> Option<&'static mut Record> {
    let record = make(sk, origin, moment.time)?;
    note_creation(record, role, moment);
    Some(record)
}

/// The same of a sock that nobody but the call at hand has: it has neither name nor peer yet.
#[inline(always)]
pub(super) fn begin_newborn(
    sk: Pointer,
    socket: SocketId,
    origin: u32,
    role: u32,
    moment: &Moment,
) -> Option<&'static mut Record> {
    let record = place(sk)?;
    survey_newborn(record, sk, socket, moment.time);
    record.origin = origin;
    note_creation(record, role, moment);
    Some(record)
}

/// Writes down who made a socket.
#[inline(always)]
pub(super) fn note_creation(record: &mut Record, role: u32, moment: &Moment) {
    record.role = role;
    record.created_at = moment.time;
    record.creator = moment.actor;
}

/// A record with what the kernel says now. What stood there before belongs to the same sock, which
/// was known to be on its way, or to one whose end was not seen and whose address has been used again.
#[inline(always)]
pub(crate) fn make(sk: Pointer, origin: u32, time: u64) -> Option<&'static mut Record> {
    let record = place(sk)?;
    survey(record, sk, time);
    record.origin = origin;
    Some(record)
}

/// Where the record of a sock that is new to the ledger is to be written: usually there is none at its
/// address.
#[inline(always)]
pub(super) fn place(sk: Pointer) -> Option<&'static mut Record> {
    /// `-EEXIST`
    const EXISTS: i64 = -17;
    let inserted = LEDGER.insert(&(sk as u64), &BLANK, BPF_NOEXIST.into());
    let record = lookup_any(sk);
    if let Err(errno) = inserted {
        if i64::from(errno) != EXISTS {
            refused(errno.into());
            return None;
        }
        if record.as_ref().is_some_and(|old| !is_of(old, sk)) {
            count(counter::STALE);
            // May be absent.
            let _ = BIND_PATHS.remove(&(sk as u64));
        }
    }
    record
}

/// Adds what an iterator found, with `fresh` to put it together in, unless a hook does so at this
/// moment: that one knows more. Says whether it was added.
#[inline(always)]
pub(crate) fn add(
    fresh: &mut Record,
    sk: Pointer,
    origin: u32,
    time: u64,
    survey: impl Fn(&mut Record, Pointer, u64),
    correct: impl Fn(Pointer, u64) -> u32,
) -> bool {
    survey(fresh, sk, time);
    fresh.origin = origin;
    match LEDGER.insert(&(sk as u64), &*fresh, BPF_NOEXIST.into()) {
        Ok(()) => {
            // Its peer may have closed, or itself, while the record was put together and nobody could
            // write that down.
            correct(sk, time);
            if kernel::is_dead(sk) {
                forget(sk);
            }
            true
        }
        // -EEXIST
        Err(-17) => false,
        Err(errno) => {
            refused(errno.into());
            false
        }
    }
}

/// Counts a record that found no place.
#[inline(always)]
fn refused(errno: i64) {
    /// `-ENOMEM`: elements are allocated one by one, where nothing can wait for memory.
    const NO_MEMORY: i64 = -12;
    count(if errno == NO_MEMORY { counter::NO_MEMORY } else { counter::LEDGER_FULL });
}

/// Removes all that is known of a sock.
#[inline(always)]
pub(super) fn forget(sk: Pointer) {
    // A look takes no lock, in contrast to a removal.
    if BIND_PATHS.get_ptr(&(sk as u64)).is_some() {
        let _ = BIND_PATHS.remove(&(sk as u64));
    }
    // May be absent: a socket that was never recorded.
    let _ = LEDGER.remove(&(sk as u64));
}

/// Whether a record is about this very sock, and not about one that had its address before.
#[inline(always)]
fn is_of(record: &Record, sk: Pointer) -> bool {
    let now = kernel::identity(sk);
    if now.cookie != 0 && record.socket.cookie != 0 {
        now.cookie == record.socket.cookie
    } else {
        now.inode != 0 && now.inode == record.socket.inode
    }
}

/// Fills a record with what the kernel says of the sock now.
#[inline(always)]
pub(crate) fn survey(record: &mut Record, sk: Pointer, time: u64) {
    record.socket = kernel::identity(sk);
    record.peer = kernel::identity(kernel::peer_pointer(sk));
    record.listener = kernel::identity(kernel::listener_pointer(sk));
    record.netns = kernel::netns_of(sk);
    record.socket_type = kernel::type_of(sk);
    (record.family, record.protocol) = (kernel::AF_UNIX.into(), 0);
    record.state = kernel::state_of(sk);
    record.shutdown = 0;
    shut(record, kernel::shutdown_of(sk));
    record.backlog = if record.state == LISTENING { kernel::backlog_of(sk) } else { 0 };
    without_history(record, time);
    kernel::read_name(sk, &mut record.name);
}

/// The same of a sock that nobody has yet: each read of the kernel's memory takes its time.
#[inline(always)]
fn survey_newborn(record: &mut Record, sk: Pointer, socket: SocketId, time: u64) {
    record.socket = socket;
    record.peer = SocketId::NONE;
    record.listener = SocketId::NONE;
    record.netns = kernel::netns_of(sk);
    record.socket_type = kernel::type_of(sk);
    (record.family, record.protocol) = (kernel::AF_UNIX.into(), 0);
    record.state = CLOSED;
    record.shutdown = 0;
    record.backlog = 0;
    without_history(record, time);
    kernel::clear_name(&mut record.name);
}

#[inline(always)]
pub(super) fn without_history(record: &mut Record, time: u64) {
    record.origin = 0;
    record.role = role::NONE;
    record.flags = 0;
    record.seen_at = time;
    record.created_at = 0;
    record.bound_at = 0;
    record.opened_at = 0;
    record.creator = Actor::UNKNOWN;
    record.binder = Actor::UNKNOWN;
    record.opener = Actor::UNKNOWN;
    record.partner = Partner::UNKNOWN;
}

/// Whether a sock is one that `connect` has made and may still throw away: it is in the kernel's table
/// while `connect` waits for room in the listener's queue, and is nobody's yet.
#[inline(always)]
pub(crate) fn is_unborn(sk: Pointer) -> bool {
    kernel::state_of(sk) == CLOSED && kernel::peer_of(sk).is_none() && !kernel::has_socket(sk)
}

/// Notes that directions are shut down. They stay so, and each has a half of its own in the record: one
/// who has looked at the kernel earlier cannot take back what a later one has noted.
#[inline(always)]
pub(super) fn shut(record: &mut Record, shutdown: u32) {
    let (receive, send) = halves(shutdown);
    let field = ptr::from_mut(&mut record.shutdown).cast::<u16>();
    if receive != 0 {
        // SAFETY: the first half of the field.
        unsafe { field.write_volatile(receive) };
    }
    if send != 0 {
        // SAFETY: the second half of the field.
        unsafe { field.add(1).write_volatile(send) };
    }
}

/// Takes over which directions are shut down: of an internet socket `connect` can open them again.
#[inline(always)]
pub(super) fn put_shut(record: &mut Record, shutdown: u32) {
    record.shutdown = as_halves(shutdown);
}

/// As it stands in the map.
#[inline(always)]
pub(super) fn as_halves(shutdown: u32) -> u32 {
    let (receive, send) = halves(shutdown);
    u32::from(receive) | u32::from(send) << 16
}

/// `RCV_SHUTDOWN` and `SEND_SHUTDOWN`.
#[inline(always)]
pub(super) fn halves(shutdown: u32) -> (u16, u16) {
    (shutdown as u16 & 1, shutdown as u16 >> 1 & 1)
}

/// Copies a value of the kernel's until it stands: of two who do so at once, the last one to write has
/// seen the last value.
#[inline(always)]
pub(super) fn settle<T: Copy + PartialEq>(field: &mut T, read: impl Fn() -> T) {
    /// More changes than this within one call are not expected.
    const ATTEMPTS: u32 = 3;
    for _ in 0..ATTEMPTS {
        let value = read();
        // SAFETY: a valid reference; volatile, so that it is written before the next look.
        unsafe { ptr::from_mut(field).write_volatile(value) };
        if read() == value {
            break;
        }
    }
}

/// Whether a flag of a record is set. In the map each has a byte of its own (see [`Record::join`]).
#[inline(always)]
pub(super) fn has(record: &Record, flag: u32) -> bool {
    let byte = ptr::from_ref(&record.flags).cast::<u8>();
    // SAFETY: one of the four bytes of the field.
    unsafe { byte.add(flag.trailing_zeros() as usize).read_volatile() != 0 }
}

/// Sets or clears a flag of a record, and touches no other.
#[inline(always)]
pub(super) fn mark(record: &mut Record, flag: u32, on: bool) {
    let byte = ptr::from_mut(&mut record.flags).cast::<u8>();
    // SAFETY: one of the four bytes of the field.
    unsafe { byte.add(flag.trailing_zeros() as usize).write_volatile(on.into()) };
}

/// Notes that the peer of `survivor` is gone (`unix_release_sock`).
#[inline(always)]
pub(super) fn abandon(survivor: Pointer, gone: Pointer) {
    let Some(known) = lookup(survivor) else { return };
    if known.peer.sk == gone as u64 {
        known.peer.sk = 0;
        note_partner(gone, &mut known.partner);
        mark(known, FLAG_PEER_CLOSED, true);
        if known.socket_type != DGRAM {
            shut(known, SHUT_BOTH);
        }
    }
}

/// Writes down who has a sock: whoever opened it, else made it. Nobody has a connection that was not
/// accepted. Field by field, where it is to stand: there is little room on the stack.
#[inline(always)]
pub(super) fn note_partner(sk: Pointer, to: &mut Partner) {
    let Some(record) = lookup(sk) else { return };
    let actor = if record.opened_at != 0 {
        &record.opener
    } else if record.created_at != 0 && record.role != role::SERVER {
        &record.creator
    } else {
        return;
    };
    to.pid = actor.pid;
    to.uid = actor.uid;
    to.comm = actor.comm;
}

/// Takes over a name that the kernel has given by itself, if there is one.
#[inline(always)]
pub(super) fn note_autobind(record: &mut Record, sk: Pointer, moment: &Moment) -> bool {
    if record.name.len != 0 {
        return false;
    }
    kernel::read_name(sk, &mut record.name);
    if record.name.len == 0 || record.name.bytes[0] != 0 {
        // A pathname is never given by the kernel: a `bind` is about to tell of it.
        record.name.len = 0;
        return false;
    }
    mark(record, FLAG_AUTOBOUND, true);
    record.bound_at = moment.time;
    record.binder = moment.actor;
    true
}

/// Whether the event that tells of this record has been put off.
#[inline(always)]
pub(super) fn is_unannounced(record: &Record) -> bool {
    has(record, FLAG_UNANNOUNCED)
}

/// Makes or renews the directories of a binder.
#[inline(always)]
pub(super) fn begin_paths(sk: Pointer) -> Option<&'static mut ucr_common::paths::BindPaths> {
    if BIND_PATHS.insert(&(sk as u64), &crate::paths::BLANK, BPF_ANY.into()).is_err() {
        count(counter::PATHS_FULL);
        return None;
    }
    let paths = BIND_PATHS.get_ptr_mut(&(sk as u64))?;
    // SAFETY: a non-null map value stays readable and writable until the program ends.
    Some(unsafe { &mut *paths })
}
