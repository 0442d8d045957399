//! The trampoline backend for internet sockets: programs on entry and exit of what both families' operations lead
//! to. Sockets that the kernel makes for itself go through the same functions, and are left out.

use core::ptr;

use aya_ebpf::{
    Global,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use ucr_common::event::kind;

use super::trampolines::{identify, result_of, sock_of};
use crate::{
    kernel::{
        self, Pointer,
        inet::{asked_protocol, is_inet, is_tracked},
        offset, typed,
    },
    ledger::{Failure, NameAsked, inet},
    task::{self, Door, door},
};

/// How many parameters `inet_accept` has on this kernel.
#[unsafe(no_mangle)]
static INET_ACCEPT_PARAMETERS: Global<u64> = Global::new(0);

/// Whether it is one of those that are tracked.
#[inline(always)]
fn is_known(sk: Pointer) -> bool {
    let family = kernel::family_of(sk);
    is_inet(family) && is_tracked(sk, family as u16)
}

/// A call on the socket that is the first argument is over.
#[inline(always)]
fn called(
    ctx: &FExitContext,
    result: i32,
    kind: u32,
    done: fn(Pointer, i32) -> u32,
    argument: u32,
    name: NameAsked,
) {
    // SAFETY: the first argument is a `struct socket *`.
    let sk = unsafe { sock_of(ctx.arg(0)) };
    if !is_known(sk) {
        return;
    }
    if result == 0 || kind == kind::CONNECT && result == inet::IN_PROGRESS {
        done(sk, door().fd);
    } else if !task::RESTARTS.contains(&i64::from(result)) {
        let failure = Failure { kind, result, fd: door().fd, argument, socket_type: 0, name };
        inet::failed(sk, &failure);
    }
}

#[inline(always)]
fn create(ctx: &FExitContext, family: u16) {
    let by_kernel: i32 = ctx.arg(3);
    if by_kernel != 0 {
        return;
    }
    let socket: Pointer = ctx.arg(1);
    let result = result_of(ctx, 4);
    if result < 0 {
        // SAFETY: `socket` is a `struct socket *`.
        let socket_type: u16 = unsafe { typed(socket, offset!(socket_type)) };
        let protocol: i32 = ctx.arg(2);
        if let Some(protocol) = asked_protocol(socket_type.into(), protocol as u32) {
            inet::failed_to_create(result, family.into(), socket_type.into(), protocol);
        }
        return;
    }
    // SAFETY: as above.
    let sk = unsafe { sock_of(socket) };
    if sk.is_null() || !is_tracked(sk, family) {
        return;
    }
    // SAFETY: `sk` is a `struct sock *`.
    unsafe { identify(sk) };
    let gets_descriptor = matches!(door().call, Door::CREATE | Door::PAIR | Door::ANY);
    inet::created(sk, gets_descriptor.into());
}

/// `int inet_create(struct net *net, struct socket *sock, int protocol, int kern)`
#[fexit(function = "inet_create")]
fn inet_create(ctx: FExitContext) -> i32 {
    create(&ctx, 2);
    0
}

/// `int inet6_create(struct net *net, struct socket *sock, int protocol, int kern)`
#[fexit(function = "inet6_create")]
fn inet6_create(ctx: FExitContext) -> i32 {
    create(&ctx, 10);
    0
}

/// `int inet_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)`
#[fexit(function = "inet_bind")]
fn inet_bind(ctx: FExitContext) -> i32 {
    let name = NameAsked::kernel(ctx.arg(1), ctx.arg(2));
    called(&ctx, result_of(&ctx, 3), kind::BIND, inet::bound, 0, name);
    0
}

/// `int inet6_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)`
#[fexit(function = "inet6_bind")]
fn inet6_bind(ctx: FExitContext) -> i32 {
    let name = NameAsked::kernel(ctx.arg(1), ctx.arg(2));
    called(&ctx, result_of(&ctx, 3), kind::BIND, inet::bound, 0, name);
    0
}

/// `int inet_autobind(struct sock *sk)`: in `connect`, and where something is sent.
#[fexit(function = "inet_autobind")]
fn inet_autobind(ctx: FExitContext) -> i32 {
    let sk: Pointer = ctx.arg(0);
    if result_of(&ctx, 1) == 0 && is_known(sk) {
        inet::autobound(sk, door().fd);
    }
    0
}

/// `int inet_listen(struct socket *sock, int backlog)`
#[fexit(function = "inet_listen")]
fn inet_listen(ctx: FExitContext) -> i32 {
    let backlog: u32 = ctx.arg(1);
    called(&ctx, result_of(&ctx, 2), kind::LISTEN, inet::listening, backlog, NameAsked::NONE);
    0
}

/// `int inet_stream_connect(struct socket *sock, struct sockaddr *uaddr, int addr_len, int flags)`
#[fexit(function = "inet_stream_connect")]
fn inet_stream_connect(ctx: FExitContext) -> i32 {
    let name = NameAsked::kernel(ctx.arg(1), ctx.arg(2));
    called(&ctx, result_of(&ctx, 4), kind::CONNECT, inet::connected, 0, name);
    0
}

/// `int inet_dgram_connect(struct socket *sock, struct sockaddr *uaddr, int addr_len, int flags)`
#[fexit(function = "inet_dgram_connect")]
fn inet_dgram_connect(ctx: FExitContext) -> i32 {
    let name = NameAsked::kernel(ctx.arg(1), ctx.arg(2));
    called(&ctx, result_of(&ctx, 4), kind::CONNECT, inet::connected, 0, name);
    0
}

/// `int inet_accept(struct socket *sock, struct socket *newsock, int flags, bool kern)`, since 6.10
/// `int inet_accept(struct socket *sock, struct socket *newsock, struct proto_accept_arg *arg)`
#[fexit(function = "inet_accept")]
fn inet_accept(ctx: FExitContext) -> i32 {
    // SAFETY: aligned and in bounds; volatile, since the loader writes it.
    let parameters =
        unsafe { ptr::read_volatile(ptr::addr_of!(INET_ACCEPT_PARAMETERS).cast::<u64>()) };
    // As for `unix_accept`.
    let fourth = core::hint::black_box(result_of(&ctx, 3));
    let result = if parameters == 4 { result_of(&ctx, 4) } else { fourth };
    if result < 0 {
        called(&ctx, result, kind::ACCEPT, inet::listening, 0, NameAsked::NONE);
        return 0;
    }
    let accepted: Pointer = ctx.arg(1);
    // SAFETY: the arguments are `struct socket *`; what the kernel accepts for itself has no file.
    let (listener, sk, file) = unsafe {
        (sock_of(ctx.arg(0)), sock_of(accepted), typed::<Pointer>(accepted, offset!(socket_file)))
    };
    if sk.is_null() || file.is_null() || !is_known(sk) {
        return 0;
    }
    // SAFETY: `sk` is a `struct sock *`.
    unsafe { identify(sk) };
    inet::take_up(sk, listener);
    if !matches!(door().call, Door::ACCEPT | Door::ANY) {
        crate::ledger::announce(sk, -1, -1);
    }
    0
}

/// `int inet_shutdown(struct socket *sock, int how)`
#[fexit(function = "inet_shutdown")]
fn inet_shutdown(ctx: FExitContext) -> i32 {
    let how: u32 = ctx.arg(1);
    called(&ctx, result_of(&ctx, 2), kind::SHUTDOWN, inet::shut_down, how, NameAsked::NONE);
    0
}

/// `int inet_release(struct socket *sock)`: of either family.
#[fentry(function = "inet_release")]
fn inet_release(ctx: FEntryContext) -> i32 {
    // SAFETY: the argument is a `struct socket *`.
    let sk = unsafe { sock_of(ctx.arg(0)) };
    if !sk.is_null() && is_known(sk) {
        inet::closed(sk, -1);
    }
    0
}

/// `void inet_sock_destruct(struct sock *sk)`: the net below: a record that is still there was missed.
#[fentry(function = "inet_sock_destruct")]
fn inet_sock_destruct(ctx: FEntryContext) -> i32 {
    crate::ledger::destroyed(ctx.arg(0));
    0
}
