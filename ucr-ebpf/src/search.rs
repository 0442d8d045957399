//! Answers to questions about some sockets, which must not cost a look at all: a search through the ledger,
//! and one socket by its address. User space runs them by hand (`BPF_PROG_TEST_RUN`), one at a time.

use core::{ffi::c_void, ptr};

use aya_ebpf::{helpers::bpf_for_each_map_elem, macros::map, maps::Array};
use ucr_common::{
    inet::{ENDS_BITS, ENDS_LEN, ENDS_WORD, WORDS, bit_of},
    name::NAME_MAX,
    record::Record,
    sighting::{NAME_WORDS, Wanted, count_at, count_inet_at, wanted},
};

use crate::{
    kernel::{AF_UNIX, Pointer, inet},
    maps::LEDGER,
    sight::Seen,
};

/// `BPF_F_MMAPABLE`: user space sees it without a system call.
const MAPPED: u32 = 1 << 10;

/// What is looked for.
#[map]
static WANTED: Array<Wanted> = Array::with_max_entries(1, 0);

/// Addresses of socks, from the second element on; the first one counts them, also those for which there
/// was no room. The loader chooses a size.
#[map]
static FOUND: Array<u64> = Array::with_max_entries(1, MAPPED);

/// Connections whose ends are looked for, a bit each. A bit that was left behind by somebody who was killed finds
/// nobody wrong: whoever asks compares what was found.
#[map]
static ENDS: Array<u64> = Array::with_max_entries(ENDS_BITS / ENDS_WORD, 0);

/// One socket.
#[map]
static SIGHT: Array<Seen> = Array::with_max_entries(1, MAPPED);

/// Writes down an address.
#[inline(always)]
pub(crate) fn note(sk: u64) {
    let Some(count) = FOUND.get_ptr_mut(0) else { return };
    // SAFETY: a non-null element; one pass runs at a time.
    let at = unsafe {
        *count += 1;
        *count
    };
    if at < u64::from(u32::MAX)
        && let Some(place) = FOUND.get_ptr_mut(at as u32)
    {
        // SAFETY: a non-null element.
        unsafe { *place = sk };
    }
}

/// Writes down the addresses of all sockets in the ledger that are wanted.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/search_ledger")]
fn search_ledger(_ctx: *const c_void) -> i32 {
    let Some(wanted) = WANTED.get_ptr(0) else { return -1 };
    let mut search = Search { wanted };
    // SAFETY: the callback takes what the helper gives it for a hash map: map, key, value, context.
    unsafe {
        bpf_for_each_map_elem(
            ptr::addr_of!(LEDGER).cast_mut().cast(),
            compare as *mut c_void,
            ptr::from_mut(&mut search).cast(),
            0,
        );
    }
    0
}

#[repr(C)]
struct Search {
    wanted: *const Wanted,
}

extern "C" fn compare(
    _map: *mut c_void,
    _key: *const u64,
    record: *mut Record,
    search: *mut Search,
) -> i64 {
    // SAFETY: a value of the ledger, and the context that `search_ledger` hands over.
    let (record, wanted) = unsafe { (&*record, &*(*search).wanted) };
    let is_it = match wanted.kind {
        wanted::ENDS => inet::is_inet(record.family) && is_an_end(record),
        // Whoever else is looked for is a unix socket.
        _ if record.family != u32::from(AF_UNIX) => false,
        wanted::INODE => record.socket.inode == wanted.key,
        wanted::COOKIE => record.socket.cookie == wanted.key,
        wanted::NAME => record.name.len == wanted.name_len && is_named(record, wanted),
        wanted::RELATED => record.listener.sk == wanted.key || record.peer.sk == wanted.key,
        _ => false,
    };
    if wanted.kind == wanted::COUNT
        && let Some(count) = FOUND.get_ptr_mut(place_of(record))
    {
        // SAFETY: a non-null element; one search runs at a time.
        unsafe { *count += 1 };
    }
    if is_it {
        note(record.socket.sk);
    }
    0
}

/// Where its like are counted.
#[inline(always)]
fn place_of(record: &Record) -> u32 {
    if record.family == u32::from(AF_UNIX) {
        count_at(record.socket_type, record.state)
    } else {
        count_inet_at(record.family, record.protocol, record.state)
    }
}

/// Without branches, word by word: what lies behind a name means nothing, and is masked.
#[inline(always)]
fn is_named(record: &Record, wanted: &Wanted) -> bool {
    const _: () = assert!(NAME_WORDS * 4 == NAME_MAX);
    let own = record.name.bytes.as_ptr().cast::<u32>();
    let mut differences = 0;
    for at in 0..NAME_WORDS {
        // SAFETY: the bytes of a name consist of that many aligned words.
        let word = unsafe { own.add(at).read_volatile() };
        differences |= (word ^ wanted.name[at]) & wanted.mask[at];
    }
    differences == 0
}

/// Whether its connection is looked for.
#[inline(always)]
fn is_an_end(record: &Record) -> bool {
    if record.name.len != ENDS_LEN {
        return false;
    }
    let own = record.name.bytes.as_ptr().cast::<u32>();
    let mut words = [0; WORDS];
    for (at, word) in words.iter_mut().enumerate() {
        // SAFETY: the bytes of a name are more aligned words than two ends take.
        *word = unsafe { own.add(at).read_volatile() };
    }
    let bit = bit_of(&words);
    ENDS.get(bit / ENDS_WORD).is_some_and(|word| word >> (bit % ENDS_WORD) & 1 != 0)
}

/// What it is run with.
#[repr(C)]
struct Asked {
    address: u64,
    nothing: u64,
}

/// Looks at the sock at one address.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/see_socket")]
fn see_socket(asked: *const Asked) -> i32 {
    // SAFETY: the kernel hands over what user space gave it, 16 bytes; the verifier checks the access.
    let address = unsafe { (*asked).address };
    let Some(place) = SIGHT.get_ptr_mut(0) else { return -1 };
    // SAFETY: a non-null element, which nobody reads before this has returned.
    let place = unsafe { &mut *place };
    place.look(address as Pointer);
    0
}
