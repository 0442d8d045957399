//! Records held against the kernel, and corrected, when an iterator comes by.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::bpf_for_each_map_elem;
use ucr_common::{
    control::counter,
    identity::SocketId,
    record::{FLAG_PAIRING, FLAG_PEER_CLOSED, Record, origin},
};

use super::{
    inet,
    record::{LISTENING, as_halves, has, lookup, mark, settle, survey},
};
use crate::{
    kernel::{self, Pointer},
    maps::{BIND_PATHS, LEDGER, count},
};

/// Corrects a record by what the kernel says of the sock now, but keeps its history. The sock has been
/// asked for its cookie.
#[inline(never)]
pub(crate) fn correct(sk: Pointer, time: u64) -> u32 {
    let Some(known) = lookup(sk) else { return 0 };
    known.seen_at = time;
    let now = kernel::identity(sk);
    if is_another(known, &now) {
        count(counter::STALE);
        let _ = BIND_PATHS.remove(&(sk as u64));
        survey(known, sk, time);
        known.origin = origin::FOUND;
        return 0;
    }
    known.socket.cookie = now.cookie;
    if is_pairing(known, time) || is_client_pairing(known.peer.sk, time) {
        return 0;
    }
    let mut wrong = correct_common(known, sk, now.inode);
    wrong |= correct_peer(known, sk);
    let listener = kernel::listener_pointer(sk);
    if !listener.is_null() && known.listener.sk != listener as u64 {
        known.listener = kernel::identity(listener);
        wrong = true;
    }
    wrong |= correct_name(known, sk);
    if wrong {
        count(counter::REPAIRED);
    }
    0
}

/// What sockets of every family have; whether some of it was wrong.
#[inline(always)]
fn correct_common(known: &mut Record, sk: Pointer, inode: u64) -> bool {
    let mut wrong = false;
    if known.socket.inode != inode {
        known.socket.inode = inode;
        wrong = true;
    }
    wrong |= put(&mut known.netns, || kernel::netns_of(sk));
    wrong |= put(&mut known.socket_type, || kernel::type_of(sk));
    wrong |= put(&mut known.state, || kernel::state_of(sk));
    wrong |= put(&mut known.shutdown, || as_halves(kernel::shutdown_of(sk)));
    if known.state == LISTENING {
        wrong |= put(&mut known.backlog, || kernel::backlog_of(sk));
    }
    wrong
}

/// The same for an internet socket.
#[inline(never)]
pub(crate) fn correct_inet(sk: Pointer, time: u64) -> u32 {
    let Some(known) = lookup(sk) else { return 0 };
    known.seen_at = time;
    let now = kernel::identity(sk);
    if is_another(known, &now) {
        count(counter::STALE);
        inet::survey(known, sk, time);
        known.origin = origin::FOUND;
        return 0;
    }
    known.socket.cookie = now.cookie;
    let mut wrong = correct_common(known, sk, now.inode);
    wrong |= put(&mut known.family, || kernel::family_of(sk));
    wrong |= put(&mut known.protocol, || kernel::inet::protocol_of(sk));
    let ends = kernel::inet::ends_of(sk);
    if !kernel::inet::has_ends(&known.name, &ends) {
        kernel::inet::put_ends(&ends, &mut known.name);
        wrong = true;
    }
    if wrong {
        count(counter::REPAIRED);
    }
    0
}

/// Corrects a field that is wrong. One that is right is not touched: a hook may be about to change it.
#[inline(always)]
fn put(field: &mut u32, read: impl Fn() -> u32) -> bool {
    let differs = *field != read();
    if differs {
        settle(field, read);
    }
    differs
}

/// Whether the address belongs to another sock by now, as far as that can be told.
#[inline(always)]
fn is_another(known: &Record, now: &SocketId) -> bool {
    if known.socket.cookie != 0 {
        known.socket.cookie != now.cookie
    } else {
        known.socket.inode != 0 && known.socket.inode != now.inode
    }
}

/// Looks at the memory that each record is about, whether or not it is still a sock's.
#[inline(always)]
pub(crate) fn for_each_record() {
    let mut nothing = 0_u64;
    // SAFETY: the callback takes what the helper gives it for a hash map: map, key, value, context.
    unsafe {
        bpf_for_each_map_elem(
            ptr::addr_of!(LEDGER).cast_mut().cast(),
            mark_if_gone as *mut c_void,
            ptr::from_mut(&mut nothing).cast(),
            0,
        );
    }
}

extern "C" fn mark_if_gone(
    _map: *mut c_void,
    _key: *const u64,
    record: *mut Record,
    _nothing: *mut u64,
) -> i64 {
    // SAFETY: a value of the ledger.
    let record = unsafe { &mut *record };
    let sk = record.socket.sk as Pointer;
    let now = kernel::identity(sk);
    if kernel::family_of(sk) != record.family || kernel::is_dead(sk) || is_another(record, &now) {
        // Never seen: an order to remove it.
        record.seen_at = 0;
    }
    0
}

/// Whether a `connect` is about to write down what the record says already. It holds spin locks
/// meanwhile, so that this takes no time; a mark that stays has lost its `connect`.
#[inline(always)]
fn is_pairing(client: &Record, now: u64) -> bool {
    /// One second, in nanoseconds.
    const LONG: u64 = 1_000_000_000;
    has(client, FLAG_PAIRING) && now.saturating_sub(client.opened_at) < LONG
}

#[inline(always)]
fn is_client_pairing(client: u64, now: u64) -> bool {
    client != 0 && lookup(client as Pointer).is_some_and(|client| is_pairing(client, now))
}

/// A peer that has closed is none, for the record; the kernel keeps pointing to it.
#[inline(always)]
fn correct_peer(known: &mut Record, sk: Pointer) -> bool {
    let Some(peer) = kernel::peer_of(sk) else {
        let wrong = known.peer.sk != 0;
        known.peer.sk = 0;
        return wrong;
    };
    if kernel::is_dead(peer) {
        // That a datagram socket's peer closes is told to that peer's own peer only.
        let wrong = known.peer.sk != 0 && known.peer.sk != peer as u64;
        known.peer.sk = 0;
        mark(known, FLAG_PEER_CLOSED, true);
        return wrong;
    }
    let wrong = known.peer.sk != peer as u64;
    known.peer = kernel::identity(peer);
    mark(known, FLAG_PEER_CLOSED, false);
    wrong
}

#[inline(always)]
fn correct_name(known: &mut Record, sk: Pointer) -> bool {
    // A name is given once, and stays.
    if known.name.len != 0 || !kernel::has_name(sk) {
        return false;
    }
    kernel::read_name(sk, &mut known.name);
    true
}
