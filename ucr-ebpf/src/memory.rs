//! Reads kernel memory for user space, which asks by running the program once for each piece. It knows
//! no structure: who asks has the offsets, from the kernel's BTF. A wrong address gives an error.

use aya_ebpf::{helpers::generated::bpf_probe_read_kernel, macros::map, maps::Array};
use ucr_common::memory::PIECE;

/// `BPF_F_MMAPABLE`: user space sees it without a system call.
const MAPPED: u32 = 1 << 10;

/// Where a piece is put.
#[map]
static MEMORY: Array<[u8; PIECE]> = Array::with_max_entries(1, MAPPED);

/// What it is run with: an address and a length.
#[repr(C)]
struct Wanted {
    address: u64,
    length: u64,
}

/// Copies that many bytes, at most [`PIECE`], from that address. It hangs on nothing: user space runs it
/// (`BPF_PROG_TEST_RUN`).
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/read_memory")]
fn read_memory(wanted: *const Wanted) -> i32 {
    // SAFETY: the kernel hands over what user space gave it, 16 bytes; the verifier checks the access.
    let (address, length) = unsafe { ((*wanted).address, (*wanted).length) };
    if length > PIECE as u64 {
        return -1;
    }
    let Some(piece) = MEMORY.get_ptr_mut(0) else { return -1 };
    // SAFETY: the destination has `PIECE` bytes, which is as many as `length` can be.
    let result = unsafe { bpf_probe_read_kernel(piece.cast(), length as u32, address as *const _) };
    result as i32
}
