//! Every read of kernel memory. Offsets come from the running kernel's BTF (`ucr_common::offsets`).
//!
//! There are two ways to read: *typed*, where the verifier knows what a pointer points to (context
//! arguments, the current task, and what is reached from them by plain loads), and *probed*, by
//! `bpf_probe_read_kernel`, for all else. Behind the `struct file **` of a descriptor table the
//! verifier knows nothing, so from there on everything is probed.

use core::{ffi::c_void, mem::MaybeUninit, ptr};

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_task_btf, bpf_loop, bpf_probe_read_kernel, bpf_probe_read_user,
        generated::{
            bpf_probe_read_kernel as raw_probe_read_kernel,
            bpf_probe_read_user as raw_probe_read_user,
            bpf_probe_read_user_str as raw_probe_read_user_str,
        },
    },
};
use ucr_common::{
    control::counter,
    identity::SocketId,
    name::{NAME_MAX, RawName},
    offsets::{ABSENT, Offsets},
};

use crate::maps::count;

pub(crate) mod inet;
mod known;

pub(crate) use known::{Known, known_sock_at, known_sock_of};

/// `AF_UNIX`.
pub(crate) const AF_UNIX: u16 = 1;
/// `SOCKFS_MAGIC` (`include/uapi/linux/magic.h`).
const SOCKFS_MAGIC: u64 = 0x534f_434b;

/// A kernel address. Not a reference: what it points to may go at any time.
pub(crate) type Pointer = *const c_void;

#[unsafe(no_mangle)]
static OFFSETS: Global<Offsets> = Global::new(Offsets::EMPTY);

/// One field of the table.
#[inline(always)]
pub(crate) fn offset_at(byte: usize) -> u64 {
    let table = ptr::addr_of!(OFFSETS).cast::<u8>();
    // SAFETY: `byte` is the position of a u64 field within the table (see `offset!`).
    let field = unsafe { table.add(byte) }.cast::<u64>();
    // SAFETY: in bounds and aligned; volatile, since the loader writes the table.
    unsafe { ptr::read_volatile(field) }
}

/// Reads one field of the offsets table.
macro_rules! offset {
    ($field:ident) => {
        $crate::kernel::offset_at(core::mem::offset_of!(ucr_common::offsets::Offsets, $field))
    };
}
pub(crate) use offset;

/// A typed load: only where the verifier knows what `base` is.
///
/// # Safety
/// The verifier refuses the program if `base` is not a pointer to a kernel type that has a `T` at
/// `offset`; nothing can go wrong at run time.
#[inline(always)]
pub(crate) unsafe fn typed<T: Copy>(base: Pointer, offset: u64) -> T {
    // SAFETY: see above.
    let field = unsafe { base.cast::<u8>().add(offset as usize) }.cast::<T>();
    // SAFETY: see above; volatile, so that it stays a load of this size at this place.
    unsafe { ptr::read_volatile(field) }
}

/// A probed load: any address; a bad one is counted and gives `None`.
#[inline(always)]
pub(crate) fn probed<T>(base: Pointer, offset: u64) -> Option<T> {
    let address = base.cast::<u8>().wrapping_add(offset as usize).cast::<T>();
    // SAFETY: the helper checks the address itself.
    let value = unsafe { bpf_probe_read_kernel(address) };
    if value.is_err() {
        unreadable();
    }
    value.ok()
}

/// A probed load that gives zero where nothing can be read: from null, that is what is meant; else it is
/// counted. In contrast to [`probed`] it makes no branch: verifiers before 6.3 follow each combination
/// of them.
#[inline(always)]
pub(crate) fn value<T: Copy>(base: Pointer, offset: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    let address = base.cast::<u8>().wrapping_add(offset as usize);
    // SAFETY: the helper checks the address itself, and writes all of `value`, zeroes if it fails.
    unsafe {
        let to = value.as_mut_ptr().cast();
        let result = raw_probe_read_kernel(to, size_of::<T>() as u32, address.cast());
        check(base, result);
        value.assume_init()
    }
}

/// Counts a read that failed, unless it was from null.
#[inline(never)]
fn check(base: Pointer, result: i64) -> u32 {
    if result != 0 && !base.is_null() {
        count(counter::UNREADABLE);
    }
    0
}

/// Counts a failed read. Not inlined: it stands behind every read.
#[inline(never)]
pub(crate) fn unreadable() -> u32 {
    count(counter::UNREADABLE);
    0
}

/// A probed load of a pointer, `None` if it is null.
#[inline(always)]
pub(crate) fn follow(base: Pointer, offset: u64) -> Option<Pointer> {
    let pointer: Pointer = probed(base, offset)?;
    if pointer.is_null() { None } else { Some(pointer) }
}

/// The current task, typed.
#[inline(always)]
pub(crate) fn current_task() -> Pointer {
    // SAFETY: the helper always returns the current task.
    unsafe { bpf_get_current_task_btf() }.cast()
}

/// The descriptor table of a task: `struct fdtable *`, typed.
///
/// # Safety
/// `task` must be typed (see [`typed`]).
#[inline(always)]
pub(crate) unsafe fn descriptor_table(task: Pointer) -> Option<Pointer> {
    // SAFETY: `task` is a `struct task_struct *`.
    let files: Pointer = unsafe { typed(task, offset!(task_files)) };
    if files.is_null() {
        return None;
    }
    // SAFETY: `files` is a `struct files_struct *`.
    let table: Pointer = unsafe { typed(files, offset!(files_fdt)) };
    if table.is_null() { None } else { Some(table) }
}

/// Soft limit on descriptor numbers of the current task (`RLIMIT_NOFILE`).
#[inline(always)]
pub(crate) fn descriptor_limit() -> u64 {
    /// `RLIMIT_NOFILE`, and the size of a `struct rlimit`.
    const NOFILE_AT: u64 = 7 * 16;
    // SAFETY: the current task is typed.
    let signal: Pointer = unsafe { typed(current_task(), offset!(task_signal)) };
    probed(signal, offset!(signal_rlim) + NOFILE_AT).unwrap_or(u64::MAX)
}

/// How many tasks share a task's descriptor table.
///
/// # Safety
/// `task` must be typed (see [`typed`]).
#[inline(always)]
pub(crate) unsafe fn table_users(task: Pointer) -> u32 {
    // SAFETY: `task` is a `struct task_struct *`.
    let files: Pointer = unsafe { typed(task, offset!(task_files)) };
    if files.is_null() {
        return 0;
    }
    // SAFETY: `files` is a `struct files_struct *`.
    unsafe { typed(files, offset!(files_count)) }
}

/// The file behind a descriptor of the current task.
#[inline(always)]
pub(crate) fn file_of(fd: u32) -> Option<Pointer> {
    // SAFETY: the current task is typed.
    let table = unsafe { descriptor_table(current_task()) }?;
    // SAFETY: `table` is a `struct fdtable *`.
    let size: u32 = unsafe { typed(table, offset!(fdt_max_fds)) };
    if fd >= size {
        return None;
    }
    // SAFETY: as above. What it points to is unknown to the verifier.
    let files: Pointer = unsafe { typed(table, offset!(fdt_fd)) };
    follow(files, u64::from(fd) * 8)
}

/// The sock behind a file if that is a socket of `AF_UNIX`.
#[inline(always)]
pub(crate) fn unix_sock_of(file: Pointer) -> Option<Pointer> {
    let sk = any_sock_of(file)?;
    if probed::<u16>(sk, offset!(sk_family))? == AF_UNIX { Some(sk) } else { None }
}

/// The sock behind a file if that is a socket.
#[inline(always)]
fn any_sock_of(file: Pointer) -> Option<Pointer> {
    let inode = follow(file, offset!(file_inode))?;
    let super_block = follow(inode, offset!(inode_sb))?;
    if probed::<u64>(super_block, offset!(sb_magic))? != SOCKFS_MAGIC {
        return None;
    }
    let socket = follow(file, offset!(file_private_data))?;
    follow(socket, offset!(socket_sk))
}

/// The unix sock behind a descriptor of the current task.
#[inline(always)]
pub(crate) fn unix_sock_at(fd: u32) -> Option<Pointer> {
    unix_sock_of(file_of(fd)?)
}

/// How many references a file has; 0 if that cannot be read.
#[inline(always)]
pub(crate) fn references_of(file: Pointer) -> u64 {
    if offset!(file_ref) == ABSENT {
        probed(file, offset!(file_count)).unwrap_or(0)
    } else {
        probed::<u64>(file, offset!(file_ref)).map_or(0, |beyond_one| beyond_one.wrapping_add(1))
    }
}

/// The same of a file that the verifier knows.
///
/// # Safety
/// `file` must be typed (see [`typed`]).
#[inline(always)]
pub(crate) unsafe fn references_of_typed(file: Pointer) -> u64 {
    if offset!(file_ref) == ABSENT {
        // SAFETY: `file` is a `struct file *`.
        unsafe { typed(file, offset!(file_count)) }
    } else {
        // SAFETY: as above.
        unsafe { typed::<u64>(file, offset!(file_ref)) }.wrapping_add(1)
    }
}

/// All identities of a sock; none of null.
#[inline(always)]
pub(crate) fn identity(sk: Pointer) -> SocketId {
    SocketId { sk: sk as u64, cookie: cookie_of(sk), inode: inode_of(sk) }
}

/// Cookie of a sock, 0 if nobody has asked for it.
#[inline(always)]
pub(crate) fn cookie_of(sk: Pointer) -> u64 {
    value(sk, offset!(sk_cookie))
}

/// Inode number of a sock, 0 if it has none.
#[inline(always)]
pub(crate) fn inode_of(sk: Pointer) -> u64 {
    let socket: Pointer = value(sk, offset!(sk_socket));
    value(socket, offset!(alloc_ino).wrapping_sub(offset!(alloc_socket)))
}

/// Whether a sock belongs to a socket: it was accepted, and not yet closed.
#[inline(always)]
pub(crate) fn has_socket(sk: Pointer) -> bool {
    follow(sk, offset!(sk_socket)).is_some()
}

/// Peer of a unix sock, or null.
#[inline(always)]
pub(crate) fn peer_pointer(sk: Pointer) -> Pointer {
    value(sk, offset!(unix_peer))
}

/// Peer of a unix sock.
#[inline(always)]
pub(crate) fn peer_of(sk: Pointer) -> Option<Pointer> {
    let peer = peer_pointer(sk);
    if peer.is_null() { None } else { Some(peer) }
}

/// Listener that an embryo waits at; null for any other sock, or if the kernel has no such field.
#[inline(always)]
pub(crate) fn listener_pointer(sk: Pointer) -> Pointer {
    if offset!(unix_listener) == ABSENT {
        return ptr::null();
    }
    value(sk, offset!(unix_listener))
}

/// Inode number of the sock's network namespace.
#[inline(always)]
pub(crate) fn netns_of(sk: Pointer) -> u32 {
    value(value(sk, offset!(sk_net)), offset!(net_inum))
}

/// Whether it is of this family, if it is a sock at all.
#[inline(always)]
pub(crate) fn is_unix(sk: Pointer) -> bool {
    family_of(sk) == u32::from(AF_UNIX)
}

/// `sk_family`.
#[inline(always)]
pub(crate) fn family_of(sk: Pointer) -> u32 {
    value::<u16>(sk, offset!(sk_family)).into()
}

/// `sk_type`.
#[inline(always)]
pub(crate) fn type_of(sk: Pointer) -> u32 {
    value::<u16>(sk, offset!(sk_type)).into()
}

/// `sk_state`.
#[inline(always)]
pub(crate) fn state_of(sk: Pointer) -> u32 {
    value::<u8>(sk, offset!(sk_state)).into()
}

/// `sk_shutdown`.
#[inline(always)]
pub(crate) fn shutdown_of(sk: Pointer) -> u32 {
    value::<u8>(sk, offset!(sk_shutdown)).into()
}

/// Whether the sock has been released (`SOCK_DEAD`, bit 0 of its flags: `sock_orphan`).
#[inline(always)]
pub(crate) fn is_dead(sk: Pointer) -> bool {
    probed::<u64>(sk, offset!(sk_flags)).is_none_or(|flags| flags & 1 != 0)
}

/// `sk_max_ack_backlog`.
#[inline(always)]
pub(crate) fn backlog_of(sk: Pointer) -> u32 {
    value(sk, offset!(sk_backlog))
}

/// Copies the sock's own name.
#[inline(always)]
pub(crate) fn read_name(sk: Pointer, name: &mut RawName) {
    let address: Pointer = value(sk, offset!(unix_addr));
    let length: u32 = value(address, offset!(addr_len));
    let path_at = offset!(sun_path);
    let path = offset!(addr_name) + path_at;
    // The kernel counts the NUL that it puts behind a pathname, which may be the 109th byte.
    let ends_in_nul = u64::from(value::<u8>(address, path) != 0);
    copy_name(address, path, u64::from(length).saturating_sub(path_at + ends_in_nul), name);
}

/// Whether the sock has a name of its own.
#[inline(always)]
pub(crate) fn has_name(sk: Pointer) -> bool {
    !value::<Pointer>(sk, offset!(unix_addr)).is_null()
}

/// Whether the sock's own name is a pathname.
#[inline(always)]
pub(crate) fn has_pathname(sk: Pointer) -> bool {
    let address: Pointer = value(sk, offset!(unix_addr));
    value::<u8>(address, offset!(addr_name) + offset!(sun_path)) != 0
        && u64::from(value::<u32>(address, offset!(addr_len))) > offset!(sun_path)
}

/// Copies a name that a call was given, from the kernel's copy of it. The caller's length may reach
/// beyond the NUL that ends a pathname: user space cuts it.
#[inline(always)]
pub(crate) fn read_asked_name(address: Pointer, length: u64, name: &mut RawName) {
    let path_at = offset!(sun_path);
    copy_name(address, path_at, (length & 0xffff_ffff).saturating_sub(path_at), name);
}

/// Copies a name that a system call was given: `struct sockaddr *` in user memory and its length. As
/// above.
#[inline(always)]
pub(crate) fn read_user_name(address: u64, length: u64, name: &mut RawName) {
    let path_at = offset!(sun_path);
    let path = (address + path_at) as *const c_void;
    let to = name.bytes.as_mut_ptr().cast::<c_void>();
    const ROOM: u32 = NAME_MAX as u32;
    // SAFETY: the helper checks the address itself, and writes all there is room for.
    let mut failed = unsafe { raw_probe_read_user(to, ROOM, path) } < 0;
    if failed {
        // Memory may end before there is enough for the longest name: up to a NUL, then.
        // SAFETY: as above.
        failed = unsafe { raw_probe_read_user_str(to, ROOM, path) } < 0;
    }
    if failed {
        unreadable();
    }
    let length = (length & 0xffff_ffff).saturating_sub(path_at);
    cut(name, if failed { 0 } else { length });
}

/// Copies as many bytes as the longest name has: a copy of variable length, or a loop over the bytes,
/// makes verifiers before 6.3 follow every path there is. What lies behind the name is whatever stood
/// there, until user space clears it.
#[inline(always)]
fn copy_name(base: Pointer, offset: u64, length: u64, name: &mut RawName) {
    let address = base.cast::<u8>().wrapping_add(offset as usize);
    // SAFETY: the helper checks the address itself, and writes all of the bytes, zeroes if it fails.
    let result = unsafe {
        raw_probe_read_kernel(name.bytes.as_mut_ptr().cast(), NAME_MAX as u32, address.cast())
    };
    check(base, result);
    cut(name, if result == 0 { length } else { 0 });
}

/// Clears a name, a word at a time: the compiler would call a loop over its bytes.
#[inline(always)]
pub(crate) fn clear_name(name: &mut RawName) {
    let words = ptr::from_mut(name).cast::<u32>();
    for at in 0..size_of::<RawName>() / size_of::<u32>() {
        // SAFETY: a name consists of aligned words.
        unsafe { words.add(at).write_volatile(0) };
    }
}

#[inline(always)]
fn cut(name: &mut RawName, length: u64) {
    name.len = if length > NAME_MAX as u64 { NAME_MAX as u32 } else { length as u32 };
}

/// Two ints in user memory: what `socketpair` wrote.
#[inline(always)]
pub(crate) fn read_user_pair(address: u64) -> Option<[i32; 2]> {
    // SAFETY: the helper checks the address itself.
    let pair = unsafe { bpf_probe_read_user(address as *const [i32; 2]) };
    if pair.is_err() {
        unreadable();
    }
    pair.ok()
}

/// Most embryos that are looked at when a listener dies: `net.core.somaxconn` is 4096 by default.
const EMBRYOS_MAX: u32 = 65_536;

/// Where [`for_each_embryo`] stands.
#[repr(C)]
struct QueueWalk {
    head: Pointer,
    skb: Pointer,
}

/// Calls `visit` for each embryo in a listener's queue.
#[inline(always)]
pub(crate) fn for_each_embryo<F: Fn(Pointer) + Copy>(listener: Pointer, visit: F) {
    // A function item has no size: the callback makes it out of nothing.
    const { assert!(size_of::<F>() == 0) };
    let _ = visit;
    let head: Pointer =
        listener.cast::<u8>().wrapping_add(offset!(sk_receive_queue) as usize).cast();
    let Some(skb) = follow(head, offset!(skb_next)) else { return };
    let mut walk = QueueWalk { head, skb };
    repeat(EMBRYOS_MAX, embryo_step::<F>, &mut walk);
}

extern "C" fn embryo_step<F: Fn(Pointer) + Copy>(_index: u64, walk: *mut QueueWalk) -> i64 {
    // SAFETY: the context that `for_each_embryo` hands over, on its stack.
    let walk = unsafe { &mut *walk };
    if walk.skb == walk.head {
        return 1;
    }
    if let Some(embryo) = follow(walk.skb, offset!(skb_sk)) {
        // SAFETY: a type without size and without invariants (a function item).
        let visit = unsafe { core::mem::zeroed::<F>() };
        visit(embryo);
    }
    match follow(walk.skb, offset!(skb_next)) {
        Some(next) => {
            walk.skb = next;
            0
        }
        None => 1,
    }
}

/// `bpf_loop`: calls `step` until it returns 1, at most `times` times.
#[inline(always)]
pub(crate) fn repeat<C>(times: u32, step: extern "C" fn(u64, *mut C) -> i64, context: &mut C) {
    // SAFETY: the callback takes an index and this context, as the helper calls it.
    unsafe {
        bpf_loop(times, step as *mut c_void, ptr::from_mut(context).cast(), 0);
    }
}
