//! What the running kernel offers, found out by trying: never by its version.
//!
//! Nothing here fails. What cannot be found out is a result of its own.

use std::{io, os::fd::AsFd as _, path::Path};

use aya::{
    maps::MapType,
    programs::{Program, ProgramError},
    sys::is_map_supported,
};
use nix::sys::{
    socket::{AddressFamily, SockFlag, SockType, socket},
    statfs::{BPF_FS_MAGIC, statfs},
};
use rustix::{
    process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open},
    thread::{CapabilitySet, capabilities},
};
use serde::Serialize;

use crate::{
    causes::{errno, one_line},
    kernel::{btf::Btf, offsets::OffsetTable},
    lock::{self, Lock},
    snapshot::{
        descriptors::Lister,
        diag::{self, Family},
        memory::{Memory, MemoryError},
    },
    sys::sockopt,
    tracer::{
        TracerError,
        error::may_load,
        hooks::{Backend, Need},
        object::{LogLevel, Object, Sizes},
    },
};

/// One thing that a kernel may offer.
#[derive(Clone, Debug, Serialize)]
pub struct Feature {
    /// What it is called.
    pub name: &'static str,
    /// What ucr uses it for.
    pub purpose: &'static str,
    /// What was found.
    #[serde(flatten)]
    pub support: Support,
}

/// Whether the kernel offers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "support", content = "detail", rename_all = "lowercase")]
pub enum Support {
    /// It does; with a detail worth knowing, or nothing.
    Supported(String),
    /// It does not, and why.
    Unsupported(String),
    /// It could not be found out, and why.
    Unknown(String),
}

impl Support {
    fn is_supported(&self) -> bool {
        matches!(self, Self::Supported(_))
    }
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `uname -r`.
    pub kernel: String,
    /// What the kernel offers.
    pub features: Vec<Feature>,
    /// The backend that `ucr attach` would use.
    pub backend: Backend,
    /// Why this one.
    pub reason: String,
    /// Every backend: whether it can be had here, and what it cannot see.
    #[serde(rename = "backends")]
    pub offers: Vec<Offer>,
}

/// Tries everything.
#[must_use]
pub fn probe() -> Report {
    let mut features = Vec::new();
    let mut add = |name, purpose, support| features.push(Feature { name, purpose, support });
    add("BTF", "where to find what in kernel structures", btf());
    add("bpf file system", "maps and links that outlive their process", bpf_file_system());
    add("ring buffer", "events", ring_buffer());
    probe_programs(&mut add);
    add("kernel memory", "queues, connections that wait, peers that have closed", kernel_memory());
    for (name, purpose, family) in [
        ("sock_diag unix", "snapshots to check the ledger against", Family::Unix),
        ("sock_diag tcp", "the same for TCP", Family::Tcp),
        ("sock_diag udp", "the same for UDP", Family::Udp),
    ] {
        add(name, purpose, sock_diag(family));
    }
    add("pidfd_getfd", "reading a process's sockets", duplicate_from_process());
    add("TCP_REPAIR", "connected TCP", tcp_repair());
    add("connection lock", "connected TCP goes unnoticed while nobody has it", connection_lock());
    for (name, purpose, capability) in CAPABILITIES {
        add(name, purpose, own_capability(*capability));
    }
    let offers: Vec<Offer> =
        Backend::ALL.into_iter().map(|backend| offer(backend, &features)).collect();
    let (backend, reason) = choose(&offers);
    Report {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        features,
        backend,
        reason,
        offers,
    }
}

/// Whether what the kernel's memory holds of our own sockets is found there.
fn kernel_memory() -> Support {
    let memory = Lister::load().map_err(MemoryError::from);
    match memory.and_then(|mut lister| Memory::prepare(&mut lister)) {
        Ok(memory) if memory.reads_pages() => Support::Supported(String::new()),
        Ok(_) => Support::Supported("not what lies in pages: long messages".to_owned()),
        Err(error @ (MemoryError::Layout(_) | MemoryError::Senseless(_))) => {
            Support::Unsupported(one_line(&error))
        }
        Err(error) => match errno(&error) {
            Some(libc::EPERM | libc::EACCES) if may_load() => {
                Support::Unsupported(one_line(&error))
            }
            _ => Support::Unknown(one_line(&error)),
        },
    }
}

/// Whether packets of chosen connections can be dropped.
fn connection_lock() -> Support {
    let lock = Lock::prepare(lock::USUAL);
    match lock.map(|mut lock| lock.try_silence()) {
        Ok(Ok(way)) => Support::Supported(format!("at interfaces {way}")),
        Ok(Err(error)) => {
            Support::Supported(format!("not over IPv6 when the process ends: {}", one_line(&error)))
        }
        Err(error) => match errno(&error) {
            Some(libc::EPERM | libc::EACCES) if !may_load() => Support::Unknown(one_line(&error)),
            _ => Support::Unsupported(one_line(&error)),
        },
    }
}

/// What tracing cannot do without, whatever the backend.
const NEEDED: [&str; 5] = ["BTF", "bpf file system", "ring buffer", "iter/unix", "iter/task_file"];

/// What each backend needs beyond that.
fn needs(backend: Backend) -> &'static [&'static str] {
    match backend {
        Backend::Trampoline => &["fentry", "fexit", "hooked functions"],
        Backend::Tracepoint => &["tp_btf", "tracepoints"],
        Backend::Snapshot => &[],
    }
}

/// One backend on this kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Offer {
    /// Which.
    pub backend: Backend,
    /// Whether this kernel has all that it needs.
    pub available: bool,
    /// What is missing.
    pub missing: Vec<&'static str>,
    /// What it cannot see.
    pub blind_spots: &'static [&'static str],
}

fn offer(backend: Backend, features: &[Feature]) -> Offer {
    let common: &[&str] = if backend == Backend::Snapshot { &[] } else { &NEEDED };
    let missing: Vec<&str> = features
        .iter()
        .filter(|f| common.contains(&f.name) || needs(backend).contains(&f.name))
        .filter(|f| !f.support.is_supported())
        .map(|f| f.name)
        .collect();
    let available = missing.is_empty();
    Offer { backend, available, missing, blind_spots: backend.blind_spots() }
}

/// The best that is available, and why it is not a better one.
fn choose(offers: &[Offer]) -> (Backend, String) {
    let chosen = offers.iter().find(|offer| offer.available);
    let backend = chosen.map_or(Backend::Snapshot, |offer| offer.backend);
    let better = offers.iter().take_while(|offer| offer.backend != backend).last();
    let reason = better.map_or("the most complete one".to_owned(), |offer| {
        format!("{} needs {}", offer.backend.name(), offer.missing.join(", "))
    });
    (backend, reason)
}

fn btf() -> Support {
    match Btf::of_kernel() {
        Err(error) => unsupported(&error),
        Ok(btf) => match OffsetTable::resolve(&btf) {
            Ok(_) => Support::Supported(format!("{} types", btf.len())),
            Err(error) => unsupported(&error),
        },
    }
}

fn bpf_file_system() -> Support {
    if statfs("/sys/fs/bpf").is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC) {
        return Support::Supported("mounted at /sys/fs/bpf".to_owned());
    }
    match std::fs::read_to_string("/proc/filesystems") {
        Err(error) => Support::Unknown(format!("read /proc/filesystems: {error}")),
        Ok(known) if !known.lines().any(|line| line.split_whitespace().last() == Some("bpf")) => {
            Support::Unsupported("the kernel does not know it".to_owned())
        }
        Ok(_) if Path::new("/sys/fs/bpf").is_dir() => {
            Support::Supported("not mounted; `ucr attach` mounts it at /sys/fs/bpf".to_owned())
        }
        Ok(_) => Support::Unsupported("there is no /sys/fs/bpf to mount it at".to_owned()),
    }
}

fn ring_buffer() -> Support {
    match is_map_supported(MapType::RingBuf) {
        Ok(true) => Support::Supported(String::new()),
        Ok(false) => Support::Unsupported("no such map type".to_owned()),
        Err(error) => Support::Unknown(one_line(&error)),
    }
}

/// Loads one program of each type and attaches it for a moment.
fn probe_programs(add: &mut impl FnMut(&'static str, &'static str, Support)) {
    type Try = fn(&mut Object) -> Result<(), TracerError>;
    let programs: [(&str, &str, Try); 8] = [
        ("tp_btf", "tracepoint backend: system calls, exits", |o| try_program(o, "probe_tp_btf")),
        ("iter/unix", "sockets that are older than the tracer", |o| {
            o.iterator("visit_unix", "unix").and_then(|p| attached("visit_unix", p.attach()))
        }),
        ("iter/task_file", "whose descriptors lead to which socket", |o| {
            let iterator = o.iterator("list_sockets", "task_file")?;
            attached("list_sockets", iterator.attach())
        }),
        ("fentry", "trampoline backend: ends", |o| try_program(o, "probe_fentry")),
        ("fexit", "trampoline backend: all else", |o| try_program(o, "probe_fexit")),
        ("BPF LSM", "(not used)", |o| try_program(o, "probe_lsm")),
        ("hooked functions", "trampoline backend", |o| check_all(o, Backend::Trampoline)),
        ("tracepoints", "tracepoint backend", |o| check_all(o, Backend::Tracepoint)),
    ];
    let sizes = Sizes { ring_bytes: 4096, sockets: 1, census: 1, found: 1 };
    let mut object = Object::load(None, sizes, LogLevel::Off);
    for (name, purpose, attempt) in programs {
        let support = match &mut object {
            Ok(object) => judge(attempt(object)),
            Err(error) => Support::Unknown(one_line(&*error)),
        };
        add(name, purpose, support);
    }
}

/// Whether everything is there that a backend hangs on; what it can do without is not looked for.
fn check_all(object: &mut Object, backend: Backend) -> Result<(), TracerError> {
    let mut needed = backend.hooks().iter().filter(|hook| hook.need == Need::Required);
    needed.try_for_each(|hook| object.check(hook))
}

fn try_program(object: &mut Object, name: &'static str) -> Result<(), TracerError> {
    let failed = |source| TracerError::Program { program: name, source: Box::new(source) };
    let (program, btf) = object.program(name)?;
    let attempt = match program {
        Program::BtfTracePoint(p) => {
            p.load("sched_process_exit", btf).and_then(|()| p.attach().map(drop))
        }
        Program::FEntry(p) => p.load("unix_release", btf).and_then(|()| p.attach().map(drop)),
        Program::FExit(p) => p.load("unix_release", btf).and_then(|()| p.attach().map(drop)),
        Program::Lsm(p) => p.load("unix_stream_connect", btf).and_then(|()| p.attach().map(drop)),
        _ => return Err(TracerError::Missing(name)),
    };
    attempt.map_err(failed)
}

fn attached<L>(program: &'static str, link: Result<L, ProgramError>) -> Result<(), TracerError> {
    link.map(drop).map_err(|source| TracerError::Program { program, source: Box::new(source) })
}

/// `Ok` is support; a refusal is none only if it is one that such a kernel gives.
fn judge(attempt: Result<(), TracerError>) -> Support {
    let error = match attempt {
        Ok(()) => return Support::Supported(String::new()),
        Err(error) => error,
    };
    let text = one_line(&error);
    match errno(&error) {
        _ if is_absence(&error) => Support::Unsupported(text),
        Some(libc::EPERM | libc::EACCES) if !may_load() => Support::Unknown(text),
        // Lockdown says EPERM to those who may do everything else; a kernel without the type says
        // EINVAL, without trampolines ENOTSUPP (524) or EOPNOTSUPP.
        Some(libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP | 524 | libc::ENOENT | libc::ESRCH) => {
            Support::Unsupported(text)
        }
        _ => Support::Unknown(text),
    }
}

fn is_absence(error: &TracerError) -> bool {
    matches!(
        error,
        TracerError::Missing(_)
            | TracerError::NoSuchPoint { .. }
            | TracerError::OtherPrototype { .. }
    )
}

fn sock_diag(family: Family) -> Support {
    match diag::probe(family) {
        Ok(()) => Support::Supported(String::new()),
        Err(error @ diag::DiagError::Refused(_)) => unsupported(&error),
        Err(error) => Support::Unknown(one_line(&error)),
    }
}

fn duplicate_from_process() -> Support {
    let attempt = pidfd_open(getpid(), PidfdFlags::empty()).and_then(|own| {
        let any = pidfd_open(getpid(), PidfdFlags::empty())?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&any);
        pidfd_getfd(own.as_fd(), number, PidfdGetfdFlags::empty())
    });
    match attempt {
        Ok(_) => Support::Supported(String::new()),
        Err(rustix::io::Errno::NOSYS) => Support::Unsupported("no such system call".to_owned()),
        Err(error) => Support::Unknown(error.to_string()),
    }
}

fn tcp_repair() -> Support {
    let attempt = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .map_err(io::Error::from)
        .and_then(|tcp| {
            let on = 1_i32.to_ne_bytes();
            sockopt::set_at(tcp.as_fd(), libc::IPPROTO_TCP, libc::TCP_REPAIR, &on)
        });
    match attempt {
        Ok(()) => Support::Supported(String::new()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOPROTOOPT) => Support::Unsupported("no such option".to_owned()),
            Some(libc::EPERM) => Support::Unknown("it needs CAP_NET_ADMIN".to_owned()),
            _ => Support::Unknown(error.to_string()),
        },
    }
}

/// Capabilities that ucr makes use of.
const CAPABILITIES: &[(&str, &str, CapabilitySet)] = &[
    ("CAP_BPF", "loading programs", CapabilitySet::BPF),
    ("CAP_PERFMON", "tracing programs", CapabilitySet::PERFMON),
    ("CAP_SYS_ADMIN", "iterators, other namespaces, mounting", CapabilitySet::SYS_ADMIN),
    ("CAP_SYS_PTRACE", "stopping a process, reading its sockets", CapabilitySet::SYS_PTRACE),
    ("CAP_NET_ADMIN", "buffer sizes beyond the limit, socket marks", CapabilitySet::NET_ADMIN),
    ("CAP_SETUID", "peer credentials", CapabilitySet::SETUID),
    ("CAP_SETGID", "peer credentials", CapabilitySet::SETGID),
    ("CAP_CHOWN", "owners of socket files", CapabilitySet::CHOWN),
    ("CAP_DAC_OVERRIDE", "connecting as somebody else", CapabilitySet::DAC_OVERRIDE),
    (
        "CAP_CHECKPOINT_RESTORE",
        "processes with a wanted pid (not used yet)",
        CapabilitySet::CHECKPOINT_RESTORE,
    ),
];

fn own_capability(capability: CapabilitySet) -> Support {
    match capabilities(None) {
        Ok(sets) if sets.effective.contains(capability) => Support::Supported(String::new()),
        Ok(_) => Support::Unsupported("this process does not have it".to_owned()),
        Err(error) => Support::Unknown(error.to_string()),
    }
}

fn unsupported(error: &(dyn std::error::Error + 'static)) -> Support {
    Support::Unsupported(one_line(error))
}
