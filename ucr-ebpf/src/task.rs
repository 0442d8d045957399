//! Who the current task is, and through which door its order came.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
    bpf_get_current_uid_gid, bpf_task_pt_regs,
};
use ucr_common::identity::Actor;

use crate::{
    hooks::numbers::{i386, x86_64 as nr},
    kernel::{Pointer, current_task, offset, read_user_pair, typed},
};

/// `TS_COMPAT` (`arch/x86/include/asm/thread_info.h`): a system call by the 32-bit entry.
const TS_COMPAT: u32 = 2;
/// `PF_IO_WORKER` and `PF_KTHREAD` (`include/linux/sched.h`): no system call brought us here.
const NO_CALLER: u32 = 0x0000_0010 | 0x0020_0000;

/// `-ENOSYS`: what stands where the result will be as long as a system call runs.
const RUNNING: i32 = -38;

/// `ERESTARTSYS` … `ERESTART_RESTARTBLOCK`: the call will be made again, it has not failed.
pub(crate) const RESTARTS: core::ops::RangeInclusive<i64> = -516..=-512;

/// Fills in the current task.
#[inline(always)]
pub(crate) fn fill(actor: &mut Actor) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let uid_gid = bpf_get_current_uid_gid();
    actor.pid = (pid_tgid >> 32) as u32;
    actor.tid = pid_tgid as u32;
    actor.uid = uid_gid as u32;
    actor.gid = (uid_gid >> 32) as u32;
    // SAFETY: the helper has no conditions.
    actor.cgroup = unsafe { bpf_get_current_cgroup_id() };
    actor.comm = bpf_get_current_comm().unwrap_or_default();
}

/// Whether the current system call came through the 32-bit entry, where numbers and arguments
/// mean something else.
#[inline(always)]
pub(crate) fn is_compat() -> bool {
    // SAFETY: the current task is typed.
    let status: u32 = unsafe { typed(current_task(), offset!(task_status)) };
    status & TS_COMPAT != 0
}

/// The system call that the current task is in, as far as it matters.
pub(crate) struct Door {
    /// One of the constants below.
    pub(crate) call: u32,
    /// The descriptor that it names; -1 if none.
    pub(crate) fd: i32,
}

impl Door {
    /// None, or one that gives no descriptor: io_uring, a worker of the kernel.
    pub(crate) const OTHER: u32 = 0;
    /// `socket`.
    pub(crate) const CREATE: u32 = 1;
    /// `socketpair`.
    pub(crate) const PAIR: u32 = 2;
    /// `accept`, `accept4`.
    pub(crate) const ACCEPT: u32 = 3;
    /// `connect`.
    pub(crate) const CONNECT: u32 = 4;
    /// `bind`, `listen`, `shutdown`.
    pub(crate) const NAMED: u32 = 5;
    /// `sendto`, `sendmsg`, `sendmmsg`.
    pub(crate) const SEND: u32 = 6;
    /// `recvmsg`, `recvmmsg`.
    pub(crate) const RECEIVE: u32 = 7;
    /// `socketcall` of the 32-bit entry: any of them, with its arguments out of sight.
    pub(crate) const ANY: u32 = 8;
}

/// The number of a system call in its register: the kernel looks at the lower half only.
#[inline(always)]
pub(crate) fn number_in(register: u64) -> u64 {
    register & 0xffff_ffff
}

/// Registers with which the current task entered the kernel, typed.
#[inline(always)]
fn registers() -> Pointer {
    // SAFETY: the helper takes the current task, and returns its `struct pt_regs *`.
    unsafe { bpf_task_pt_regs(current_task().cast_mut().cast()) as Pointer }
}

/// Finds out.
#[inline(always)]
pub(crate) fn door() -> Door {
    // SAFETY: the current task is typed.
    let flags: u32 = unsafe { typed(current_task(), offset!(task_flags)) };
    if flags & NO_CALLER != 0 {
        return Door { call: Door::OTHER, fd: -1 };
    }
    let regs = registers();
    // SAFETY: `regs` is a `struct pt_regs *`.
    let returns: u64 = unsafe { typed(regs, offset!(regs_ax)) };
    if returns as i32 != RUNNING {
        // It is over: this is work that was put off until the task goes back to its program.
        return Door { call: Door::OTHER, fd: -1 };
    }
    // SAFETY: as above.
    let number = number_in(unsafe { typed(regs, offset!(regs_nr)) });
    let (call, first): (u32, u64) = if is_compat() {
        // SAFETY: as above.
        (call_of_i386(number), unsafe { typed(regs, offset!(regs_compat0)) })
    } else {
        // SAFETY: as above.
        (call_of(number), unsafe { typed(regs, offset!(regs_arg0)) })
    };
    let names_one = !matches!(call, Door::OTHER | Door::CREATE | Door::PAIR | Door::ANY);
    Door { call, fd: if names_one { first as i32 } else { -1 } }
}

#[inline(always)]
fn call_of(number: u64) -> u32 {
    match number {
        nr::SOCKET => Door::CREATE,
        nr::SOCKETPAIR => Door::PAIR,
        nr::ACCEPT | nr::ACCEPT4 => Door::ACCEPT,
        nr::CONNECT => Door::CONNECT,
        nr::BIND | nr::LISTEN | nr::SHUTDOWN => Door::NAMED,
        nr::SENDTO | nr::SENDMSG | nr::SENDMMSG => Door::SEND,
        nr::RECVMSG | nr::RECVMMSG => Door::RECEIVE,
        _ => Door::OTHER,
    }
}

#[inline(always)]
fn call_of_i386(number: u64) -> u32 {
    match number {
        i386::SOCKET => Door::CREATE,
        i386::SOCKETPAIR => Door::PAIR,
        i386::ACCEPT4 => Door::ACCEPT,
        i386::CONNECT => Door::CONNECT,
        i386::BIND | i386::LISTEN | i386::SHUTDOWN => Door::NAMED,
        i386::SENDTO | i386::SENDMSG | i386::SENDMMSG => Door::SEND,
        i386::RECVMSG | i386::RECVMMSG | i386::RECVMMSG_TIME64 => Door::RECEIVE,
        i386::SOCKETCALL => Door::ANY,
        _ => Door::OTHER,
    }
}

/// What the running `socketpair(2)` has written into its caller's array.
#[inline(always)]
pub(crate) fn pair_descriptors() -> Option<[i32; 2]> {
    if door().call != Door::PAIR || is_compat() {
        return None;
    }
    // SAFETY: `registers` are a `struct pt_regs *`.
    read_user_pair(unsafe { typed(registers(), offset!(regs_arg3)) })
}
