//! Hangs on interfaces in the place of `lock_early`, where the kernel has no links for that (`lock.rs`).
//!
//! A filter stays where it is when its maker is killed. So it does nothing by itself, and nothing at all when nobody
//! holds the map any more that it calls.
//!
//! It is an object of its own for this map's sake: a kernel never frees one of this kind if somebody who lists all maps
//! looks at it at the moment at which its last holder goes (`docs/KERNEL.md`). Nobody is to make one without need.

#![no_std]
#![no_main]

mod frame;

use aya_ebpf::{bindings::__sk_buff, macros::map, maps::ProgramArray, programs::TcContext};

/// `lock_early`. The kernel empties such a map when the last descriptor or pin of it goes (`prog_array_map_clear`),
/// which no filter has.
#[map]
static LOCK_EARLY: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// `TC_ACT_UNSPEC`: whatever comes next may say.
const NEXT: i32 = -1;

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
fn lock_filter(packet: *mut __sk_buff) -> i32 {
    // SAFETY: the context of this program, which has nothing to be dropped.
    unsafe { LOCK_EARLY.tail_call(&TcContext::new(packet), 0) };
    NEXT
}
