//! Descriptors that go from process to process in messages (`SCM_RIGHTS`), seen by trampolines. Only
//! those of unix sockets are reported.
//!
//! What they cannot see: the number that the receiver gets, and from which socket io_uring has read.

use aya_ebpf::{
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use ucr_common::event::kind;

use crate::{
    kernel::{self, Pointer, follow, offset, probed, repeat},
    ledger,
    task::{Door, door},
};

/// `SCM_MAX_FD` (`include/net/scm.h`).
const FILES_MAX: u32 = 253;

/// `void unix_add_edges(struct scm_fp_list *fpl, struct unix_sock *receiver)`: the message is in the
/// receiver's queue now.
#[fentry(function = "unix_add_edges")]
fn unix_add_edges(ctx: FEntryContext) -> i32 {
    // A `struct unix_sock` begins with its `struct sock`.
    pass_all(ctx.arg(0), ctx.arg(1));
    0
}

/// `int __scm_send(struct socket *sock, struct msghdr *msg, struct scm_cookie *p)`: in place of the one
/// above on kernels without it. The message has yet to be queued: at the peer, or, if it goes to an
/// address, nobody knows yet where.
#[fexit(function = "__scm_send")]
fn scm_send(ctx: FExitContext) -> i32 {
    let result: i32 = ctx.arg(3);
    if result != 0 {
        return 0;
    }
    let Some(sender) = follow(ctx.arg(0), offset!(socket_sk)) else { return 0 };
    if probed::<u16>(sender, offset!(sk_family)) == Some(kernel::AF_UNIX) {
        if let Some(files) = follow(ctx.arg(2), offset!(scm_fp)) {
            let has_address = probed::<u32>(ctx.arg(1), offset!(msg_namelen)) != Some(0);
            let receiver = kernel::peer_of(sender).filter(|_| !has_address);
            pass_all(files, receiver.unwrap_or(core::ptr::null()));
        }
    }
    0
}

/// The files of one message.
#[repr(C)]
struct Files {
    list: Pointer,
    count: u64,
    receiver: Pointer,
    fd: i32,
    reserved: u32,
}

#[inline(always)]
fn pass_all(list: Pointer, receiver: Pointer) {
    let count = probed::<u16>(list, offset!(fp_count)).unwrap_or(0).into();
    let Door { call, fd } = door();
    let fd = if call == Door::SEND { fd } else { -1 };
    let mut files = Files { list, count, receiver, fd, reserved: 0 };
    repeat(FILES_MAX, pass_one, &mut files);
}

extern "C" fn pass_one(index: u64, files: *mut Files) -> i64 {
    // SAFETY: the context that `pass_all` hands over, on its stack.
    let files = unsafe { &*files };
    if index >= files.count {
        return 1;
    }
    // Masked, since verifiers before 6.3 do not see that it is bounded.
    let at = offset!(fp_files) + (index & 0xff) * 8;
    let Some(file) = follow(files.list, at) else { return 0 };
    if let Some(sk) = kernel::unix_sock_of(file) {
        ledger::handed(sk, files.receiver, kind::PASS, files.fd);
    }
    0
}

/// `int security_file_receive(struct file *file)`: a process is given a file that came in a message, or
/// that it takes out of another process (`pidfd_getfd`).
#[fentry(function = "security_file_receive")]
fn security_file_receive(ctx: FEntryContext) -> i32 {
    let Some(sk) = kernel::unix_sock_of(ctx.arg(0)) else { return 0 };
    let Door { call, fd } = door();
    let (carrier, fd) = match call {
        Door::RECEIVE => (kernel::unix_sock_at(fd as u32), fd),
        _ => (None, -1),
    };
    ledger::handed(sk, carrier.unwrap_or(core::ptr::null()), kind::TAKE, fd);
    0
}
