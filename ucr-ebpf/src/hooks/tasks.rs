//! Descriptors that go without a `close`: when a process exits or executes another program.
//!
//! What they cannot see: descriptors closed by `execve` on kernels without `sched_prepare_exec`,
//! or in a process whose threads still share the table; a table that outlives its process because
//! it is shared with another one (`CLONE_FILES` without `CLONE_THREAD`); the last close of a socket
//! whose two holders end at the same moment.

use aya_ebpf::{bindings::BPF_ANY, macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::debug;

use crate::{
    emit,
    kernel::{
        self, Pointer, current_task, descriptor_table, offset, probed, repeat, table_users, typed,
    },
    ledger,
    maps::{SWEPT, Swept},
};

/// Bits in a word of the kernel's bitmaps.
const WORD: u32 = 64;
/// Most words that are looked at: 4 Mi descriptors (`fs.nr_open` is 1 Mi by default).
const WORDS_MAX: u32 = 65_536;

/// `void sched_process_exit(struct task_struct *p[, bool group_dead])`: before the descriptor
/// table is let go. Nobody can be asked whether the table really goes, so look at who is left.
#[btf_tracepoint(function = "sched_process_exit")]
fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    let task = current_task();
    // SAFETY: the current task is typed.
    let signal: Pointer = unsafe { typed(task, offset!(task_signal)) };
    // SAFETY: `signal` is a `struct signal_struct *`.
    let live: u32 = unsafe { typed(signal, offset!(signal_live)) };
    if live != 0 {
        return 0;
    }
    // SAFETY: as above.
    let threads: u32 = unsafe { typed(signal, offset!(signal_nr_threads)) };
    // SAFETY: the current task is typed.
    let users = unsafe { table_users(task) };
    if users <= threads {
        sweep(0, u32::MAX, Sweep::ALL);
    } else {
        debug!(&ctx, "exit: {} tasks share the table, the process has {}", users, threads);
    }
    0
}

/// `void sched_prepare_exec(struct task_struct *task, struct linux_binprm *bprm)` (6.10 and
/// later): before close-on-exec descriptors are closed.
#[btf_tracepoint(function = "sched_prepare_exec")]
fn sched_prepare_exec(_ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the current task is typed.
    if unsafe { table_users(current_task()) } == 1 {
        sweep(0, u32::MAX, Sweep::CLOSE_ON_EXEC);
    }
    0
}

/// `close_range(2)`: from `first` to `last`, both included.
#[inline(always)]
pub(crate) fn close_between(first: u32, last: u32) {
    sweep(first, last, Sweep::ALL);
}

/// A walk over the descriptors in use, a word of the bitmap at a time.
#[repr(C)]
struct Sweep {
    files: Pointer,
    open: Pointer,
    close_on_exec: Pointer,
    id: u64,
    which: u32,
    size: u32,
    first: u32,
    last: u32,
}

impl Sweep {
    const ALL: u32 = 0;
    const CLOSE_ON_EXEC: u32 = 1;
}

/// Reports the last close of each socket among the descriptors.
#[inline(always)]
fn sweep(first: u32, last: u32, which: u32) {
    // SAFETY: the current task is typed.
    let Some(table) = (unsafe { descriptor_table(current_task()) }) else { return };
    // SAFETY: `table` is a `struct fdtable *`.
    let size: u32 = unsafe { typed(table, offset!(fdt_max_fds)) };
    // SAFETY: as above.
    let files: Pointer = unsafe { typed(table, offset!(fdt_fd)) };
    // SAFETY: as above.
    let open: Pointer = unsafe { typed(table, offset!(fdt_open_fds)) };
    // SAFETY: as above.
    let close_on_exec: Pointer = unsafe { typed(table, offset!(fdt_close_on_exec)) };
    let id = emit::now();
    let mut walk = Sweep { files, open, close_on_exec, id, which, size, first, last };
    repeat(WORDS_MAX, sweep_word, &mut walk);
}

extern "C" fn sweep_word(index: u64, walk: *mut Sweep) -> i64 {
    // SAFETY: the context that `sweep` hands over, on its stack.
    let walk = unsafe { &*walk };
    let base = index as u32 * WORD;
    if base >= walk.size || base > walk.last {
        return 1;
    }
    let Some(mut bits) = probed::<u64>(walk.open, index * 8) else { return 1 };
    if walk.which == Sweep::CLOSE_ON_EXEC {
        bits &= probed::<u64>(walk.close_on_exec, index * 8).unwrap_or(0);
    }
    if bits != 0 {
        let mut word =
            Word { files: walk.files, id: walk.id, bits, base, first: walk.first, last: walk.last };
        // A loop in a loop would make the verifier follow 64 branches of two ways each.
        repeat(WORD, sweep_bit, &mut word);
    }
    0
}

/// A word of the bitmap that has bits set.
#[repr(C)]
struct Word {
    files: Pointer,
    id: u64,
    bits: u64,
    base: u32,
    first: u32,
    last: u32,
}

extern "C" fn sweep_bit(bit: u64, word: *mut Word) -> i64 {
    // SAFETY: the context that `sweep_word` hands over, on its stack.
    let word = unsafe { &mut *word };
    if word.bits == 0 {
        return 1;
    }
    let fd = word.base + bit as u32;
    if word.bits & 1 != 0 && fd >= word.first && fd <= word.last {
        close_file(word.files, fd, word.id);
    }
    word.bits >>= 1;
    0
}

/// One descriptor goes. It is the socket's last if all references to its file are descriptors of
/// this sweep: they are counted as they come.
#[inline(never)]
fn close_file(files: Pointer, fd: u32, sweep: u64) -> u32 {
    let Some(file) = kernel::follow(files, u64::from(fd) * 8) else { return 0 };
    let references = kernel::references_of(file);
    if references != 1 && references > SHARED_MAX {
        return 0;
    }
    let Some(known) = kernel::known_sock_of(file) else { return 0 };
    if references != 1 {
        let key = Swept { file: file as u64, sweep };
        let before = SWEPT.get_ptr(&key).map_or(0, |seen| {
            // SAFETY: a non-null map value.
            unsafe { *seen }
        });
        if before + 1 < references {
            // If it does not fit, the close is missed, which the snapshot tells.
            let _ = SWEPT.insert(&key, &(before + 1), BPF_ANY.into());
            return 0;
        }
        let _ = SWEPT.remove(&key);
    }
    ledger::ended(known, fd as i32);
    0
}

/// A file with more references than this is shared with others than one process's descriptors.
const SHARED_MAX: u64 = 4096;
