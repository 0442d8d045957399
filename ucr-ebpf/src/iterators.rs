//! BPF iterators: the seeding pass over all unix sockets, and the sockets of a process.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_socket_cookie, bpf_seq_write, bpf_sock_from_file},
};
use ucr_common::{
    control::counter,
    descriptor::SocketDescriptor,
    identity::SocketId,
    record::{Record, origin},
};

use crate::{
    kernel::{
        Pointer, descriptor_table, inode_of, netns_of, offset, probed, references_of, table_users,
        typed,
    },
    ledger::survey,
    maps::{LEDGER, User, count, scratch},
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

/// Visits every unix socket of the reader's network namespace, embryos included, and puts those
/// that are not known into the ledger. It prints nothing: the kernel's unix iterator skips
/// sockets when its output does not fit into one read.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/unix")]
fn seed_unix(ctx: *mut UnixContext) -> i32 {
    // SAFETY: the kernel calls with this context; the verifier checks the access.
    let sk = unsafe { (*ctx).unix_sk };
    if sk.is_null() {
        return 0;
    }
    // SAFETY: a sock of the iterator; the helper gives it a cookie if it has none.
    let cookie = unsafe { bpf_get_socket_cookie(sk) };
    let key = sk as u64;
    if let Some(known) = LEDGER.get_ptr_mut(&key) {
        // SAFETY: a non-null map value.
        unsafe { (*known).socket.cookie = cookie };
        return 0;
    }
    let Some(fresh) = scratch(User::Iterator) else { return 0 };
    let record: &mut Record = &mut fresh.record;
    survey(record, sk);
    record.origin = origin::SEED;
    record.socket.cookie = cookie;
    match LEDGER.insert(&key, &*record, BPF_NOEXIST.into()) {
        // -EEXIST: a hook was faster, and knows more.
        Ok(()) | Err(-17) => {}
        Err(_) => count(counter::LEDGER_FULL),
    }
    0
}

/// Writes one [`SocketDescriptor`] for each descriptor that leads to a socket. (This iterator, in
/// contrast to the one above, continues where it stopped when its output is full.)
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn list_sockets(ctx: *mut TaskFileContext) -> i32 {
    // SAFETY: the kernel calls with this context; the verifier checks the access.
    let (task, file) = unsafe { ((*ctx).task, (*ctx).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: `file` is a `struct file *`.
    let socket: Pointer = unsafe { bpf_sock_from_file(file.cast()) }.cast();
    if socket.is_null() {
        return 0;
    }
    // SAFETY: `socket` is a `struct socket *`.
    let sk: Pointer = unsafe { typed(socket, offset!(socket_sk)) };
    if sk.is_null() {
        return 0;
    }
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
    let found = SocketDescriptor {
        socket: SocketId { sk: sk as u64, cookie, inode: inode_of(sk) },
        // SAFETY: `task` is a `struct task_struct *`.
        table_users: unsafe { table_users(task) },
        reserved: 0,
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
    };
    // SAFETY: `found` has no padding and the given size. A full buffer makes the kernel call again.
    unsafe {
        bpf_seq_write(
            seq.cast(),
            core::ptr::from_ref(&found).cast_mut().cast(),
            size_of::<SocketDescriptor>() as u32,
        )
    };
    0
}
