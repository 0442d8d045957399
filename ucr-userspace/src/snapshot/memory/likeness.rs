//! Sockets that are alike: what `getsockopt` tells of one of them, it tells of all.
//!
//! A socket's options lie in its `struct unix_sock` and in the flags of its `struct socket`. Two sockets that
//! have the same bytes there, apart from those that make up their identity, their queues and their bookkeeping,
//! have the same options. What is left out is a list, not what is held against each other: a member that is not
//! known makes sockets different, which costs a question and is never wrong.

use std::ops::Range;

use super::{Memory, MemoryError, Sock, long};
use crate::kernel::btf::Btf;

/// Members of `struct sock_common` that hold no option.
const OF_COMMON: [&str; 14] = [
    "skc_addrpair",
    "skc_hash",
    "skc_portpair",
    "skc_state",
    "skc_bind_node",
    "skc_portaddr_node",
    "skc_net",
    "skc_cookie",
    "skc_node",
    "skc_tx_queue_mapping",
    "skc_rx_queue_mapping",
    "skc_refcnt",
    "skc_rxhash",
    "skc_prot",
];

/// The same of `struct sock`.
const OF_SOCK: [&str; 50] = [
    "sk_drops",
    "sk_error_queue",
    "sk_receive_queue",
    "sk_backlog",
    "sk_rx_dst",
    "sk_rx_dst_ifindex",
    "sk_rx_dst_cookie",
    "sk_napi_id",
    "sk_wq",
    "sk_err",
    "sk_socket",
    "sk_memcg",
    "sk_lock",
    "sk_forward_alloc",
    "sk_write_pending",
    "sk_omem_alloc",
    "sk_err_soft",
    "sk_wmem_queued",
    "sk_wmem_alloc",
    "sk_tsq_flags",
    "sk_send_head",
    "sk_write_queue",
    "sk_dst_pending_confirm",
    "sk_frag",
    "sk_timer",
    "sk_zckey",
    "sk_tskey",
    "sk_uid",
    "sk_dst_cache",
    "sk_txhash",
    "sk_shutdown",
    "sk_callback_lock",
    "sk_ack_backlog",
    "sk_max_ack_backlog",
    "sk_ino",
    "sk_peer_lock",
    "sk_peer_pid",
    "sk_peer_cred",
    "sk_stamp",
    "sk_stamp_seq",
    "sk_disconnects",
    "sk_security",
    "sk_cgrp_data",
    "sk_bpf_storage",
    "sk_drop_counters",
    "sk_rcu",
    "sk_user_frags",
    "sk_rmem_alloc",
    "sk_dst_lock",
    "sk_type",
];

/// The same of `struct unix_sock`.
const OF_UNIX: [&str; 16] = [
    "addr",
    "path",
    "iolock",
    "bindlock",
    "peer",
    "listener",
    "link",
    "inflight",
    "gc_flags",
    "vertex",
    "lock",
    "peer_wq",
    "peer_wake",
    "scm_stat",
    "inq_len",
    "oob_skb",
];

/// Which bytes of a `struct unix_sock` are held against each other.
pub(super) fn compared(btf: &Btf, size: usize) -> Vec<Range<usize>> {
    let common = OF_COMMON.map(|name| btf.extent("sock", &format!("__sk_common.{name}")));
    let sock = OF_SOCK.map(|name| btf.extent("sock", name));
    let unix = OF_UNIX.map(|name| btf.extent("unix_sock", name));
    let narrow = |at| usize::try_from(at).unwrap_or(usize::MAX);
    // What a kernel does not have need not be left out.
    let mut left_out: Vec<Range<usize>> = common
        .into_iter()
        .chain(sock)
        .chain(unix)
        .flatten()
        .map(|extent| narrow(extent.start)..narrow(extent.end))
        .collect();
    left_out.sort_by_key(|range| range.start);
    let (mut compared, mut at) = (Vec::new(), 0);
    for range in left_out {
        if range.start > at {
            compared.push(at..range.start);
        }
        at = at.max(range.end);
    }
    if at < size {
        compared.push(at..size);
    }
    compared
}

impl Memory {
    /// What is the same for all sockets whose options are the same; apart from their type.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
    pub fn likeness(&self, sock: &Sock, into: &mut Vec<u8>) -> Result<(), MemoryError> {
        let block = self.sock_block(sock.sk)?;
        into.clear();
        for range in &self.layout.compared {
            into.extend_from_slice(block.bytes().get(range.clone()).unwrap_or_default());
        }
        let socket = block.u64(self.layout.sock_socket)?;
        if socket != 0 {
            let flags = socket + long(self.layout.socket_flags);
            into.extend_from_slice(self.reader.read("a socket's flags", flags, 8)?.bytes());
        }
        Ok(())
    }
}
