//! The tracepoint backend's system call hooks, for kernels that refuse trampolines.
//!
//! They fire for every system call of the machine, so the first thing they do is to leave.
//! What they cannot see: operations of io_uring, sockets that the kernel makes itself, calls by
//! the 32-bit entry (counted), a name given by autobind outside `connect`, and the last close of
//! a file that something else still referred to when its last descriptor was closed.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::{debug, warn};
use ucr_common::{control::counter, event::kind};

use super::numbers::{i386, x86_64 as nr};
use crate::{
    kernel::{self, AF_UNIX, Known, Pointer, offset, typed},
    ledger::{self, Failure, NameAsked, inet},
    maps::count,
    task,
};

/// The table is copied first: if others share it, they keep theirs.
const CLOSE_RANGE_UNSHARE: u64 = 2;
/// The only flag of `dup3`.
const O_CLOEXEC: u32 = 0o2_000_000;
/// `SOCK_TYPE_MASK` (`include/linux/net.h`).
const SOCK_TYPE_MASK: u64 = 0xf;

/// `void sys_enter(struct pt_regs *regs, long id)`: only for what closes descriptors, as long as
/// they still lead somewhere.
#[btf_tracepoint(function = "sys_enter")]
fn sys_enter(ctx: BtfTracePointContext) -> i32 {
    let id: u64 = ctx.arg(1);
    match id {
        nr::CLOSE | nr::DUP2 | nr::DUP3 | nr::CLOSE_RANGE => {}
        _ => return 0,
    }
    if task::is_compat() {
        return 0;
    }
    let regs: Pointer = ctx.arg(0);
    // SAFETY: `regs` is a `struct pt_regs *`.
    let first: u64 = unsafe { typed(regs, offset!(regs_arg0)) };
    // SAFETY: as above.
    let second: u64 = unsafe { typed(regs, offset!(regs_arg1)) };
    // SAFETY: as above.
    let third: u64 = unsafe { typed(regs, offset!(regs_arg2)) };
    match id {
        nr::CLOSE => close(first as u32),
        nr::CLOSE_RANGE if range_closes(third) => {
            super::tasks::close_between(first as u32, second as u32);
        }
        nr::CLOSE_RANGE => {}
        nr::DUP3 if third as u32 & !O_CLOEXEC != 0 => {}
        _ => replace(first as u32, second as u32),
    }
    0
}

/// Whether a `close_range` with these flags lets go of anything: an unknown one makes it fail.
#[inline(always)]
fn range_closes(flags: u64) -> bool {
    let flags = flags & 0xffff_ffff;
    // SAFETY: the current task is typed.
    let shared = unsafe { kernel::table_users(kernel::current_task()) } > 1;
    flags == 0 || flags == CLOSE_RANGE_UNSHARE && !shared
}

/// `dup2`, `dup3`: what stands at the new number is closed, unless the call fails because the old one
/// leads nowhere, both are one, or the new one is beyond the limit.
#[inline(always)]
fn replace(old: u32, new: u32) {
    if old != new && u64::from(new) < kernel::descriptor_limit() && kernel::file_of(old).is_some() {
        close(new);
    }
}

#[inline(always)]
fn close(fd: u32) {
    let Some(file) = kernel::file_of(fd) else { return };
    if kernel::references_of(file) == 1 {
        if let Some(known) = kernel::known_sock_of(file) {
            ledger::ended(known, fd as i32);
        }
    }
}

/// `void sys_exit(struct pt_regs *regs, long ret)`: for all else. The registers still hold the
/// arguments.
#[btf_tracepoint(function = "sys_exit")]
fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    let regs: Pointer = ctx.arg(0);
    // SAFETY: `regs` is a `struct pt_regs *`.
    let id = task::number_in(unsafe { typed(regs, offset!(regs_nr)) });
    match id {
        nr::SOCKET..=nr::ACCEPT | nr::SHUTDOWN..=nr::LISTEN | nr::SOCKETPAIR | nr::ACCEPT4 => {}
        // The same numbers mean other calls there: `getuid`, and none at all.
        i386::SOCKETCALL | i386::SOCKET..=i386::ACCEPT4 | i386::SHUTDOWN => {
            if task::is_compat() {
                count(counter::COMPAT);
            }
            return 0;
        }
        _ => return 0,
    }
    let result: i64 = ctx.arg(1);
    if task::RESTARTS.contains(&result) {
        return 0;
    }
    if task::is_compat() {
        return 0;
    }
    let call = Call::read(regs, result);
    debug!(&ctx, "system call {} on {} returned {}", id, call.args[0], result);
    match id {
        nr::SOCKET => socket(&call),
        nr::SOCKETPAIR => socketpair(&call),
        nr::BIND => call.on_socket(kind::BIND, ledger::bound, inet::bound),
        nr::LISTEN => call.on_socket(kind::LISTEN, ledger::listening, inet::listening),
        nr::CONNECT => call.on_socket(kind::CONNECT, ledger::connected, inet::connected),
        nr::SHUTDOWN => call.on_socket(kind::SHUTDOWN, ledger::shut_down, inet::shut_down),
        _ => accept(&ctx, &call),
    }
    0
}

/// Whether `bind` was given nothing but the family: then the kernel chooses a name, if there is none.
#[inline(always)]
pub(super) fn has_no_name(length: u32) -> bool {
    u64::from(length) == offset!(sun_path)
}

/// A finished system call.
struct Call {
    args: [u64; 4],
    result: i64,
}

impl Call {
    #[inline(always)]
    fn read(regs: Pointer, result: i64) -> Self {
        // SAFETY: `regs` is a `struct pt_regs *`.
        let arg0 = unsafe { typed(regs, offset!(regs_arg0)) };
        // SAFETY: as above.
        let arg1 = unsafe { typed(regs, offset!(regs_arg1)) };
        // SAFETY: as above.
        let arg2 = unsafe { typed(regs, offset!(regs_arg2)) };
        // SAFETY: as above.
        let arg3 = unsafe { typed(regs, offset!(regs_arg3)) };
        Self { args: [arg0, arg1, arg2, arg3], result }
    }

    /// The descriptor that most of them take first.
    #[inline(always)]
    fn fd(&self) -> i32 {
        self.args[0] as i32
    }

    /// A call on one socket that returns 0.
    #[inline(always)]
    fn on_socket(
        &self,
        kind: u32,
        done: fn(Pointer, i32) -> u32,
        done_inet: fn(Pointer, i32) -> u32,
    ) {
        let Some(Known { sk, is_unix }) = kernel::known_sock_at(self.fd() as u32) else { return };
        let is_under_way =
            !is_unix && kind == kind::CONNECT && self.result == i64::from(inet::IN_PROGRESS);
        if self.result == 0 || is_under_way {
            if !is_unix {
                done_inet(sk, self.fd());
            } else if kind == kind::BIND && has_no_name(self.args[2] as u32) {
                ledger::autobound(sk, self.fd());
            } else {
                done(sk, self.fd());
            }
            return;
        }
        let name = match kind {
            kind::BIND | kind::CONNECT => NameAsked::user(self.args[1], self.args[2]),
            _ => NameAsked::NONE,
        };
        let argument = match kind {
            kind::LISTEN | kind::SHUTDOWN => self.args[1] as u32,
            _ => 0,
        };
        let failure = Failure { argument, name, ..self.failure(kind, self.fd()) };
        if is_unix {
            ledger::failed(sk, &failure);
        } else {
            inet::failed(sk, &failure);
        }
    }

    /// `socket` and `socketpair` that failed have no descriptor to go by, only the family.
    #[inline(always)]
    fn failed_to_create(&self, kind: u32) {
        let socket_type = (self.args[1] & SOCK_TYPE_MASK) as u32;
        ledger::failed(core::ptr::null(), &Failure { socket_type, ..self.failure(kind, -1) });
    }

    #[inline(always)]
    fn failure(&self, kind: u32, fd: i32) -> Failure {
        let result = self.result as i32;
        Failure { kind, result, fd, argument: 0, socket_type: 0, name: NameAsked::NONE }
    }

    #[inline(always)]
    fn is_unix(&self) -> bool {
        self.args[0] as u32 == u32::from(AF_UNIX)
    }
}

/// `int socket(int domain, int type, int protocol)`
#[inline(always)]
fn socket(call: &Call) {
    if !call.is_unix() {
        return inet_socket(call);
    }
    if call.result < 0 {
        call.failed_to_create(kind::SOCKET);
    } else if let Some(sk) = kernel::unix_sock_at(call.result as u32) {
        ledger::socket(sk, call.result as i32);
    }
}

/// The same for other families.
#[inline(always)]
fn inet_socket(call: &Call) {
    let family = call.args[0] as u32;
    if !kernel::inet::is_inet(family) {
        return;
    }
    if call.result >= 0 {
        if let Some(Known { sk, is_unix: false }) = kernel::known_sock_at(call.result as u32) {
            inet::socket(sk, call.result as i32);
        }
        return;
    }
    let socket_type = (call.args[1] & SOCK_TYPE_MASK) as u32;
    if let Some(protocol) = kernel::inet::asked_protocol(socket_type, call.args[2] as u32) {
        inet::failed_to_create(call.result as i32, family, socket_type, protocol);
    }
}

/// `int socketpair(int domain, int type, int protocol, int sv[2])`
#[inline(always)]
fn socketpair(call: &Call) {
    if !call.is_unix() {
        return;
    }
    if call.result < 0 {
        return call.failed_to_create(kind::SOCKETPAIR);
    }
    let Some([a, b]) = kernel::read_user_pair(call.args[3]) else { return };
    if let (Some(end), Some(other)) =
        (kernel::unix_sock_at(a as u32), kernel::unix_sock_at(b as u32))
    {
        ledger::socketpair(end, other, a, b);
    }
}

/// `int accept4(int fd, struct sockaddr *addr, int *addrlen, int flags)`
#[inline(always)]
fn accept(ctx: &BtfTracePointContext, call: &Call) {
    let listener = kernel::known_sock_at(call.fd() as u32);
    if call.result < 0 {
        if let Some(Known { sk, is_unix }) = listener {
            let failure = call.failure(kind::ACCEPT, call.fd());
            if is_unix {
                ledger::failed(sk, &failure);
            } else {
                inet::failed(sk, &failure);
            }
        }
        return;
    }
    if let Some(Known { sk, is_unix }) = kernel::known_sock_at(call.result as u32) {
        if listener.is_none() {
            warn!(ctx, "accept on {}: the listener was closed meanwhile", call.fd());
        }
        let listener = listener.map_or(core::ptr::null(), |listener| listener.sk);
        if is_unix {
            ledger::accepted(sk, listener, call.result as i32, call.fd());
        } else {
            inet::accepted(sk, listener, call.result as i32, call.fd());
        }
    }
}
