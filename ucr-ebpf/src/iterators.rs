//! BPF iterators: passes over all unix sockets that seed, correct and check the ledger, and the sockets
//! of a process.

mod inet;

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_socket_cookie, bpf_seq_write, bpf_sock_from_file},
};
use ucr_common::{
    control::counter,
    descriptor::SocketDescriptor,
    identity::SocketId,
    offsets::ABSENT,
    record::{Record, origin},
};

use crate::{
    emit,
    kernel::{
        AF_UNIX, Pointer, descriptor_table, inode_of, is_dead, netns_of, offset, probed,
        references_of, references_of_typed, table_users, typed, value,
    },
    ledger::{
        correction::{correct, for_each_record},
        record::{BLANK, add, is_unborn, lookup, survey},
    },
    maps::{CENSUS, CONTROL, FRESH, count},
    search,
    sight::Seen,
};

/// `struct bpf_iter_meta` (`include/linux/bpf.h`).
#[repr(C)]
struct Meta {
    seq: *mut c_void,
    session_id: u64,
    seq_num: u64,
}

/// `struct bpf_iter__unix` (`net/unix/af_unix.c`).
#[repr(C)]
struct UnixContext {
    meta: *const Meta,
    unix_sk: *mut c_void,
    uid: u32,
}

/// `struct bpf_iter__task_file` (`kernel/bpf/task_iter.c`).
#[repr(C)]
struct TaskFileContext {
    meta: *const Meta,
    task: *mut c_void,
    fd: u32,
    file: *mut c_void,
}

/// Visits every unix socket of the reader's network namespace, embryos included. Those that are not
/// known come into the ledger, those that are known are held against the kernel and corrected. It
/// prints nothing: the kernel's unix iterator skips sockets when its output does not fit into one
/// read.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/unix")]
fn visit_unix(ctx: *mut UnixContext) -> i32 {
    // SAFETY: the kernel calls with this context; the verifier checks the access.
    let sk = unsafe { (*ctx).unix_sk };
    if sk.is_null() {
        return 0;
    }
    // SAFETY: a sock of the iterator; the helper gives it a cookie if it has none.
    unsafe { bpf_get_socket_cookie(sk) };
    let sk: Pointer = sk.cast_const();
    let time = emit::now();
    if lookup(sk).is_some() {
        correct(sk, time);
        return 0;
    }
    if is_unborn(sk) || is_dead(sk) {
        return 0;
    }
    let seeding = !is_seeded();
    let origin = if seeding { origin::SEED } else { origin::FOUND };
    let Some(fresh) = FRESH.get_ptr_mut(0) else { return 0 };
    // SAFETY: a non-null element of a per-CPU array, and one process runs one pass at a time.
    if add(unsafe { &mut *fresh }, sk, origin, time, survey, correct) && !seeding {
        count(counter::FOUND);
    }
    0
}

/// Whether the first pass is over.
#[inline(always)]
fn is_seeded() -> bool {
    let Some(control) = CONTROL.get_ptr(0) else { return false };
    // SAFETY: a non-null element of an array map; user space writes the field as a whole.
    unsafe { (*control).seeded_at != 0 }
}

/// Marks the records whose sock is gone, for those that no pass comes across because no task is in their
/// network namespace. It runs once, when the iterator is through.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/unix")]
fn mark_gone(ctx: *mut UnixContext) -> i32 {
    // SAFETY: the kernel calls with this context; the verifier checks the access.
    if unsafe { (*ctx).unix_sk }.is_null() {
        for_each_record();
    }
    0
}

/// Whether somebody is told by a signal what happens at a file; also if that cannot be told.
#[inline(always)]
fn notifies(file: Pointer) -> u32 {
    let (owner, pid, signal) = if offset!(file_owner_pid) != ABSENT {
        (file, offset!(file_owner_pid), offset!(file_owner_signal))
    } else if offset!(file_owner) != ABSENT {
        (value(file, offset!(file_owner)), offset!(owner_pid), offset!(owner_signal))
    } else {
        return 1;
    };
    if owner.is_null() {
        return 0;
    }
    let known = (probed::<u64>(owner, pid), probed::<u32>(owner, signal));
    u32::from(known != (Some(0), Some(0)))
}

/// Puts what the kernel says of every unix socket of the reader's network namespace into the census.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/unix")]
fn census_unix(ctx: *mut UnixContext) -> i32 {
    // SAFETY: the kernel calls with this context; the verifier checks the access.
    let sk = unsafe { (*ctx).unix_sk };
    if sk.is_null() {
        return 0;
    }
    // SAFETY: a sock of the iterator; the helper gives it a cookie if it has none.
    unsafe { bpf_get_socket_cookie(sk) };
    let key = sk as u64;
    if CENSUS.insert(&key, &BLANK, BPF_ANY.into()).is_err() {
        count(counter::CENSUS_FULL);
        return 0;
    }
    let Some(record) = CENSUS.get_ptr_mut(&key) else { return 0 };
    // SAFETY: a non-null map value, which nobody else writes to.
    survey(unsafe { &mut *record }, sk.cast_const(), emit::now());
    0
}

/// Writes down the address of every unix socket of the reader's network namespace, embryos included.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/unix")]
fn see_addresses(ctx: *mut UnixContext) -> i32 {
    // SAFETY: the kernel calls with this context; the verifier checks the access.
    let sk = unsafe { (*ctx).unix_sk };
    if !sk.is_null() {
        search::note(sk as u64);
    }
    0
}

/// Writes a sighting for each descriptor that leads to a unix socket, of whatever network namespace.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn see_descriptors(ctx: *mut TaskFileContext) -> i32 {
    // SAFETY: the kernel calls with this context; the verifier checks the access.
    let (task, file) = unsafe { ((*ctx).task, (*ctx).file) };
    // SAFETY: as above.
    let Some(sk) = (unsafe { own_socket(task, file) }) else { return 0 };
    // SAFETY: `sk` is a `struct sock *`.
    if unsafe { typed::<u16>(sk, offset!(sk_family)) } != AF_UNIX {
        return 0;
    }
    // SAFETY: `sk` is a `struct sock *`; the helper gives it a cookie if it has none.
    unsafe { bpf_get_socket_cookie(sk.cast_mut()) };
    let mut seen = MaybeUninit::<Seen>::uninit();
    // SAFETY: made of numbers, all of which `glance` writes; filled where it lies.
    let seen = unsafe { &mut *seen.as_mut_ptr() };
    // SAFETY: `sk` is a `struct sock *`.
    if !unsafe { seen.glance(sk) } {
        return 0;
    }
    // SAFETY: `file` is a `struct file *`, which has a `struct inode *`.
    let (inode, references) = unsafe {
        let inode: Pointer = typed(file, offset!(file_inode));
        (typed(inode, offset!(inode_ino)), references_of_typed(file))
    };
    seen.sighting.socket.inode = inode;
    // The iterator itself holds one.
    seen.sighting.references = references.saturating_sub(1);
    // SAFETY: `task` is a `struct task_struct *`.
    unsafe {
        let credentials: Pointer = typed(task, offset!(task_cred));
        seen.sighting.holder_uid = typed(credentials, offset!(cred_uid));
        let comm = seen.sighting.comm.as_mut_ptr().cast::<u64>();
        comm.write_volatile(typed(task, offset!(task_comm)));
        comm.add(1).write_volatile(typed(task, offset!(task_comm) + 8));
    }
    // SAFETY: `task` is a `struct task_struct *`.
    seen.sighting.pid = unsafe { typed(task, offset!(task_tgid)) };
    // SAFETY: as above.
    seen.sighting.tid = unsafe { typed(task, offset!(task_pid)) };
    // SAFETY: the kernel calls with this context.
    let (fd, seq) = unsafe { ((*ctx).fd, (*(*ctx).meta).seq) };
    seen.sighting.fd = fd;
    seen.write(seq);
    0
}

/// The sock behind a file, unless the task is a thread that shares its process's table, and so has
/// nothing of its own.
///
/// # Safety
/// Both must be what the iterator has handed over.
#[inline(always)]
unsafe fn own_socket(task: *mut c_void, file: *mut c_void) -> Option<Pointer> {
    if task.is_null() || file.is_null() {
        return None;
    }
    // SAFETY: `task` is a `struct task_struct *`, and so is what leads its group.
    let is_shared = unsafe {
        let leader: Pointer = typed(task, offset!(task_leader));
        let table = |task: Pointer| typed::<Pointer>(task, offset!(task_files));
        leader != task.cast_const() && table(leader) == table(task.cast_const())
    };
    if is_shared {
        return None;
    }
    // SAFETY: `file` is a `struct file *`.
    let socket: Pointer = unsafe { bpf_sock_from_file(file.cast()) }.cast();
    if socket.is_null() {
        return None;
    }
    // SAFETY: `socket` is a `struct socket *`.
    let sk: Pointer = unsafe { typed(socket, offset!(socket_sk)) };
    if sk.is_null() { None } else { Some(sk) }
}

/// Writes one [`SocketDescriptor`] for each descriptor that leads to a socket. (This iterator, in
/// contrast to the one above, continues where it stopped when its output is full.)
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn list_sockets(ctx: *mut TaskFileContext) -> i32 {
    // SAFETY: the kernel calls with this context; the verifier checks the access.
    let (task, file) = unsafe { ((*ctx).task, (*ctx).file) };
    // SAFETY: as above.
    let Some(sk) = (unsafe { own_socket(task, file) }) else { return 0 };
    // SAFETY: as above.
    let (fd, seq) = unsafe { ((*ctx).fd, (*(*ctx).meta).seq) };
    let close_on_exec = || {
        // SAFETY: `task` is a `struct task_struct *`.
        let table = unsafe { descriptor_table(task) }?;
        // SAFETY: `table` is a `struct fdtable *`.
        let bitmap: Pointer = unsafe { typed(table, offset!(fdt_close_on_exec)) };
        let word: u64 = probed(bitmap, u64::from(fd / 64) * 8)?;
        Some(word >> (fd % 64) & 1)
    };
    // SAFETY: `sk` is a `struct sock *`; the helper gives it a cookie if it has none.
    let cookie = unsafe { bpf_get_socket_cookie(sk.cast_mut()) };
    let record = lookup(sk).map(core::ptr::from_mut);
    let found = SocketDescriptor {
        socket: SocketId { sk: sk as u64, cookie, inode: inode_of(sk) },
        // SAFETY: `task` is a `struct task_struct *`.
        table_users: unsafe { table_users(task) },
        notifies: notifies(file),
        // The iterator itself holds one.
        references: references_of(file).saturating_sub(1),
        // SAFETY: `task` is a `struct task_struct *`.
        pid: unsafe { typed(task, offset!(task_tgid)) },
        // SAFETY: as above.
        tid: unsafe { typed(task, offset!(task_pid)) },
        fd,
        // SAFETY: `file` is a `struct file *`.
        file_flags: unsafe { typed(file, offset!(file_flags)) },
        close_on_exec: close_on_exec().unwrap_or(0) as u32,
        // SAFETY: `sk` is a `struct sock *`.
        family: unsafe { typed::<u16>(sk, offset!(sk_family)) }.into(),
        // SAFETY: as above.
        socket_type: unsafe { typed::<u16>(sk, offset!(sk_type)) }.into(),
        netns: netns_of(sk),
        record_len: record.map_or(0, |_| size_of::<Record>() as u32),
        reserved: 0,
    };
    // SAFETY: neither has padding, and these are their sizes. A full buffer makes the kernel call again.
    unsafe {
        bpf_seq_write(
            seq.cast(),
            core::ptr::from_ref(&found).cast_mut().cast(),
            size_of::<SocketDescriptor>() as u32,
        );
        if let Some(record) = record {
            bpf_seq_write(seq.cast(), record.cast(), size_of::<Record>() as u32);
        }
    };
    0
}
