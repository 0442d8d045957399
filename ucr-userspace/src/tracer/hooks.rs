//! The hooks of each backend as a table: which program hangs where, what happens where it cannot,
//! and what nobody sees.

use std::collections::BTreeSet;

use clap::builder::PossibleValuesParser;
use serde::Serialize;
use ucr_common::control::backend;

/// How the ledger is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// `fentry` and `fexit` programs on the families' own functions: sees everything
    Trampoline,
    /// `tp_btf` programs on system calls and task ends: for kernels that refuse trampolines
    Tracepoint,
    /// No programs: iterators and sock_diag only, no history
    Snapshot,
}

impl Backend {
    /// All of them, the best first.
    pub const ALL: [Self; 3] = [Self::Trampoline, Self::Tracepoint, Self::Snapshot];

    /// Its name in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trampoline => "trampoline",
            Self::Tracepoint => "tracepoint",
            Self::Snapshot => "snapshot",
        }
    }

    /// Its programs. Ends come before beginnings: a socket whose birth is seen shall not be missed
    /// when it dies.
    #[must_use]
    pub fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Trampoline => TRAMPOLINE,
            Self::Tracepoint => TRACEPOINT,
            Self::Snapshot => &[],
        }
    }

    /// What it cannot see. Shown by `ucr features` and `ucr status`.
    #[must_use]
    pub fn blind_spots(self) -> &'static [&'static str] {
        match self {
            Self::Trampoline => &[
                "calls that fail before they reach the family (EBADF, EFAULT, EMFILE, ENOTSOCK)",
                "the descriptor that a socket was closed under",
                "descriptor numbers of calls by io_uring or socketcall(2), and those that a receiver of \
                 SCM_RIGHTS gets",
                "where the kernel has no unix_add_edges: whose queue a descriptor goes into that \
                 is sent to an address",
                "on a preemptible kernel: an event while the same program is interrupted on the same CPU \
                 (counted as missed)",
                "of internet sockets: who passed a descriptor to whom",
                UNACCEPTED,
                NOT_TRACKED,
                INTERRUPTED,
            ],
            Self::Tracepoint => &[
                "operations made through io_uring",
                "calls by the 32-bit entry (counted as compat)",
                "connections that are not accepted yet, until their connect(2) returns",
                "names that autobind gives outside connect(2)",
                "that a datagram socket lost its peer, until it connects again",
                "a close that is the last only because something in flight or a running call let go later",
                "the last close of a socket whose two holders end at the same moment",
                "descriptors closed by execve(2) in a process with threads, or where the kernel has no \
                 sched_prepare_exec",
                "a connection that accept(2) took and then could not return (EFAULT)",
                "SCM_RIGHTS: who passed a descriptor to whom",
                "the port that a UDP socket gets when it first sends without bind(2) or connect(2)",
                UNACCEPTED,
                NOT_TRACKED,
                INTERRUPTED,
            ],
            Self::Snapshot => &["everything that happened before: there is no history"],
        }
    }

    /// As the pinned maps name it.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Trampoline => backend::TRAMPOLINE,
            Self::Tracepoint => backend::TRACEPOINT,
            Self::Snapshot => 0,
        }
    }

    pub(super) fn of_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|backend| backend.number() == number)
    }
}

const UNACCEPTED: &str = "TCP connections that nobody has accepted yet, and what becomes of a TCP socket after its \
                          last close";
const NOT_TRACKED: &str = "internet sockets that are neither TCP nor UDP (MPTCP, raw, ICMP, SCTP, SMC), and those that \
                           the kernel makes for itself";
const INTERRUPTED: &str =
    "a change of state that comes while another one is told on the same CPU (counted as missed)";

/// Which programs to attach.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Choice {
    /// How to trace; if not given, the best that this kernel has (see `ucr features`)
    #[arg(long, value_enum, env = "UCR_BACKEND")]
    pub backend: Option<Backend>,
    /// Leave this hook out, as on a kernel that lacks it; what there is in its place is attached then.
    /// May be given several times
    #[arg(long, value_name = "HOOK", value_parser = PossibleValuesParser::new(programs()))]
    pub without: Vec<String>,
}

/// The names of all hooks; some are of several backends.
fn programs() -> BTreeSet<&'static str> {
    Backend::ALL.into_iter().flat_map(Backend::hooks).map(|hook| hook.program).collect()
}

/// What to do on a kernel that lacks what a program hangs on, or refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The backend cannot be had.
    Required,
    /// It is left out, and said so.
    Optional,
    /// The same, also where this other one could not be attached, without which it would do harm.
    With(&'static str),
    /// Attached only where another program could not be; one of the two is required.
    InPlaceOf(&'static str),
    /// Attached only where another program could not be; if this cannot be attached either, both are
    /// left out.
    PreferablyInPlaceOf(&'static str),
}

/// What a program hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A tracepoint, through BTF.
    Tracepoint(&'static str),
    /// Entry of a kernel function.
    Entry(&'static str),
    /// Exit of a kernel function.
    Exit(&'static str),
}

impl Point {
    /// The tracepoint or function.
    #[must_use]
    pub fn target(self) -> &'static str {
        let (Self::Tracepoint(name) | Self::Entry(name) | Self::Exit(name)) = self;
        name
    }
}

/// One program of a backend.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Its name in the object, and of its pinned link.
    pub program: &'static str,
    /// Where it hangs.
    pub point: Point,
    /// Whether it can be done without.
    pub need: Need,
    /// The prototypes of a function that the program is written for, as C without parameter names. A
    /// function of any other is not attached to.
    pub prototypes: &'static [&'static str],
}

const fn tracepoint(name: &'static str, need: Need) -> Hook {
    Hook { program: name, point: Point::Tracepoint(name), need, prototypes: &[] }
}

const fn entry(name: &'static str, need: Need, prototypes: &'static [&'static str]) -> Hook {
    Hook { program: name, point: Point::Entry(name), need, prototypes }
}

const fn exit(name: &'static str, need: Need, prototypes: &'static [&'static str]) -> Hook {
    Hook { program: name, point: Point::Exit(name), need, prototypes }
}

const TRACEPOINT: &[Hook] = &[
    tracepoint("sys_enter", Need::Required),
    tracepoint("sched_process_exit", Need::Required),
    tracepoint("sched_prepare_exec", Need::Optional),
    tracepoint("inet_sock_set_state", Need::Required),
    tracepoint("sys_exit", Need::Required),
];

const TRAMPOLINE: &[Hook] = &[
    entry("unix_sock_destructor", Need::Required, &["void (struct sock *)"]),
    entry("unix_release_sock", Need::Optional, &["void (struct sock *, int)"]),
    entry("unix_release", Need::InPlaceOf("unix_release_sock"), &["int (struct socket *)"]),
    exit("unix_shutdown", Need::Required, &["int (struct socket *, int)"]),
    exit("unix_dgram_disconnected", Need::Optional, &["void (struct sock *, struct sock *)"]),
    exit(
        "unix_dgram_sendmsg",
        Need::InPlaceOf("unix_dgram_disconnected"),
        &["int (struct socket *, struct msghdr *, size_t)"],
    ),
    exit("unix_accept", Need::Required, ACCEPT),
    exit("unix_stream_connect", Need::Required, CONNECT),
    exit(
        "security_unix_stream_connect",
        Need::Required,
        &["int (struct sock *, struct sock *, struct sock *)"],
    ),
    exit("unix_dgram_connect", Need::Required, CONNECT),
    exit("unix_listen", Need::Required, &["int (struct socket *, int)"]),
    exit("unix_autobind", Need::Optional, &["int (struct sock *)"]),
    exit("unix_bind", Need::Required, BIND),
    exit("unix_socketpair", Need::Required, &["int (struct socket *, struct socket *)"]),
    entry("unix_add_edges", Need::Optional, &["void (struct scm_fp_list *, struct unix_sock *)"]),
    Hook {
        program: "scm_send",
        point: Point::Exit("__scm_send"),
        need: Need::PreferablyInPlaceOf("unix_add_edges"),
        prototypes: &["int (struct socket *, struct msghdr *, struct scm_cookie *)"],
    },
    entry("security_file_receive", Need::Optional, &["int (struct file *)"]),
    entry("fd_install", Need::Required, &["void (unsigned int, struct file *)"]),
    exit("unix_create", Need::Required, CREATE),
    // Without ends no beginnings: the kernel may have been built without IPv6, or without all of this.
    entry("inet_sock_destruct", Need::Optional, &["void (struct sock *)"]),
    entry("inet_release", Need::Optional, &["int (struct socket *)"]),
    Hook {
        program: "inet_sock_set_state",
        point: Point::Tracepoint("inet_sock_set_state"),
        need: INTERNET,
        prototypes: &[],
    },
    exit("inet_shutdown", INTERNET, &["int (struct socket *, int)"]),
    exit("inet_accept", INTERNET, ACCEPT),
    exit("inet_stream_connect", INTERNET, CONNECT),
    exit("inet_dgram_connect", INTERNET, CONNECT),
    exit("inet_listen", INTERNET, &["int (struct socket *, int)"]),
    exit("inet_autobind", INTERNET, &["int (struct sock *)"]),
    exit("inet_bind", INTERNET, BIND),
    exit("inet6_bind", INTERNET, BIND),
    exit("inet_create", INTERNET, CREATE),
    exit("inet6_create", INTERNET, CREATE),
];

/// All that makes records of internet sockets.
const INTERNET: Need = Need::With("inet_release");

/// Makes a socket of a family.
const CREATE: &[&str] = &["int (struct net *, struct socket *, int, int)"];

/// `accept`.
const ACCEPT: &[&str] = &[
    "int (struct socket *, struct socket *, int, bool)",
    "int (struct socket *, struct socket *, struct proto_accept_arg *)",
];

/// `bind`. For addresses see [`CONNECT`].
const BIND: &[&str] = &[
    "int (struct socket *, struct sockaddr *, int)",
    "int (struct socket *, struct sockaddr_unsized *, int)",
];

/// `connect` of any type. Addresses have a type of their own since 6.19; they begin as before.
const CONNECT: &[&str] = &[
    "int (struct socket *, struct sockaddr *, int, int)",
    "int (struct socket *, struct sockaddr_unsized *, int, int)",
];
