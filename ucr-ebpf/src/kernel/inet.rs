//! What the kernel keeps of internet sockets.

use core::ptr;

use aya_ebpf::helpers::generated::{
    bpf_probe_read_kernel as raw_probe_read_kernel, bpf_probe_read_user as raw_probe_read_user,
};
use ucr_common::{
    inet::{ASKED_LEN, ENDS_LEN, WORDS},
    name::RawName,
    offsets::ABSENT,
};

use super::{Pointer, check, offset, unreadable, value};

/// `AF_INET`.
const AF_INET: u16 = 2;
/// `AF_INET6`.
const AF_INET6: u16 = 10;
/// `IPPROTO_TCP`.
pub(crate) const TCP: u32 = 6;
/// `IPPROTO_UDP` and `IPPROTO_UDPLITE`.
const UDP: u32 = 17;
const UDP_LITE: u32 = 136;
/// `SOCK_STREAM` and `SOCK_DGRAM`.
const STREAM: u32 = 1;
const DGRAM: u32 = 2;

/// `IPPROTO_*` of a sock.
#[inline(always)]
pub(crate) fn protocol_of(sk: Pointer) -> u32 {
    value::<u16>(sk, offset!(sk_protocol)).into()
}

/// Whether sockets like this are tracked: TCP and UDP, of either family. A raw socket has their protocols as well.
#[inline(always)]
pub(crate) fn is_tracked(sk: Pointer, family: u16) -> bool {
    is_inet(family.into()) && is_kind(super::type_of(sk), protocol_of(sk))
}

/// Whether it is one of the two families.
#[inline(always)]
pub(crate) fn is_inet(family: u32) -> bool {
    family == AF_INET.into() || family == AF_INET6.into()
}

#[inline(always)]
fn is_kind(socket_type: u32, protocol: u32) -> bool {
    match socket_type {
        STREAM => protocol == TCP,
        DGRAM => protocol == UDP || protocol == UDP_LITE,
        _ => false,
    }
}

/// The protocol that `socket(2)` takes for these arguments, if it is tracked.
#[inline(always)]
pub(crate) fn asked_protocol(socket_type: u32, protocol: u32) -> Option<u32> {
    let protocol = match (socket_type, protocol) {
        (STREAM, 0) => TCP,
        (DGRAM, 0) => UDP,
        (_, protocol) => protocol,
    };
    if is_kind(socket_type, protocol) { Some(protocol) } else { None }
}

/// Whether a sock has a file: what the kernel makes for itself has none, or (a subflow of MPTCP) one that belongs to
/// another sock.
#[inline(always)]
pub(crate) fn has_file(sk: Pointer) -> bool {
    let socket: Pointer = value(sk, offset!(sk_socket));
    if value::<Pointer>(socket, offset!(socket_sk)) != sk {
        return false;
    }
    let file: Pointer = value(socket, offset!(socket_file));
    !file.is_null()
}

/// Both ends, as `ucr_common::inet` has them.
#[inline(always)]
pub(crate) fn ends_of(sk: Pointer) -> [u32; WORDS] {
    let mut ends = [0_u32; WORDS];
    if super::family_of(sk) == AF_INET6.into() && offset!(sk_v6_local) != ABSENT {
        let local: [u32; 4] = value(sk, offset!(sk_v6_local));
        let remote: [u32; 4] = value(sk, offset!(sk_v6_remote));
        (ends[0], ends[1], ends[2], ends[3]) = (local[0], local[1], local[2], local[3]);
        (ends[6], ends[7], ends[8], ends[9]) = (remote[0], remote[1], remote[2], remote[3]);
    } else {
        ends[0] = value(sk, offset!(sk_v4_local));
        ends[6] = value(sk, offset!(sk_v4_remote));
    }
    let interface: u32 = value(sk, offset!(sk_interface));
    let port: u16 = if offset!(inet_port) == ABSENT { 0 } else { value(sk, offset!(inet_port)) };
    let remote_port: u16 = value(sk, offset!(sk_remote_port));
    (ends[4], ends[5]) = (u16::from_be(port).into(), interface);
    (ends[10], ends[11]) = (u16::from_be(remote_port).into(), interface);
    ends
}

/// Puts both ends in the place of a name.
#[inline(always)]
pub(crate) fn put_ends(ends: &[u32; WORDS], name: &mut RawName) {
    name.len = ENDS_LEN;
    let words = name.bytes.as_mut_ptr().cast::<u32>();
    for (at, word) in ends.iter().enumerate() {
        // SAFETY: the bytes of a name consist of more aligned words than that.
        unsafe { words.add(at).write_volatile(*word) };
    }
}

/// Whether what stands in the place of a name are these ends.
#[inline(always)]
pub(crate) fn has_ends(name: &RawName, ends: &[u32; WORDS]) -> bool {
    let words = name.bytes.as_ptr().cast::<u32>();
    let mut differences = name.len ^ ENDS_LEN;
    for (at, word) in ends.iter().enumerate() {
        // SAFETY: as above.
        differences |= unsafe { words.add(at).read_volatile() } ^ word;
    }
    differences == 0
}

/// Own port, as it stands in the place of a name.
#[inline(always)]
pub(crate) fn port_in(name: &RawName) -> u32 {
    // SAFETY: as above.
    unsafe { name.bytes.as_ptr().cast::<u32>().add(4).read_volatile() }
}

/// Copies the address that a call was given, as long as the longest one.
#[inline(always)]
pub(crate) fn read_asked(address: u64, is_in_kernel: bool, name: &mut RawName) {
    /// `struct sockaddr_in`.
    const SHORT: u32 = 16;
    let to = ptr::addr_of_mut!(name.bytes).cast();
    let from = address as Pointer;
    if is_in_kernel {
        // SAFETY: the helper checks the address itself, and writes all of the bytes.
        check(from, unsafe { raw_probe_read_kernel(to, ASKED_LEN, from) });
    } else {
        // SAFETY: as above.
        let mut failed = unsafe { raw_probe_read_user(to, ASKED_LEN, from) } < 0;
        if failed {
            // Memory may end behind a short one.
            // SAFETY: as above.
            failed = unsafe { raw_probe_read_user(to, SHORT, from) } < 0;
        }
        if failed {
            unreadable();
        }
    }
    name.len = ASKED_LEN;
}
