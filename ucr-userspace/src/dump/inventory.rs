//! Takes stock of stopped processes: their descriptors, the sockets behind them, what was tracked
//! of these, and what the kernel reports.

use std::collections::{BTreeMap, HashMap};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::os::fd::AsFd as _;
use ucr_common::descriptor::SocketDescriptor;

use super::DumpError;
use crate::{
    crosscheck::Held,
    ledger::{Ledger, Tracked},
    model::{Pid, SocketType, UnixName, View},
    process::{
        files::BoundFile,
        state::{Defaults, SocketDetails, read as read_state},
    },
    snapshot::{descriptors::Lister, diag},
    tracer::store::Store,
};

/// What was found.
#[derive(Debug)]
pub struct Inventory {
    /// Every descriptor that leads to a socket, of any family, in order of process and number.
    pub descriptors: Vec<SocketDescriptor>,
    /// Each unix socket once, by the address of its sock, in order of first descriptor.
    pub sockets: Vec<Stock>,
    /// What the kernel reports of the whole network namespace.
    pub view: View,
    /// What was tracked of the sockets and of those that they are paired with; `None` if tracing
    /// is not attached.
    pub ledger: Option<Ledger>,
}

/// One unix socket.
#[derive(Debug)]
pub struct Stock {
    /// Under which identities it is known.
    pub held: Held,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Positions in [`Inventory::descriptors`].
    pub holders: Vec<usize>,
    /// What it says itself.
    pub details: SocketDetails,
    /// The file that it is bound to; an accepted one shares its listener's.
    pub file: Option<BoundFile>,
}

impl Inventory {
    /// Takes stock of the processes, which must be stopped.
    ///
    /// # Errors
    /// A question that the kernel refuses; a process that was killed meanwhile.
    pub fn take(
        pids: &[Pid],
        lister: &mut Lister,
        store: Option<&Store>,
    ) -> Result<Self, DumpError> {
        let mut descriptors = Vec::new();
        for pid in pids {
            descriptors.extend(lister.sockets_of(*pid)?);
        }
        let mut holders: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let mut order = Vec::new();
        for (position, descriptor) in descriptors.iter().enumerate() {
            if i32::try_from(descriptor.family) == Ok(libc::AF_UNIX) {
                let list = holders.entry(descriptor.socket.sk).or_default();
                if list.is_empty() {
                    order.push(descriptor.socket.sk);
                }
                list.push(position);
            }
        }
        let mut reader = StateReader::default();
        let mut sockets = Vec::with_capacity(order.len());
        for sk in order {
            let holders = holders.remove(&sk).unwrap_or_default();
            let Some(first) = holders.first().and_then(|at| descriptors.get(*at)) else { continue };
            let (details, file) = reader.read(first)?;
            sockets.push(Stock {
                held: Held { sk, inode: details.inode, cookie: details.cookie },
                netns: first.netns,
                holders,
                details,
                file,
            });
        }
        let ledger = store.map(|store| tracked(store, &sockets)).transpose()?;
        let root = pids.first().copied().unwrap_or_default();
        let view = diag::unix_sockets_of(root.0)?;
        Ok(Self { descriptors, sockets, view, ledger })
    }

    /// The sockets as they are to be judged.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        self.sockets.iter().map(|socket| socket.held).collect()
    }
}

/// Looks up the sockets, their peers and their listeners in the pinned ledger: by key, so that
/// the cost does not grow with the sockets of the whole host.
fn tracked(store: &Store, sockets: &[Stock]) -> Result<Ledger, DumpError> {
    let mut ledger = Ledger::default();
    let mut related = Vec::new();
    let mut look_up = |sk: u64, related: &mut Vec<u64>| -> Result<(), DumpError> {
        if ledger.get(sk).is_some() {
            return Ok(());
        }
        let Some(record) = store.record(sk)? else { return Ok(()) };
        let is_path = record.name.as_bytes().first().is_some_and(|first| *first != 0);
        let paths = if is_path { store.bind_paths(sk)? } else { None };
        let socket = Tracked::new(&record, paths.as_ref())?;
        related.extend(socket.peer.map(|peer| peer.sk));
        related.extend(socket.listener.map(|listener| listener.sk));
        ledger.insert(socket);
        Ok(())
    };
    for socket in sockets {
        look_up(socket.held.sk, &mut related)?;
    }
    // Only one step further: the peer's inode and the listener's directories are what is asked for.
    let mut ignored = Vec::new();
    for sk in related {
        look_up(sk, &mut ignored)?;
    }
    Ok(ledger)
}

/// Reads states through duplicates of a process's descriptors, one process and one new socket of
/// each type for all of them.
#[derive(Default)]
struct StateReader {
    processes: HashMap<u32, rustix::fd::OwnedFd>,
    defaults: HashMap<SocketType, Defaults>,
}

impl StateReader {
    fn read(
        &mut self,
        descriptor: &SocketDescriptor,
    ) -> Result<(SocketDetails, Option<BoundFile>), DumpError> {
        let pid = Pid(descriptor.pid.cast_signed());
        let fd = descriptor.fd.cast_signed();
        let refused = |operation| {
            move |errno: rustix::io::Errno| DumpError::Duplicate {
                operation,
                pid,
                fd,
                source: errno.into(),
            }
        };
        let process = match self.processes.entry(descriptor.pid) {
            std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::hash_map::Entry::Vacant(none) => {
                let raw = rustix::process::Pid::from_raw(pid.0).ok_or(DumpError::Duplicate {
                    operation: "open process",
                    pid,
                    fd,
                    source: std::io::ErrorKind::InvalidInput.into(),
                })?;
                none.insert(pidfd_open(raw, PidfdFlags::empty()).map_err(refused("open process"))?)
            }
        };
        let socket = pidfd_getfd(process, fd, PidfdGetfdFlags::empty())
            .map_err(refused("duplicate descriptor"))?;
        let kind = i32::try_from(descriptor.socket_type).ok().and_then(SocketType::from_raw);
        let failed = |source| DumpError::State { pid, fd, source };
        let kind = kind.unwrap_or(SocketType::Stream);
        let defaults = match self.defaults.entry(kind) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(none) => {
                none.insert(Defaults::probe(kind).map_err(failed)?)
            }
        };
        let details = read_state(socket.as_fd(), defaults).map_err(failed)?;
        if details.cookie != descriptor.socket.cookie {
            return Err(DumpError::OtherSocket { pid, fd });
        }
        let asked = matches!(details.name, UnixName::Pathname(_));
        let file = if asked { BoundFile::of(socket.as_fd()) } else { Ok(None) };
        let file = file.map_err(|source| DumpError::File { pid, fd, source })?;
        Ok((details, file))
    }
}
