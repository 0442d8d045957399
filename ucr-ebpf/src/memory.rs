//! Reads kernel memory for user space, which asks by running the program once for many pieces. It knows
//! no structure: who asks has the offsets, from the kernel's BTF. A wrong address gives an error.

use aya_ebpf::{helpers::generated::bpf_probe_read_kernel, macros::map, maps::Array};
use ucr_common::memory::{
    ALIGN, BATCH, LAYOUT as LAYOUT_LEN, MEMORY as MEMORY_LEN, PIECE, ROOM, Want,
};

use crate::kernel::repeat;

/// `BPF_F_MMAPABLE`: user space sees it without a system call.
const MAPPED: u32 = 1 << 10;

/// What is wanted.
#[map]
static WANTS: Array<[Want; BATCH]> = Array::with_max_entries(1, MAPPED);

/// Where it is put, one piece behind the other.
#[map]
static MEMORY: Array<[u8; MEMORY_LEN]> = Array::with_max_entries(1, MAPPED);

/// User space's own: where the kernel keeps what, which takes long to find out. No program looks at it.
#[map]
static LAYOUT: Array<[u8; LAYOUT_LEN]> = Array::with_max_entries(1, 0);

/// What it is run with: how many pieces are wanted.
#[repr(C)]
struct Arguments {
    count: u64,
    unused: u64,
}

/// How far it is.
#[repr(C)]
struct Progress {
    at: u64,
}

/// Copies that many pieces. It hangs on nothing: user space runs it (`BPF_PROG_TEST_RUN`).
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/read_memory")]
fn read_memory(arguments: *const Arguments) -> i32 {
    // SAFETY: the kernel hands over what user space gave it, 16 bytes; the verifier checks the access.
    let count = unsafe { (*arguments).count };
    if count > BATCH as u64 {
        return -1;
    }
    repeat(count as u32, copy, &mut Progress { at: 0 });
    0
}

/// Copies one of them.
extern "C" fn copy(index: u64, progress: *mut Progress) -> i64 {
    // SAFETY: the context that `read_memory` hands over, on its stack.
    let progress = unsafe { &mut *progress };
    let (Some(wants), Some(memory)) = (WANTS.get_ptr_mut(0), MEMORY.get_ptr_mut(0)) else {
        return 1;
    };
    // SAFETY: an element of the array, whose length the mask stays below.
    let want = unsafe { wants.cast::<Want>().add(index as usize & (BATCH - 1)) };
    // SAFETY: as above. Read once: user space may write meanwhile, and what was checked is what counts.
    let length = unsafe { (&raw const (*want).length).read_volatile() };
    if length > PIECE as u32 {
        return 1;
    }
    let at = progress.at as usize & (ROOM - 1);
    // SAFETY: there are `PIECE` bytes behind the last place, which is as many as `length` can be; what lies at
    // the address is not trusted.
    unsafe {
        let to = memory.cast::<u8>().add(at);
        (*want).result =
            bpf_probe_read_kernel(to.cast(), length, (*want).address as *const _) as i32;
    }
    progress.at = (at + (length as usize).next_multiple_of(ALIGN)) as u64;
    0
}
