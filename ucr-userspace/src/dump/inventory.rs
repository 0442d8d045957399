//! Takes stock of stopped processes: their descriptors, the sockets behind them, what was tracked
//! of these, and what the kernel reports.

use std::{mem, thread};

use foldhash::{HashMap, HashSet};
use ucr_common::{descriptor::SocketDescriptor, inet::AF_UNIX, record::Record};

use super::{
    DumpError, hidden,
    inet::{self, InetStock},
    locking::Locking,
    netlink::{self, NetlinkStock},
    reader::StateReader,
};
use crate::{
    crosscheck::Held,
    ledger::{Ledger, Tracked},
    model::{InetView, Pid, SocketState, SocketType, View},
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
    /// Each internet socket once, in order of first descriptor; those that share a port of UDP in order of binding, as
    /// far as that was tracked.
    pub inet: Vec<InetStock>,
    /// Each netlink socket that can be dumped once, in order of first descriptor.
    pub netlink: Vec<NetlinkStock>,
    /// `SO_PROTOCOL` of sockets that are none of these, by the address of the sock.
    pub protocols: HashMap<u64, i32>,
    /// Why a TCP connection over IPv6 cannot be left without the kernel answering for it, if it cannot.
    pub answered: Option<String>,
    /// What is in flight and cannot be had.
    pub passed: Vec<hidden::Lost>,
    /// What is in flight and no unix socket.
    pub files: Vec<hidden::Passing>,
    /// What the kernel reports of the whole network namespace.
    pub view: View,
    /// What the kernel reports of the internet sockets; nothing if there is nothing to hold it against.
    pub inet_view: InetView,
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
        locking: &mut Locking,
    ) -> Result<Self, DumpError> {
        let root = pids.first().copied().unwrap_or_default();
        let (mut descriptors, mut records) = (Vec::new(), HashMap::default());
        for pid in pids {
            let (found, known) = lister.sockets_and_records_of(*pid)?;
            descriptors.extend(found);
            records.extend(known.into_iter().map(|record| (record.socket.sk, record)));
        }
        if descriptors.len() <= FEW {
            let found = Self::find(descriptors, &records, lister, memory, store, locking)?;
            let view = if found.is_closed() {
                let inodes: Vec<u32> = found.sockets.iter().map(|stock| stock.held.inode).collect();
                diag::unix_sockets_with(root.0, &inodes)?
            } else {
                diag::unix_sockets_of(root.0)?
            };
            return Self { view, ..found }.with_inet_view(root);
        }
        thread::scope(|threads| {
            // What the kernel tells of its own accord is heard while its memory is read.
            let view = threads.spawn(|| diag::unix_sockets_of(root.0));
            let found = Self::find(descriptors, &records, lister, memory, store, locking);
            tracing::debug!("sock_diag is awaited");
            let view = view.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload));
            Self { view: view?, ..found? }.with_inet_view(root)
        })
    }

    /// With what the kernel tells of the internet sockets, if that can be held against anything.
    fn with_inet_view(mut self, root: Pid) -> Result<Self, DumpError> {
        if self.ledger.is_some() {
            self.inet_view = inet::view(&self.inet, root)?;
        }
        Ok(self)
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
        locking: &mut Locking,
    ) -> Result<Self, DumpError> {
        tracing::debug!(descriptors = descriptors.len(), "descriptors are listed");
        let is_unix = |d: &SocketDescriptor| i32::try_from(d.family) == Ok(libc::AF_UNIX);
        let mut holders = holders(&descriptors, is_unix);
        let order: Vec<u64> = holders.iter().map(|(sk, _)| *sk).collect();
        let mut reader = StateReader::new(memory);
        let mut sockets = Vec::with_capacity(order.len());
        for (number, sk) in order.iter().copied().enumerate() {
            if number.is_multiple_of(TOGETHER) {
                let together = order.iter().skip(number).take(TOGETHER);
                memory.read_ahead(&together.copied().collect::<Vec<_>>());
            }
            let holders = holders.get_mut(number).map(|(_, at)| mem::take(at)).unwrap_or_default();
            let Some(first) = holders.first().and_then(|at| descriptors.get(*at)) else { continue };
            let sock = memory.sock(sk)?;
            let (details, file) = reader.read(first, &sock)?;
            let references = references(&descriptors, &holders);
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
        let mut inet = inet::find(&descriptors, memory, locking)?;
        let netlink::Found { netlink, protocols } = netlink::find(&descriptors, &inet)?;
        let answered = locking.answered();
        let ledger = store.map(|store| tracked(store, records, &sockets, &inet)).transpose()?;
        if let Some(ledger) = &ledger {
            inet::order_by_binding(&mut inet, ledger);
        }
        memory.look_anew();
        tracing::debug!("the ledger is looked up");
        let (view, inet_view) = (View::default(), InetView::default());
        Ok(Self {
            descriptors,
            sockets,
            inet,
            netlink,
            protocols,
            answered,
            passed,
            files,
            view,
            inet_view,
            ledger,
        })
    }

    /// Looks up once more what was tracked: sockets of others may have gone since.
    ///
    /// # Errors
    /// A question that the kernel refuses.
    pub fn look_up_again(&mut self, store: Option<&Store>) -> Result<(), DumpError> {
        let nothing = HashMap::default();
        let look_up = |store| tracked(store, &nothing, &self.sockets, &self.inet);
        self.ledger = store.map(look_up).transpose()?;
        Ok(())
    }

    /// The sockets as they are to be judged: all but those that were not accepted yet, of which sock_diag
    /// does not tell.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        let accepted = self.sockets.iter().filter(|socket| socket.waits_at.is_none());
        accepted.map(|socket| socket.held).collect()
    }

    /// The internet sockets as they are to be judged.
    #[must_use]
    pub fn held_inet(&self) -> Vec<Held> {
        self.inet.iter().map(|socket| socket.held).collect()
    }
}

/// Which descriptors lead to each socket, by the address of its sock, in order of first descriptor.
pub(super) fn holders(
    descriptors: &[SocketDescriptor],
    fits: impl Fn(&SocketDescriptor) -> bool,
) -> Vec<(u64, Vec<usize>)> {
    let mut found: Vec<(u64, Vec<usize>)> = Vec::new();
    let mut places: HashMap<u64, usize> = HashMap::default();
    for (position, descriptor) in descriptors.iter().enumerate().filter(|(_, d)| fits(d)) {
        let sk = descriptor.socket.sk;
        let place = *places.entry(sk).or_insert(found.len());
        match found.get_mut(place) {
            Some((_, holders)) => holders.push(position),
            None => found.push((sk, vec![position])),
        }
    }
    found
}

/// References to a socket's file that are not these descriptors.
pub(super) fn references(descriptors: &[SocketDescriptor], holders: &[usize]) -> u64 {
    let known = u64::try_from(holders.len()).unwrap_or(u64::MAX);
    let all = holders.iter().filter_map(|at| descriptors.get(*at));
    all.map(|descriptor| descriptor.references).max().unwrap_or(0).saturating_sub(known)
}

/// Looks up the sockets, their peers and their listeners in the pinned ledger: by key, so that
/// the cost does not grow with the sockets of the whole host.
///
/// `records`: what has been read already.
fn tracked(
    store: &Store,
    records: &HashMap<u64, Record>,
    sockets: &[Stock],
    inet: &[InetStock],
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
        let is_path = record.family == AF_UNIX
            && record.name.as_bytes().first().is_some_and(|first| *first != 0);
        let paths = if is_path { store.bind_paths(sk)? } else { None };
        let socket = Tracked::new(&record, paths.as_ref())?;
        related.extend(socket.peer.map(|peer| peer.sk));
        related.extend(socket.listener.map(|listener| listener.sk));
        ledger.insert(socket);
        Ok(())
    };
    let all = sockets.iter().map(|socket| socket.held).chain(inet.iter().map(|socket| socket.held));
    for held in all {
        look_up(held.sk, &mut related)?;
    }
    // Only one step further: the peer's inode and the listener's directories are what is asked for.
    let mut ignored = Vec::new();
    for sk in related {
        look_up(sk, &mut ignored)?;
    }
    Ok(ledger)
}
