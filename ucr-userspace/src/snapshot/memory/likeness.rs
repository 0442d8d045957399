//! Sockets that are alike: what `getsockopt` tells of one of them, it tells of all.
//!
//! A socket's options lie in its `struct unix_sock` and in the flags of its `struct socket`. Two sockets that
//! have the same bytes there, apart from those that make up their identity, their queues and their bookkeeping,
//! have the same options. What is left out is a list, not what is held against each other: a member that is not
//! known makes sockets different, which costs a question and is never wrong.
//!
//! So it is with internet sockets (`struct inet_sock`, `struct ipv6_pinfo`), but for what TCP and UDP have beside these:
//! nearly all of it is on the move, and the few members that hold an option are a list. Whether an option is kept where
//! it is looked for, whoever relies on it has to try (`process::inet::alike`).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Memory, MemoryError, Sock, long};
use crate::kernel::btf::{Btf, BtfError};
use crate::model::inet::Family;

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

/// What of `struct sock` holds no option of an internet socket beside those: where it is connected to, how fast it sends,
/// what its interface can do; buffers as large as the kernel makes them, and where the last packet came.
const OF_INET_SOCK: [&str; 14] = [
    "__sk_common.skc_v6_daddr",
    "__sk_common.skc_v6_rcv_saddr",
    "__sk_common.skc_incoming_cpu",
    "sk_sndbuf",
    "sk_rcvbuf",
    "sk_pacing_rate",
    "sk_pacing_status",
    "sk_route_caps",
    "sk_route_nocaps",
    "sk_gso_type",
    "sk_gso_max_size",
    "sk_gso_max_segs",
    "sk_reuseport_cb",
    "sk_wait_pending",
];

/// The same of `struct inet_sock`.
const OF_INET: [&str; 8] = [
    "pinet6",
    "inet_saddr",
    "inet_sport",
    "inet_id",
    "mc_list",
    "cork",
    "rx_dst_ifindex",
    "rx_dst_cookie",
];

/// The same of `struct ipv6_pinfo`.
const OF_SIX: [&str; 10] = [
    "saddr",
    "daddr_cache",
    "saddr_cache",
    "dst_cookie",
    "cork",
    "pktoptions",
    "rcv_flowinfo",
    "ipv6_mc_list",
    "ipv6_ac_list",
    "ipv6_fl_list",
];

/// What of `struct inet_connection_sock` holds an option.
const IN_CONNECTION: [&str; 8] = [
    "icsk_ca_ops",
    "icsk_syn_retries",
    "icsk_user_timeout",
    "icsk_rto_min",
    "icsk_rto_max",
    "icsk_delack_max",
    "icsk_accept_queue.rskq_defer_accept",
    "icsk_accept_queue.fastopenq.max_qlen",
];

/// The same of `struct tcp_sock`.
const IN_TCP: [&str; 12] = [
    "nonagle",
    "keepalive_time",
    "keepalive_intvl",
    "keepalive_probes",
    "linger2",
    "notsent_lowat",
    "thin_lto",
    "recvmsg_inq",
    "save_syn",
    "fastopen_connect",
    "fastopen_no_cookie",
    "tcp_tx_delay",
];

/// The same of `struct udp_sock`.
const IN_UDP: [&str; 10] = [
    "udp_flags",
    "corkflag",
    "encap_type",
    "no_check6_tx",
    "no_check6_rx",
    "gro_enabled",
    "gso_size",
    "pcflag",
    "pcslen",
    "pcrlen",
];

/// The lists as a number: what was kept by a ucr with other lists is of no use.
pub(super) fn lists() -> u32 {
    let mut sum = crc32fast::Hasher::new();
    let left_out = [&OF_COMMON[..], &OF_SOCK, &OF_UNIX, &OF_INET_SOCK, &OF_INET, &OF_SIX];
    for list in left_out.into_iter().chain([&IN_CONNECTION[..], &IN_TCP, &IN_UDP]) {
        list.iter().for_each(|name| sum.update(name.as_bytes()));
        sum.update(&[0]);
    }
    sum.finalize()
}

type Extent = Result<Range<u64>, BtfError>;

/// Which bytes of a `struct unix_sock` are held against each other.
pub(super) fn compared(btf: &Btf, size: usize) -> Vec<Range<usize>> {
    let unix = OF_UNIX.map(|name| btf.extent("unix_sock", name));
    without(of_all(btf).chain(unix), size)
}

/// What no kind of socket has an option in.
fn of_all(btf: &Btf) -> impl Iterator<Item = Extent> {
    let common = OF_COMMON.map(|name| btf.extent("sock", &format!("__sk_common.{name}")));
    let sock = OF_SOCK.map(|name| btf.extent("sock", name));
    common.into_iter().chain(sock)
}

/// All of a structure but these. What a kernel does not have need not be left out.
fn without(left_out: impl Iterator<Item = Extent>, size: usize) -> Vec<Range<usize>> {
    let mut left_out: Vec<Range<usize>> = left_out.flatten().map(narrow).collect();
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

fn narrow(extent: Range<u64>) -> Range<usize> {
    let narrow = |at| usize::try_from(at).unwrap_or(usize::MAX);
    narrow(extent.start)..narrow(extent.end)
}

/// Which bytes of an internet socket are held against each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InetCompared {
    /// Of a `struct tcp_sock`.
    tcp: Vec<Range<usize>>,
    /// Of a `struct udp_sock`.
    udp: Vec<Range<usize>>,
    /// Of a `struct ipv6_pinfo`.
    six: Vec<Range<usize>>,
}

impl InetCompared {
    pub(super) fn resolve(btf: &Btf) -> Result<Self, BtfError> {
        let sock = OF_INET_SOCK.map(|name| btf.extent("sock", name));
        let inet = OF_INET.map(|name| btf.extent("inet_sock", name));
        let size = narrow(0..btf.size_of("inet_sock")?).end;
        let both = without(of_all(btf).chain(sock).chain(inet), size);
        let with = |extents: Vec<Extent>| {
            let mut more: Vec<_> = extents.into_iter().flatten().map(narrow).collect();
            // Bit fields share a byte.
            more.sort_by_key(|range| range.start);
            more.dedup();
            [both.as_slice(), &more].concat()
        };
        let of = |container: &'static str| move |name: &&str| btf.bytes_with(container, name);
        let connection = IN_CONNECTION.iter().map(of("inet_connection_sock"));
        let tcp = connection.chain(IN_TCP.iter().map(of("tcp_sock"))).collect();
        let six = OF_SIX.map(|name| btf.extent("ipv6_pinfo", name));
        let size = btf.size_of("ipv6_pinfo").map_or(0, |size| narrow(0..size).end);
        Ok(Self {
            tcp: with(tcp),
            udp: with(IN_UDP.iter().map(of("udp_sock")).collect()),
            six: without(six.into_iter(), size),
        })
    }
}

fn extend(into: &mut Vec<u8>, bytes: &[u8], ranges: &[Range<usize>]) {
    for range in ranges {
        into.extend_from_slice(bytes.get(range.clone()).unwrap_or_default());
    }
}

impl Memory {
    /// What is the same for all sockets whose options are the same; apart from their type.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
    pub fn likeness(&self, sock: &Sock, into: &mut Vec<u8>) -> Result<(), MemoryError> {
        let block = self.sock_block(sock.sk)?;
        into.clear();
        extend(into, block.bytes(), &self.layout.compared);
        self.likeness_of_file(block.u64(self.layout.sock_socket)?, into)
    }

    /// The same for internet sockets, apart from what is read by no option that one can set.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
    pub fn inet_likeness(
        &self,
        sk: u64,
        family: Family,
        is_datagram: bool,
        into: &mut Vec<u8>,
    ) -> Result<(), MemoryError> {
        let l = &self.layout.inet;
        let block = self.inet_block(sk, is_datagram)?;
        into.clear();
        extend(into, block.bytes(), if is_datagram { &l.compared.udp } else { &l.compared.tcp });
        // In some states it has no value, or another one than was set.
        into.push(block.u8(self.layout.sock_state)?);
        // What is usual may be another thing in another network namespace.
        into.extend_from_slice(&block.u64(l.net)?.to_ne_bytes());
        if family == Family::V6 {
            extend(into, self.six_block(&block)?.bytes(), &l.compared.six);
        }
        self.likeness_of_file(block.u64(self.layout.sock_socket)?, into)
    }

    fn likeness_of_file(&self, socket: u64, into: &mut Vec<u8>) -> Result<(), MemoryError> {
        if socket != 0 {
            let flags = socket + long(self.layout.socket_flags);
            into.extend_from_slice(self.reader.read("a socket's flags", flags, 8)?.bytes());
        }
        Ok(())
    }
}
