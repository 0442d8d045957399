//! Drops the packets of TCP connections that are being taken down or brought back, and of no others.
//!
//! `lock_ingress` and `lock_egress` hang on the root of the cgroup tree and so see what every socket of this machine
//! sends and receives. What belongs to no socket (any more) they do not see: its answer, a reset, they do if it is
//! one of IPv4. So `lock_early` is hung on the interfaces as well: by links, or where the kernel has none for that,
//! by filters that call it (`filter.rs`).
//!
//! It is an object of its own: who locks does not trace, and the other way round.

#![no_std]
#![no_main]

mod frame;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_NO_PREALLOC, bpf_hdr_start_off},
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_skb_load_bytes_relative},
    macros::map,
    maps::HashMap,
};
use ucr_common::lock::{Direction, Locked, MOST};

/// What is locked.
#[map]
static LOCKS: HashMap<Direction, Locked> = HashMap::with_max_entries(MOST * 2, BPF_F_NO_PREALLOC);

const DROP: i32 = 0;
const PASS: i32 = 1;

/// `TCX_NEXT` or `TC_ACT_UNSPEC`, `TCX_DROP` or `TC_ACT_SHOT`.
const NEXT: i32 = -1;
const SHOT: i32 = 2;

const TCP: u8 = 6;

/// Headers that IPv6 allows before that of TCP, and how many of them are looked through.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
const MOST_HEADERS: u32 = 6;

#[unsafe(no_mangle)]
#[unsafe(link_section = "cgroup_skb/ingress")]
fn lock_ingress(packet: *mut __sk_buff) -> i32 {
    if is_locked(packet) { DROP } else { PASS }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "cgroup_skb/egress")]
fn lock_egress(packet: *mut __sk_buff) -> i32 {
    if is_locked(packet) { DROP } else { PASS }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
fn lock_early(packet: *mut __sk_buff) -> i32 {
    if is_locked(packet) { SHOT } else { NEXT }
}

#[inline(always)]
fn is_locked(packet: *mut __sk_buff) -> bool {
    let Some(direction) = direction_of(packet) else { return false };
    // SAFETY: nobody takes the entry away while the program runs (RCU); what is read from it are words.
    let Some(locked) = (unsafe { LOCKS.get(&direction) }) else { return false };
    // SAFETY: the context of this program, whose accesses the verifier checks; the helper takes nothing.
    let (mark, now) = unsafe { ((*packet).mark, bpf_ktime_get_boot_ns()) };
    now < locked.until && (mark == 0 || mark != locked.mark)
}

/// Bytes of a packet, counted from its header of IP.
#[inline(always)]
fn bytes<const N: usize>(packet: *mut __sk_buff, at: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the context of this program, and a buffer that is as long as is said.
    let failed = unsafe {
        bpf_skb_load_bytes_relative(
            packet.cast(),
            at,
            bytes.as_mut_ptr().cast(),
            N as u32,
            bpf_hdr_start_off::BPF_HDR_START_NET,
        )
    };
    (failed == 0).then_some(bytes)
}

/// From whom to whom a packet of TCP goes; `None` of all others.
#[inline(always)]
fn direction_of(packet: *mut __sk_buff) -> Option<Direction> {
    let [first] = bytes::<1>(packet, 0)?;
    let mut direction =
        Direction { from: [0; 16], to: [0; 16], from_port: [0; 2], to_port: [0; 2] };
    let ports = match first >> 4 {
        4 => {
            // Of a datagram in fragments the first has the ports; without it the others are nothing.
            let header = bytes::<20>(packet, 0)?;
            let is_later = (header[6] & 0x1f) | header[7] != 0;
            if header[9] != TCP || is_later {
                return None;
            }
            direction.from = mapped([header[12], header[13], header[14], header[15]]);
            direction.to = mapped([header[16], header[17], header[18], header[19]]);
            u32::from(first & 0x0f) * 4
        }
        6 => {
            direction.from = bytes::<16>(packet, 8)?;
            direction.to = bytes::<16>(packet, 24)?;
            let [mut next] = bytes::<1>(packet, 6)?;
            let mut at = 40;
            for _ in 0..MOST_HEADERS {
                if next == TCP {
                    break;
                }
                let [following, length] = bytes::<2>(packet, at)?;
                match next {
                    HOP_BY_HOP | ROUTING | DESTINATION => at += (u32::from(length) + 1) * 8,
                    FRAGMENT => {
                        let [high, low] = bytes::<2>(packet, at + 2)?;
                        if high | (low & 0xf8) != 0 {
                            return None;
                        }
                        at += 8;
                    }
                    _ => return None,
                }
                next = following;
            }
            if next != TCP {
                return None;
            }
            at
        }
        _ => return None,
    };
    let [a, b, c, d] = bytes::<4>(packet, ports)?;
    (direction.from_port, direction.to_port) = ([a, b], [c, d]);
    Some(direction)
}

#[inline(always)]
fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
