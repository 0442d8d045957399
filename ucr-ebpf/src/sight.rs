//! What is to be seen of a live socket from outside: for listings, and for questions about one. The ledger
//! has nothing to do with it.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_seq_write, generated::bpf_skc_to_unix_sock};
use ucr_common::{
    identity::{COMM_LEN, SocketId},
    name::{NAME_MAX, RawName},
    offsets::ABSENT,
    sighting::{
        MESSAGES_MAX, NO_FD, SIGHT_DEAD, SIGHT_MORE, SIGHT_NO_SOCKET, SIGHT_PEER_DEAD, Sighting,
    },
};

use crate::kernel::{self, Pointer, offset, repeat, typed, value};

/// `TCP_LISTEN`.
const LISTENING: u8 = 10;

/// A sighting with its name behind it, as it is written.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) sighting: Sighting,
    name: RawName,
}

impl Seen {
    /// Looks at the sock at an address. What is there may be no sock any more: nothing can go wrong, and who
    /// asks compares cookies. Filled where it lies, since two of them do not fit on the stack.
    #[inline(always)]
    pub(crate) fn look(&mut self, sk: Pointer) {
        let seen = &mut self.sighting;
        let socket: Pointer = value(sk, offset!(sk_socket));
        let peer = kernel::peer_pointer(sk);
        let state: u8 = value(sk, offset!(sk_state));
        seen.socket = kernel::identity(sk);
        seen.peer = kernel::identity(peer);
        seen.listener = kernel::identity(kernel::listener_pointer(sk));
        seen.address = value(sk, offset!(unix_addr));
        let file: Pointer = value(socket, offset!(socket_file));
        seen.references = if file.is_null() { 0 } else { kernel::references_of(file) };
        seen.cgroup = maker_group(sk);
        // `sk_wmem_alloc` begins with 1.
        seen.send_bytes = value::<u32>(sk, offset!(sk_wmem_alloc)).saturating_sub(1);
        seen.nobody();
        seen.netns = kernel::netns_of(sk);
        seen.socket_type = value(sk, offset!(sk_type));
        seen.state = state;
        seen.shutdown = value(sk, offset!(sk_shutdown));
        seen.backlog = if state == LISTENING { kernel::backlog_of(sk) } else { 0 };
        seen.uid = optional(sk, offset!(sk_uid));
        seen.peer_pid = peer_process(sk);
        seen.flags = if peer.is_null() || !released(peer) { 0 } else { SIGHT_PEER_DEAD };
        seen.flags |= if kernel::is_unix(sk) && !released(sk) { 0 } else { SIGHT_DEAD };
        seen.flags |= if socket.is_null() { SIGHT_NO_SOCKET } else { 0 };
        weigh_queue(sk, seen);
        kernel::read_name(sk, &mut self.name);
        seen.name_len = if kernel::has_name(sk) { self.name.len } else { 0 };
    }

    /// The same of a sock that the verifier knows, with plain loads, which cost a tenth: for passes over all
    /// sockets. Of its peer and its listener it tells only where they are, since what else there is to know
    /// of them the pass tells when it comes across them.
    ///
    /// # Safety
    /// `sk` must be typed (see [`typed`]).
    #[inline(always)]
    pub(crate) unsafe fn glance(&mut self, sk: Pointer) -> bool {
        // SAFETY: the helper takes a `struct sock *` and returns it as a `struct unix_sock *`, or null.
        let unix: Pointer = unsafe { bpf_skc_to_unix_sock(sk.cast_mut()) }.cast();
        if unix.is_null() {
            return false;
        }
        let seen = &mut self.sighting;
        let none = SocketId::NONE;
        (seen.socket, seen.peer, seen.listener) = (none, none, none);
        seen.nobody();
        seen.flags = 0;
        (seen.cgroup, seen.peer_pid, seen.name_len) = (0, 0, 0);
        // SAFETY: `sk` is a `struct sock *`, `unix` the `struct unix_sock *` that it begins, and each pointer
        // is followed to the type that the field has.
        unsafe {
            seen.socket.sk = sk as u64;
            seen.socket.cookie = typed(sk, offset!(sk_cookie));
            seen.peer.sk = typed::<Pointer>(unix, offset!(unix_peer)) as u64;
            if offset!(unix_listener) != ABSENT {
                seen.listener.sk = typed::<Pointer>(unix, offset!(unix_listener)) as u64;
            }
            let net: Pointer = typed(sk, offset!(sk_net));
            seen.netns = typed(net, offset!(net_inum));
            seen.socket_type = typed(sk, offset!(sk_type));
            seen.state = typed(sk, offset!(sk_state));
            seen.shutdown = typed(sk, offset!(sk_shutdown));
            seen.backlog = if seen.state == LISTENING { typed(sk, offset!(sk_backlog)) } else { 0 };
            seen.send_bytes = typed::<u32>(sk, offset!(sk_wmem_alloc)).saturating_sub(1);
            seen.uid = if offset!(sk_uid) == ABSENT { 0 } else { typed(sk, offset!(sk_uid)) };
            let queue = offset!(sk_receive_queue) + offset!(queue_len);
            seen.receive_count = typed(sk, queue);
            let address: Pointer = typed(unix, offset!(unix_addr));
            seen.address = address as u64;
            if !address.is_null() {
                kernel::read_name(sk, &mut self.name);
                seen.name_len = self.name.len;
            }
        }
        seen.receive_bytes = 0;
        if seen.receive_count > 0 {
            weigh_queue(sk, seen);
        }
        true
    }

    /// Writes it to the reader of an iterator.
    #[inline(always)]
    pub(crate) fn write(&self, seq: *mut c_void) {
        // SAFETY: all of it is initialised and it has no padding. What does not fit is written again as a
        // whole, since then the kernel calls again for the same descriptor.
        unsafe {
            bpf_seq_write(
                seq.cast(),
                core::ptr::from_ref(&self.sighting).cast_mut().cast(),
                size_of::<Sighting>() as u32,
            );
            let length = self.sighting.name_len;
            let length = if length > NAME_MAX as u32 { NAME_MAX as u32 } else { length };
            if length > 0 {
                bpf_seq_write(seq.cast(), self.name.bytes.as_ptr().cast_mut().cast(), length);
            }
        }
    }
}

trait Held {
    /// Nobody is known to hold it.
    fn nobody(&mut self);
}

impl Held for Sighting {
    #[inline(always)]
    fn nobody(&mut self) {
        (self.pid, self.tid, self.fd, self.holder_uid, self.reserved) = (0, 0, NO_FD, 0, 0);
        self.comm = [0; COMM_LEN];
    }
}

/// `SOCK_DEAD`, without a branch on a failed read.
#[inline(always)]
fn released(sk: Pointer) -> bool {
    value::<u64>(sk, offset!(sk_flags)) & 1 != 0
}

/// A field that not every kernel has; 0 then.
#[inline(always)]
fn optional(base: Pointer, at: u64) -> u32 {
    if at == ABSENT { 0 } else { value(base, at) }
}

/// The process that `SO_PEERCRED` tells of: `sk_peer_pid`, in the initial pid namespace.
#[inline(always)]
fn peer_process(sk: Pointer) -> u32 {
    if offset!(sk_peer_pid) == ABSENT || offset!(pid_numbers) == ABSENT {
        return 0;
    }
    // `numbers[0].nr` comes first.
    value(value(sk, offset!(sk_peer_pid)), offset!(pid_numbers))
}

/// The cgroup of whoever made it: `sk_cgrp_data`.
#[inline(always)]
fn maker_group(sk: Pointer) -> u64 {
    if offset!(sk_cgroup) == ABSENT || offset!(cgroup_kn) == ABSENT || offset!(kn_id) == ABSENT {
        return 0;
    }
    let group: Pointer = value(sk, offset!(sk_cgroup));
    value(value(group, offset!(cgroup_kn)), offset!(kn_id))
}

/// Adds up what waits to be received.
#[inline(always)]
fn weigh_queue(sk: Pointer, seen: &mut Sighting) {
    let head: Pointer = sk.cast::<u8>().wrapping_add(offset!(sk_receive_queue) as usize).cast();
    seen.receive_count = value(head, offset!(queue_len));
    seen.receive_bytes = 0;
    if seen.receive_count > 0 && seen.state != LISTENING {
        let mut queue = Queue { head, skb: value(head, offset!(skb_next)), bytes: 0, messages: 0 };
        repeat(MESSAGES_MAX, weigh, &mut queue);
        seen.receive_bytes = queue.bytes;
        seen.flags |= if queue.messages < seen.receive_count.into() { SIGHT_MORE } else { 0 };
    }
}

#[repr(C)]
struct Queue {
    head: Pointer,
    skb: Pointer,
    bytes: u64,
    messages: u64,
}

/// Adds what is unread of one message: `skb->len`, less what a stream's reader has had of it.
extern "C" fn weigh(_index: u64, queue: *mut Queue) -> i64 {
    // SAFETY: the context that `weigh_queue` hands over, on its stack.
    let queue = unsafe { &mut *queue };
    if queue.skb == queue.head || queue.skb.is_null() {
        return 1;
    }
    let length: u32 = value(queue.skb, offset!(skb_len));
    let consumed: u32 = value(queue.skb, offset!(skb_cb) + offset!(cb_consumed));
    queue.bytes += u64::from(length.saturating_sub(consumed));
    queue.messages += 1;
    queue.skb = value(queue.skb, offset!(skb_next));
    0
}
