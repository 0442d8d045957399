//! The trampoline backend for unix sockets: programs on entry and exit of the unix family's own functions.
//!
//! They see what happens to a socket, through whatever door the order came: system calls of either
//! width, io_uring, the kernel itself. What they cannot see: calls that fail before they reach
//! the family (no such descriptor, no room in the descriptor table, an address that cannot be read), and
//! which descriptor a socket was closed under.

use core::ptr;

use aya_ebpf::{
    Global,
    helpers::bpf_get_socket_cookie,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use ucr_common::event::kind;

use super::syscalls::has_no_name;
use crate::{
    kernel::{self, Known, Pointer, offset, typed},
    ledger::{self, Failure, NameAsked},
    task::{self, Door, door},
};

/// The sock of a `struct socket *` argument, typed.
///
/// # Safety
/// `socket` must be typed (see [`typed`]).
#[inline(always)]
pub(super) unsafe fn sock_of(socket: Pointer) -> Pointer {
    // SAFETY: a `struct socket *`.
    unsafe { typed(socket, offset!(socket_sk)) }
}

/// Sees to it that a sock has a cookie.
///
/// # Safety
/// `sk` must be typed (see [`typed`]) and not null.
#[inline(always)]
pub(super) unsafe fn identify(sk: Pointer) {
    // SAFETY: a `struct sock *`.
    unsafe { bpf_get_socket_cookie(sk.cast_mut()) };
}

/// What the function returned, which stands behind its arguments. (`bpf_get_func_ret` would find it by
/// itself, but verifiers before 6.8 can take its two results for one, and then remove the branch for
/// errors as dead.)
#[inline(always)]
pub(super) fn result_of(ctx: &FExitContext, parameters: usize) -> i32 {
    ctx.arg(parameters)
}

/// How many parameters `unix_accept` has on this kernel.
#[unsafe(no_mangle)]
static ACCEPT_PARAMETERS: Global<u64> = Global::new(0);

/// Reports a call on a socket that failed.
#[inline(always)]
fn failed(kind: u32, result: i32, sk: Pointer, argument: u32, name: NameAsked) {
    if task::RESTARTS.contains(&i64::from(result)) {
        return;
    }
    let failure = Failure { kind, result, fd: door().fd, argument, socket_type: 0, name };
    ledger::failed(sk, &failure);
}

/// `int unix_create(struct net *net, struct socket *sock, int protocol, int kern)`
#[fexit(function = "unix_create")]
fn unix_create(ctx: FExitContext) -> i32 {
    let socket: Pointer = ctx.arg(1);
    let result = result_of(&ctx, 4);
    if result < 0 {
        // SAFETY: `socket` is a `struct socket *`.
        let socket_type: u16 = unsafe { typed(socket, offset!(socket_type)) };
        let kind = if door().call == Door::PAIR { kind::SOCKETPAIR } else { kind::SOCKET };
        let socket_type = socket_type.into();
        let name = NameAsked::NONE;
        let failure = Failure { kind, result, fd: -1, argument: 0, socket_type, name };
        ledger::failed(ptr::null(), &failure);
        return 0;
    }
    // SAFETY: `socket` is a `struct socket *`.
    let sk = unsafe { sock_of(socket) };
    if sk.is_null() {
        return 0;
    }
    // SAFETY: `sk` is a `struct sock *`.
    unsafe { identify(sk) };
    let gets_descriptor = matches!(door().call, Door::CREATE | Door::PAIR | Door::ANY);
    ledger::created(sk, gets_descriptor.into());
    0
}

/// `void fd_install(unsigned int fd, struct file *file)`: a new socket, or an accepted one, comes into
/// the hands of the process.
#[fentry(function = "fd_install")]
fn fd_install(ctx: FEntryContext) -> i32 {
    /// `S_IFMT` and `S_IFSOCK` (`include/uapi/linux/stat.h`).
    const TYPE: u16 = 0o170_000;
    const SOCKET: u16 = 0o140_000;
    let file: Pointer = ctx.arg(1);
    // SAFETY: `file` is a `struct file *`.
    let inode: Pointer = unsafe { typed(file, offset!(file_inode)) };
    if inode.is_null() {
        return 0;
    }
    // SAFETY: `inode` is a `struct inode *`.
    let mode: u16 = unsafe { typed(inode, offset!(inode_mode)) };
    if mode & TYPE == SOCKET {
        if let Some(Known { sk, .. }) = kernel::known_sock_of(file) {
            let Door { call, fd } = door();
            ledger::announce(sk, ctx.arg(0), if call == Door::ACCEPT { fd } else { -1 });
        }
    }
    0
}

/// `int unix_socketpair(struct socket *socka, struct socket *sockb)`. The descriptors are in the
/// caller's array already.
#[fexit(function = "unix_socketpair")]
fn unix_socketpair(ctx: FExitContext) -> i32 {
    if result_of(&ctx, 2) != 0 {
        return 0;
    }
    // SAFETY: the arguments are `struct socket *`.
    let (a, b) = unsafe { (sock_of(ctx.arg(0)), sock_of(ctx.arg(1))) };
    let [fd_a, fd_b] = task::pair_descriptors().unwrap_or([-1, -1]);
    if ledger::paired_up(a, b, fd_a, fd_b) == 0 {
        ledger::socketpair(a, b, fd_a, fd_b);
    }
    0
}

/// `int unix_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)`
#[fexit(function = "unix_bind")]
fn unix_bind(ctx: FExitContext) -> i32 {
    // SAFETY: the first argument is a `struct socket *`.
    let sk = unsafe { sock_of(ctx.arg(0)) };
    match result_of(&ctx, 3) {
        0 if has_no_name(ctx.arg(2)) => {
            ledger::autobound(sk, door().fd);
        }
        0 => {
            ledger::bound(sk, door().fd);
        }
        errno => failed(kind::BIND, errno, sk, 0, NameAsked::kernel(ctx.arg(1), ctx.arg(2))),
    }
    0
}

/// `int unix_autobind(struct sock *sk)`: also in `connect` and in sending, where the socket asks for
/// credentials.
#[fexit(function = "unix_autobind")]
fn unix_autobind(ctx: FExitContext) -> i32 {
    if result_of(&ctx, 1) == 0 {
        ledger::autobound(ctx.arg(0), door().fd);
    }
    0
}

/// `int unix_listen(struct socket *sock, int backlog)`
#[fexit(function = "unix_listen")]
fn unix_listen(ctx: FExitContext) -> i32 {
    // SAFETY: the first argument is a `struct socket *`.
    let sk = unsafe { sock_of(ctx.arg(0)) };
    match result_of(&ctx, 2) {
        0 => {
            ledger::listening(sk, door().fd);
        }
        errno => failed(kind::LISTEN, errno, sk, ctx.arg(1), NameAsked::NONE),
    }
    0
}

/// `int security_unix_stream_connect(struct sock *sock, struct sock *other, struct sock *newsk)`: called
/// when nothing can fail any more but this, and before the new sock is in the listener's queue. So
/// nobody can accept what we have not recorded.
#[fexit(function = "security_unix_stream_connect")]
fn security_unix_stream_connect(ctx: FExitContext) -> i32 {
    if result_of(&ctx, 3) != 0 {
        return 0;
    }
    let embryo: Pointer = ctx.arg(2);
    // SAFETY: `embryo` is a `struct sock *`.
    unsafe { identify(embryo) };
    ledger::pairing(ctx.arg(0), ctx.arg(1), embryo, door().fd);
    0
}

/// `int unix_stream_connect(struct socket *sock, struct sockaddr *uaddr, int addr_len, int flags)`
#[fexit(function = "unix_stream_connect")]
fn unix_stream_connect(ctx: FExitContext) -> i32 {
    // SAFETY: the first argument is a `struct socket *`.
    let sk = unsafe { sock_of(ctx.arg(0)) };
    match result_of(&ctx, 4) {
        0 => ledger::paired(sk),
        errno => failed(kind::CONNECT, errno, sk, 0, NameAsked::kernel(ctx.arg(1), ctx.arg(2))),
    }
    0
}

/// `int unix_dgram_connect(struct socket *sock, struct sockaddr *addr, int alen, int flags)`
#[fexit(function = "unix_dgram_connect")]
fn unix_dgram_connect(ctx: FExitContext) -> i32 {
    // SAFETY: the first argument is a `struct socket *`.
    let sk = unsafe { sock_of(ctx.arg(0)) };
    match result_of(&ctx, 4) {
        0 => {
            ledger::connected(sk, door().fd);
        }
        errno => failed(kind::CONNECT, errno, sk, 0, NameAsked::kernel(ctx.arg(1), ctx.arg(2))),
    }
    0
}

/// `void unix_dgram_disconnected(struct sock *sk, struct sock *other)`: in `connect` to another peer
/// or to none, and when a send finds that the peer has gone.
#[fexit(function = "unix_dgram_disconnected")]
fn unix_dgram_disconnected(ctx: FExitContext) -> i32 {
    ledger::former(ctx.arg(1));
    if door().call != Door::CONNECT {
        ledger::disconnected(ctx.arg(0), ctx.arg(1));
    }
    0
}

/// `int unix_dgram_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)`: in place of the one
/// above where that cannot be attached to. It is called for each datagram.
#[fexit(function = "unix_dgram_sendmsg")]
fn unix_dgram_sendmsg(ctx: FExitContext) -> i32 {
    /// `ECONNREFUSED`
    const REFUSED: i32 = -111;
    if result_of(&ctx, 3) == REFUSED {
        // SAFETY: the first argument is a `struct socket *`.
        let sk = unsafe { sock_of(ctx.arg(0)) };
        ledger::disconnected(sk, ptr::null());
    }
    0
}

/// `int unix_accept(struct socket *sock, struct socket *newsock, int flags, bool kern)`, since 6.10
/// `int unix_accept(struct socket *sock, struct socket *newsock, struct proto_accept_arg *arg)`: the
/// result has another place.
#[fexit(function = "unix_accept")]
fn unix_accept(ctx: FExitContext) -> i32 {
    // SAFETY: the arguments are `struct socket *`.
    let (listener, sk) = unsafe { (sock_of(ctx.arg(0)), sock_of(ctx.arg(1))) };
    // SAFETY: aligned and in bounds; volatile, since the loader writes it.
    let parameters = unsafe { ptr::read_volatile(ptr::addr_of!(ACCEPT_PARAMETERS).cast::<u64>()) };
    // Either the result or the last argument: there on every kernel. (Two branches LLVM would make one, with
    // a place that the verifier does not know.)
    let fourth = core::hint::black_box(result_of(&ctx, 3));
    let result = if parameters == 4 { result_of(&ctx, 4) } else { fourth };
    if result < 0 {
        failed(kind::ACCEPT, result, listener, 0, NameAsked::NONE);
    } else if !sk.is_null() {
        // SAFETY: `sk` is a `struct sock *`.
        unsafe { identify(sk) };
        ledger::take_up(sk, listener);
        if !matches!(door().call, Door::ACCEPT | Door::ANY) {
            ledger::announce(sk, -1, -1);
        }
    }
    0
}

/// `int unix_shutdown(struct socket *sock, int mode)`
#[fexit(function = "unix_shutdown")]
fn unix_shutdown(ctx: FExitContext) -> i32 {
    // SAFETY: the first argument is a `struct socket *`.
    let sk = unsafe { sock_of(ctx.arg(0)) };
    match result_of(&ctx, 2) {
        0 => {
            ledger::shut_down(sk, door().fd);
        }
        errno => failed(kind::SHUTDOWN, errno, sk, ctx.arg(1), NameAsked::NONE),
    }
    0
}

/// `void unix_release_sock(struct sock *sk, int embrion)`: also for each connection in the queue of a
/// listener that closes.
#[fentry(function = "unix_release_sock")]
fn unix_release_sock(ctx: FEntryContext) -> i32 {
    ledger::released(ctx.arg(0), ctx.arg(1));
    0
}

/// `int unix_release(struct socket *sock)`: in place of the one above where that cannot be attached
/// to. A connection that comes into the queue after this is found when its memory is freed.
#[fentry(function = "unix_release")]
fn unix_release(ctx: FEntryContext) -> i32 {
    // SAFETY: the argument is a `struct socket *`.
    let sk = unsafe { sock_of(ctx.arg(0)) };
    if !sk.is_null() {
        ledger::closed(sk, -1);
    }
    0
}

/// `void unix_sock_destructor(struct sock *sk)`: the net below: a record that is still there was missed.
#[fentry(function = "unix_sock_destructor")]
fn unix_sock_destructor(ctx: FEntryContext) -> i32 {
    ledger::destroyed(ctx.arg(0));
    0
}
