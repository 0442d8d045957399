//! The maps.
//!
//! Hooks have no scratch memory beside the 512-byte stack: programs on trampolines can be interrupted
//! by one another on the same CPU, so whatever they shared would be mixed up. Records are made in
//! the ledger itself, events in the ring buffer itself.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use ucr_common::{
    control::{Control, Lease, counter},
    paths::BindPaths,
    record::Record,
};

/// The ledger: by address of the `struct sock`. Not preallocated: it costs what it holds.
#[map]
pub(crate) static LEDGER: HashMap<u64, Record> =
    HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// What an iterator says of each socket at one moment, to hold the ledger against: by address of
/// the `struct sock`. The loader chooses a size if it wants one.
#[map]
pub(crate) static CENSUS: HashMap<u64, Record> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Where an iterator puts a record together, so that it comes into the ledger as a whole.
#[map]
pub(crate) static FRESH: PerCpuArray<Record> = PerCpuArray::with_max_entries(1, 0);

/// Where the binder of a pathname stood: by address of the `struct sock`.
#[map]
pub(crate) static BIND_PATHS: HashMap<u64, BindPaths> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Events for a follower. The loader may choose another size.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// What is attached, since when and by whom: only user space reads it.
#[map]
pub(crate) static CONTROL: Array<Control> = Array::with_max_entries(1, 0);

/// Who has events written, and until when.
#[map]
pub(crate) static LEASE: Array<Lease> = Array::with_max_entries(1, 0);

/// How many events each CPU has sent, or could not.
#[map]
pub(crate) static SEQUENCE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Counted by the programs, read by user space.
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// A file that one sweep over a descriptor table has come across.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Swept {
    /// Address of the `struct file`.
    pub(crate) file: u64,
    /// When the sweep began: nobody else's.
    pub(crate) sweep: u64,
}

/// How many descriptors of a sweep led to one file so far. What a sweep leaves behind means nothing to
/// another one, and goes when room is wanted.
#[map]
pub(crate) static SWEPT: LruHashMap<Swept, u64> = LruHashMap::with_max_entries(16_384, 0);

/// The peer that a datagram socket is about to lose in the `connect` that a thread is in: by thread.
#[map]
pub(crate) static FORMER: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(counter: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter) {
        // SAFETY: a non-null element of a per-CPU array; a lost increment when a program is
        // interrupted here is bearable.
        unsafe { *value += 1 };
    }
}
