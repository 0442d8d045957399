//! From a live process, the ledger and a snapshot to an image.
//!
//! Stop the process or tree; list its descriptors; look its sockets up in the ledger; take a
//! snapshot; judge each socket; gather what is in the way; put the image together. Whatever goes
//! wrong, the processes go on as before and there is no image.

pub mod assemble;
pub mod external;
pub mod hidden;
mod hint;
mod holders;
pub mod inet;
mod interfaces;
pub mod inventory;
mod locking;
pub mod names;
pub mod netlink;
pub mod obstacle;
mod outside;
mod owner;
pub mod pairs;
mod reader;
mod stranger;

use std::{
    collections::HashMap,
    io,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use ucr_common::descriptor::SocketDescriptor;

use crate::{
    crosscheck::{self, Judged},
    image::{Image, Origin, Process},
    kernel::clock,
    ledger::BadRecord,
    lock::{
        Lock, LockError,
        kept::{self, Kept},
    },
    model::{
        Pid, VerdictCounts,
        inet::{Family, Over, Protocol},
    },
    process::{
        freeze::{FreezeError, Frozen, Scope, freeze},
        inet::InetStates,
        procfs::{self, ProcError, link_identity},
        state::StateError,
    },
    snapshot::{
        descriptors::{DescriptorError, Lister},
        diag::{self, DiagError},
        memory::{Memory, MemoryError},
    },
    tracer::{TracerError, hooks::Backend, pins::PinDirectory, session, store::Store},
};
use assemble::{LeftOut, assemble};
use external::Rules;
use inventory::Inventory;
use locking::Locking;
use names::NameError;
use obstacle::Obstacle;
use outside::Others;
use pairs::OtherEnds;

/// Why there is no dump, apart from what stands in a socket's own way.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The process could not be stopped.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    /// Its descriptors could not be listed.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// There is no snapshot.
    #[error(transparent)]
    Diag(#[from] DiagError),
    /// The pinned ledger could not be read.
    #[error(transparent)]
    Tracer(#[from] TracerError),
    /// The pinned ledger makes no sense.
    #[error(transparent)]
    Record(#[from] BadRecord),
    /// `/proc` could not be read.
    #[error(transparent)]
    Proc(#[from] ProcError),
    /// A socket file could not be looked at.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A descriptor could not be duplicated.
    #[error("{operation} {fd} of process {pid}")]
    Duplicate {
        /// What was tried.
        operation: &'static str,
        /// Whose.
        pid: Pid,
        /// Which.
        fd: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was duplicated is not what was listed: two processes under one number.
    #[error("descriptor {fd} of process {pid} leads to another socket than was listed there")]
    OtherSocket {
        /// Whose.
        pid: Pid,
        /// Which.
        fd: i32,
    },
    /// The file that a socket is bound to could not be looked at.
    #[error("look at the file that descriptor {fd} of process {pid} is bound to")]
    File {
        /// Whose.
        pid: Pid,
        /// Which.
        fd: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel's memory made no sense after all.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// What is in flight could not be looked at.
    #[error(
        "look at the descriptors in a message that the socket with inode {inode} is to receive"
    )]
    InFlight {
        /// Who is to receive it.
        inode: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The network cannot be kept from its TCP connections.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Network interfaces did not tell their names.
    #[error("ask for the names of network interfaces")]
    Interfaces(#[source] io::Error),
    /// A socket did not tell its state.
    #[error("read the state of the socket at descriptor {fd} of process {pid}")]
    State {
        /// Whose.
        pid: Pid,
        /// Which.
        fd: i32,
        /// Why.
        #[source]
        source: StateError,
    },
}

impl DumpError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Freeze(error) => error.hint(),
            Self::Diag(error) => error.hint(),
            Self::Lock(error) => error.hint(),
            Self::Tracer(error) | Self::Descriptors(DescriptorError::Prepare(error)) => {
                error.hint()
            }
            Self::Duplicate { source, .. } if source.raw_os_error() == Some(libc::ESRCH) => {
                Some("the process was killed while it was being dumped")
            }
            _ => None,
        }
    }
}

/// Why the processes could not be ended, or left stopped.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// Their TCP connections could not be left to be restored.
    #[error(transparent)]
    Leave(#[from] LockError),
    /// The kernel refuses it.
    #[error("send a signal")]
    Signal(#[from] io::Error),
}

/// A dump that is ready to be written. The processes stand still as long as this lives.
#[derive(Debug)]
pub struct Dump {
    /// The image; not to be written if there are obstacles.
    pub image: Image,
    /// What was found, for showing.
    pub inventory: Inventory,
    /// Who is at the other ends of its internet connections, as far as that was tracked.
    pub other_ends: OtherEnds,
    /// Each unix socket's verdict, in the order of the inventory, as far as they are accepted.
    pub judged: Vec<Judged>,
    /// Each internet socket's verdict, in the order of the inventory.
    pub judged_inet: Vec<Judged>,
    /// Whether there was a ledger to judge by.
    pub tracing: Tracing,
    /// What is in the way.
    pub obstacles: Vec<Obstacle>,
    /// What the user has said is not to be in the image.
    pub left_out: Vec<LeftOut>,
    frozen: Frozen,
    locking: Locking,
    stopped_at: Instant,
    /// Unloading takes milliseconds that the processes need not stand still for.
    _lister: Lister,
}

/// Processes that stand still, and the image of their sockets.
#[derive(Debug)]
pub struct Standstill {
    /// The image.
    pub image: Image,
    /// What keeps the network from their TCP connections: it goes before the processes go on, so that what they send
    /// arrives.
    pub lock: Option<Lock>,
    /// The processes.
    pub frozen: Frozen,
    /// Since when they stand still.
    pub stopped_at: Instant,
    /// What lists descriptors.
    pub lister: Lister,
    /// Whether nothing can have changed since the image was made.
    pub is_fresh: bool,
}

/// Whether there was a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracing {
    /// Tracing was attached.
    Attached,
    /// It was not: nothing could be checked.
    NotAttached,
    /// Only the kernel was to be asked.
    NotAsked,
}

/// What it means if what was tracked and what the kernel says disagree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Refuse: nothing is written
    #[default]
    Strict,
    /// Say so and write the image as the kernel has it
    Warn,
    /// Write the image as the kernel has it
    Off,
}

impl Dump {
    /// Whether there was a ledger to judge by.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.tracing == Tracing::Attached
    }

    /// Whether what was tracked and what the kernel says disagree: somebody has it wrong, or lacks it.
    #[must_use]
    pub fn is_disputed(&self) -> bool {
        let mut all = self.judged.iter().chain(&self.judged_inet);
        self.is_checked() && all.any(|judged| judged.verdict.is_disagreement())
    }

    /// Lets the processes go on; returns how long they stood still.
    #[must_use]
    pub fn go_on(self) -> Duration {
        // First, so that what they send arrives.
        drop(self.locking);
        drop(self.frozen);
        self.stopped_at.elapsed()
    }

    /// Leaves the processes stopped by job control; returns how long they stood still so far. Their TCP connections
    /// stay locked until they are restored, or their time is over.
    ///
    /// # Errors
    /// The kernel's; some may be stopped by then.
    pub fn leave_stopped(self) -> Result<Duration, KillError> {
        let kept = self.locking.keep()?;
        if let Err(error) = self.frozen.leave_stopped() {
            give_up(kept);
            return Err(error.into());
        }
        Ok(self.stopped_at.elapsed())
    }

    /// The image with the processes, which stand still, and since when they do.
    #[must_use]
    pub fn stay(self) -> Standstill {
        let Self { image, frozen, locking, stopped_at, _lister: lister, .. } = self;
        let lock = locking.into_lock();
        Standstill { image, frozen, stopped_at, lister, lock, is_fresh: true }
    }

    /// Ends the processes; returns how long they stood still. Their TCP connections stay locked until they are
    /// restored, or their time is over.
    ///
    /// # Errors
    /// The kernel's; what could not be killed goes on.
    pub fn kill(self) -> Result<Duration, KillError> {
        let kept = self.locking.keep()?;
        if let Err(error) = self.frozen.kill() {
            // Some may live: what they send is to arrive.
            give_up(kept);
            return Err(error.into());
        }
        locking::silence(&self.inventory.inet);
        let stopped = self.stopped_at.elapsed();
        let mut messages = self.image.sockets.iter().flat_map(|socket| &socket.queue);
        if messages.any(|message| !message.files.is_empty()) {
            // Sockets that are in flight to each other alone keep their names, until the next socket that is
            // closed has the kernel look for such (`unix_release_sock`).
            drop(UnixStream::pair());
        }
        Ok(stopped)
    }
}

fn give_up(kept: Option<Kept>) {
    if let Some(Err(error)) = kept.map(Kept::give_up) {
        tracing::error!(%error, "failed to release the lock of connections");
    }
}

/// Stops a process or tree and takes its sockets down.
///
/// # Errors
/// See [`DumpError`]; the processes go on.
pub fn dump(
    root: Pid,
    scope: Scope,
    pins: &PinDirectory,
    backend: Option<Backend>,
    rules: &Rules,
    lock_for: Duration,
) -> Result<Dump, DumpError> {
    kept::take_off_old();
    // All that takes long comes before the process is stopped.
    let store = open_ledger(pins, backend)?;
    let mut lister = match store {
        Some(_) => Lister::open(pins)?,
        None => Lister::load()?,
    };
    let memory = Memory::prepare(&mut lister)?;
    let mut locking = Locking::new(lock_for, rules.then());
    let sockets = sockets_of_tcp(root, scope, &mut lister);
    if !sockets.is_empty() {
        locking.prepare();
    }
    for (family, count) in sockets {
        InetStates::prepare(&memory, Over(Protocol::Tcp, family), count);
    }
    tracing::debug!("programs are loaded");
    // From before the first thread stands: what is said of it is never too little.
    let stopped_at = Instant::now();
    let frozen = freeze(root, scope)?;
    let pids = frozen.pids().to_vec();
    tracing::debug!(processes = pids.len(), "processes stand still");
    let processes = pids.iter().map(|pid| describe(*pid)).collect::<Result<Vec<_>, _>>()?;
    let mut inventory = Inventory::take(&pids, &mut lister, &memory, store.as_ref(), &mut locking)?;
    tracing::debug!("the inventory is complete");
    let (judged, judged_inet) = judge(root, &mut inventory, store.as_ref())?;
    tracing::debug!("sockets are judged");
    let other_ends = store.as_ref().map(|store| OtherEnds::find(pins, store, &inventory.inet));
    let verdicts = crosscheck::count(judged.iter().chain(&judged_inet));
    let origin = origin(root, verdicts)?;
    // What has been read so far was read from processes that were whole.
    frozen.check()?;
    let mut others = Others::new(&mut lister);
    let threads = |pid| frozen.threads_of(pid);
    let assembled = assemble(&inventory, processes, origin, &memory, rules, &mut others, &threads)?;
    others.finish()?;
    tracing::debug!("the image is put together");
    Ok(Dump {
        image: assembled.image,
        judged,
        judged_inet,
        tracing: match (&store, backend) {
            (Some(_), _) => Tracing::Attached,
            (None, Some(Backend::Snapshot)) => Tracing::NotAsked,
            (None, _) => Tracing::NotAttached,
        },
        obstacles: assembled.obstacles,
        left_out: assembled.left_out,
        other_ends: other_ends.unwrap_or_default(),
        inventory,
        frozen,
        locking,
        stopped_at,
        _lister: lister,
    })
}

/// How many sockets of TCP there seem to be, which may be connections. What is found when they stand still counts.
fn sockets_of_tcp(root: Pid, scope: Scope, lister: &mut Lister) -> HashMap<Family, usize> {
    let pids = match scope {
        Scope::Process => vec![root],
        Scope::Tree => procfs::tree(root).unwrap_or_default(),
    };
    let mut counts = HashMap::new();
    // To look at all of them would take as long as what it is for, and be in vain where there is no TCP.
    let some = pids.into_iter().filter_map(|pid| lister.some_sockets_of(pid).ok());
    for descriptor in some.flatten() {
        let family = i32::try_from(descriptor.family).ok().and_then(Family::from_raw);
        let is_stream = i32::try_from(descriptor.socket_type) == Ok(libc::SOCK_STREAM);
        if let Some(family) = family.filter(|_| is_stream) {
            *counts.entry(family).or_default() += 1;
        }
    }
    counts
}

/// The pinned ledger, if tracing is attached, and unless only a snapshot is wanted.
fn open_ledger(
    pins: &PinDirectory,
    backend: Option<Backend>,
) -> Result<Option<Store>, TracerError> {
    if backend == Some(Backend::Snapshot) {
        return Ok(None);
    }
    match session::open_as(pins, backend) {
        Ok(store) => Ok(Some(store)),
        Err(TracerError::NotAttached { .. }) if backend.is_none() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Judges every socket; a mismatch must stand in two snapshots, and in what was tracked by then.
fn judge(
    root: Pid,
    inventory: &mut Inventory,
    store: Option<&Store>,
) -> Result<(Vec<Judged>, Vec<Judged>), DumpError> {
    let (held, held_inet) = (inventory.held(), inventory.held_inet());
    let nothing = crate::ledger::Ledger::default();
    let ledger = inventory.ledger.as_ref().unwrap_or(&nothing);
    let mut judged = crosscheck::judge(&held, ledger, &[&inventory.view]);
    let mut inet = crosscheck::inet::judge(&held_inet, ledger, &[&inventory.inet_view]);
    let is_disputed = [&judged, &inet].map(|judged| crosscheck::is_disputed(judged));
    if is_disputed.contains(&true) {
        inventory.look_up_again(store)?;
    }
    let ledger = inventory.ledger.as_ref().unwrap_or(&nothing);
    let [unix, internet] = is_disputed;
    if unix {
        let again = diag::unix_sockets_of(root.0)?;
        judged = crosscheck::judge(&held, ledger, &[&inventory.view, &again]);
    }
    if internet && store.is_some() {
        let again = inet::view(&inventory.inet, root)?;
        inet = crosscheck::inet::judge(&held_inet, ledger, &[&inventory.inet_view, &again]);
    }
    Ok((judged, inet))
}

fn describe(pid: Pid) -> Result<Process, ProcError> {
    Ok(Process {
        pid,
        parent: procfs::status(pid)?.parent,
        comm: procfs::comm(pid)?,
        arguments: procfs::arguments(pid)?,
    })
}

fn origin(root: Pid, verdicts: VerdictCounts) -> Result<Origin, DumpError> {
    let system = rustix::system::uname();
    let text = |bytes: &std::ffi::CStr| bytes.to_string_lossy().into_owned();
    let boot_id = procfs::boot_id()?;
    let (_, netns) = link_identity(root, "ns/net")?;
    Ok(Origin {
        ucr_version: env!("CARGO_PKG_VERSION").to_owned(),
        created_at: clock::realtime() / 1_000_000_000,
        kernel_release: text(system.release()),
        host: text(system.nodename()),
        boot_id,
        netns: u32::try_from(netns).unwrap_or(0),
        verdicts,
    })
}

/// Whose descriptor it is, and its number.
fn owner_of(descriptor: &SocketDescriptor) -> (Pid, i32) {
    (Pid(descriptor.pid.cast_signed()), descriptor.fd.cast_signed())
}
