//! Empty programs, one of each type that a backend could be made of. `ucr features` loads and
//! attaches each for a moment to see whether this kernel lets it.

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, fexit, lsm},
    programs::{BtfTracePointContext, FEntryContext, FExitContext, LsmContext},
};

/// `void sched_process_exit(struct task_struct *p[, bool group_dead])`
#[btf_tracepoint(function = "sched_process_exit")]
fn probe_tp_btf(_ctx: BtfTracePointContext) -> i32 {
    0
}

/// `int unix_release(struct socket *sock)`: its address is taken, so it is never inlined.
#[fentry(function = "unix_release")]
fn probe_fentry(_ctx: FEntryContext) -> i32 {
    0
}

/// `int unix_release(struct socket *sock)`
#[fexit(function = "unix_release")]
fn probe_fexit(_ctx: FExitContext) -> i32 {
    0
}

/// `int unix_stream_connect(struct sock *sock, struct sock *other, struct sock *newsk)`
#[lsm(hook = "unix_stream_connect")]
fn probe_lsm(ctx: LsmContext) -> i32 {
    // What the programs before this one decided.
    ctx.arg(3)
}
