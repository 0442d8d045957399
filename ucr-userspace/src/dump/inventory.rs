//! Takes stock of stopped processes: their descriptors, the sockets behind them, what was tracked
//! of these, and what the kernel reports.

use std::thread;

use foldhash::{HashMap, HashSet};
use ucr_common::{descriptor::SocketDescriptor, record::Record};

use super::{DumpError, hidden, reader::StateReader};
use crate::{
    crosscheck::Held,
    ledger::{Ledger, Tracked},
    model::{Pid, SocketState, SocketType, View},
    process::{files::BoundFile, state::SocketDetails},
    snapshot::{
        descriptors::Lister,
        diag,
        memory::{Memory, RawMessage, Sock, TOGETHER},
    },
    tracer::store::Store,
};

/// Up to so many descriptors sock_diag is asked about each socket, if that is enough.
const FEW: usize = 16;

/// What was found.
#[derive(Debug)]
pub struct Inventory {
    /// Every descriptor that leads to a socket, of any family, in order of process and number.
    pub descriptors: Vec<SocketDescriptor>,
    /// Each unix socket once, by the address of its sock: in order of first descriptor, then those in
    /// flight, then those that were not accepted yet.
    pub sockets: Vec<Stock>,
    /// What is in flight and cannot be had.
    pub passed: Vec<hidden::Lost>,
    /// What is in flight and no unix socket.
    pub files: Vec<hidden::Passing>,
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
    /// What the kernel holds for it.
    pub sock: Sock,
    /// What waits to be received.
    pub queue: Vec<RawMessage>,
    /// For one that was not accepted yet: where in [`Inventory::sockets`] its listener is. They stand in
    /// the order in which they will be accepted.
    pub waits_at: Option<usize>,
    /// References to its file that are neither its holders' nor ours: what is in flight has one.
    pub references: u64,
}

impl Inventory {
    /// Takes stock of the processes, which must be stopped.
    ///
    /// # Errors
    /// A question that the kernel refuses; a process that was killed meanwhile.
    pub fn take(
        pids: &[Pid],
        lister: &mut Lister,
        memory: &Memory,
        store: Option<&Store>,
    ) -> Result<Self, DumpError> {
        let root = pids.first().copied().unwrap_or_default();
        let (mut descriptors, mut records) = (Vec::new(), HashMap::default());
        for pid in pids {
            let (found, known) = lister.sockets_and_records_of(*pid)?;
            descriptors.extend(found);
            records.extend(known.into_iter().map(|record| (record.socket.sk, record)));
        }
        if descriptors.len() <= FEW {
            let found = Self::find(descriptors, &records, lister, memory, store)?;
            let view = if found.is_closed() {
                let inodes: Vec<u32> = found.sockets.iter().map(|stock| stock.held.inode).collect();
                diag::unix_sockets_with(root.0, &inodes)?
            } else {
                diag::unix_sockets_of(root.0)?
            };
            return Ok(Self { view, ..found });
        }
        thread::scope(|threads| {
            // What the kernel tells of its own accord is heard while its memory is read.
            let view = threads.spawn(|| diag::unix_sockets_of(root.0));
            let found = Self::find(descriptors, &records, lister, memory, store);
            tracing::debug!("sock_diag is awaited");
            let view = view.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload));
            Ok(Self { view: view?, ..found? })
        })
    }

    /// Whether no socket has to do with any outside of these: then nobody else need be asked about. A datagram socket
    /// may have senders that it does not know of.
    fn is_closed(&self) -> bool {
        let known: HashSet<u64> = self.sockets.iter().map(|stock| stock.held.sk).collect();
        self.sockets.iter().all(|stock| {
            let is_listener =
                SocketState::from_raw(stock.sock.state) == Some(SocketState::Listening);
            stock.details.socket_type != SocketType::Dgram
                && !is_listener
                && (stock.sock.peer == 0 || known.contains(&stock.sock.peer))
        })
    }

    /// All but the view.
    fn find(
        descriptors: Vec<SocketDescriptor>,
        records: &HashMap<u64, Record>,
        lister: &mut Lister,
        memory: &Memory,
        store: Option<&Store>,
    ) -> Result<Self, DumpError> {
        tracing::debug!(descriptors = descriptors.len(), "descriptors are listed");
        let mut holders: HashMap<u64, Vec<usize>> = HashMap::default();
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
        let mut reader = StateReader::new(memory);
        let mut sockets = Vec::with_capacity(order.len());
        for (number, sk) in order.iter().copied().enumerate() {
            if number.is_multiple_of(TOGETHER) {
                let together = order.iter().skip(number).take(TOGETHER);
                memory.read_ahead(&together.copied().collect::<Vec<_>>());
            }
            let holders = holders.remove(&sk).unwrap_or_default();
            let Some(first) = holders.first().and_then(|at| descriptors.get(*at)) else { continue };
            let sock = memory.sock(sk)?;
            let (details, file) = reader.read(first, &sock)?;
            let known = u64::try_from(holders.len()).unwrap_or(u64::MAX);
            let all = holders.iter().filter_map(|at| descriptors.get(*at));
            let references = all.map(|d| d.references).max().unwrap_or(0).saturating_sub(known);
            sockets.push(Stock {
                held: Held { sk, inode: details.inode, cookie: details.cookie },
                netns: first.netns,
                holders,
                details,
                file,
                sock,
                queue: Vec::new(),
                waits_at: None,
                references,
            });
        }
        tracing::debug!(sockets = sockets.len(), "states are read");
        let hidden::Found { lost: passed, files } =
            hidden::find(&descriptors, &mut sockets, &mut reader, lister, memory)?;
        tracing::debug!(sockets = sockets.len(), "queues are read");
        let ledger = store.map(|store| tracked(store, records, &sockets)).transpose()?;
        memory.look_anew();
        tracing::debug!("the ledger is looked up");
        Ok(Self { descriptors, sockets, passed, files, view: View::default(), ledger })
    }

    /// Looks up once more what was tracked: sockets of others may have gone since.
    ///
    /// # Errors
    /// A question that the kernel refuses.
    pub fn look_up_again(&mut self, store: Option<&Store>) -> Result<(), DumpError> {
        let nothing = HashMap::default();
        self.ledger = store.map(|store| tracked(store, &nothing, &self.sockets)).transpose()?;
        Ok(())
    }

    /// The sockets as they are to be judged: all but those that were not accepted yet, of which sock_diag
    /// does not tell.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        let accepted = self.sockets.iter().filter(|socket| socket.waits_at.is_none());
        accepted.map(|socket| socket.held).collect()
    }
}

/// Looks up the sockets, their peers and their listeners in the pinned ledger: by key, so that
/// the cost does not grow with the sockets of the whole host.
///
/// `records`: what has been read already.
fn tracked(
    store: &Store,
    records: &HashMap<u64, Record>,
    sockets: &[Stock],
) -> Result<Ledger, DumpError> {
    let mut ledger = Ledger::default();
    let mut related = Vec::new();
    let mut look_up = |sk: u64, related: &mut Vec<u64>| -> Result<(), DumpError> {
        if ledger.get(sk).is_some() {
            return Ok(());
        }
        let record = match records.get(&sk) {
            Some(known) => *known,
            None => match store.record(sk)? {
                Some(record) => record,
                None => return Ok(()),
            },
        };
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
