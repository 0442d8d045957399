//! Where the kernel announces what becomes of a TCP socket: for all backends.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::ledger::inet;

/// `void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`: before the state is
/// written, and often in the middle of what somebody else does.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    inet::state_changes(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}
