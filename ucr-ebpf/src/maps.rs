//! The maps, and the scratch memory that stands in for the 512-byte stack.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use ucr_common::{
    control::{Control, counter},
    event::BindEvent,
    paths::BindPaths,
    record::Record,
};

/// The ledger: by address of the `struct sock`. Not preallocated: it costs what it holds.
#[map]
pub(crate) static LEDGER: HashMap<u64, Record> =
    HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// Where the binder of a pathname stood: by address of the `struct sock`.
#[map]
pub(crate) static BIND_PATHS: HashMap<u64, BindPaths> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Events for a follower. The loader may choose another size.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Orders from user space.
#[map]
pub(crate) static CONTROL: Array<Control> = Array::with_max_entries(1, 0);

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

/// What a program puts together before it goes into a map or the ring buffer.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Scratch {
    /// For the ledger.
    pub record: Record,
    /// For the ring buffer; its `paths` also for `BIND_PATHS`.
    pub event: BindEvent,
    /// Room behind the last array for a component that begins at its very end.
    pub slack: [u8; 256],
}

/// One for the tracepoint programs, which run with preemption off, and one for the iterators,
/// which can be preempted by them.
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(2, 0);

/// Which scratch memory is whose.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum User {
    /// Tracepoint programs.
    Tracepoint = 0,
    /// Iterators.
    Iterator = 1,
}

/// This CPU's scratch memory.
#[inline(always)]
pub(crate) fn scratch(user: User) -> Option<&'static mut Scratch> {
    let pointer = SCRATCH.get_ptr_mut(user as u32)?;
    // SAFETY: a non-null element of a per-CPU array lives as long as the program, is zeroed and
    // aligned, and nobody else on this CPU uses the same element meanwhile (see SCRATCH).
    Some(unsafe { &mut *pointer })
}

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(counter: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter) {
        // SAFETY: a non-null element of a per-CPU array; a lost increment when an iterator is
        // preempted here is bearable.
        unsafe { *value += 1 };
    }
}
