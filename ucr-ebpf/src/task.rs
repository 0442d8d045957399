//! Who the current task is, and through which door its system call came.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
    bpf_get_current_uid_gid,
};
use ucr_common::identity::Actor;

use crate::kernel::{current_task, offset, typed};

/// `TS_COMPAT` (`arch/x86/include/asm/thread_info.h`): a system call by the 32-bit entry.
const TS_COMPAT: u32 = 2;

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
