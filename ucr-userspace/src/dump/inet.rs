//! The internet sockets of stopped processes, by their descriptors.

use foldhash::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};

use ucr_common::descriptor::SocketDescriptor;

use super::{DumpError, inventory, locking::Locking, owner_of, reader::Duplicates};
use crate::{
    crosscheck::Held,
    ledger::Ledger,
    lock::Connection,
    model::{
        InetView, Pid, SeenInet, SocketType,
        inet::{Family, Over, Protocol, TcpState},
    },
    process::{
        inet::{self, InetDetails, InetStates},
        state::StateError,
        states::Unknown,
    },
    snapshot::{
        diag::{self, DiagError},
        memory::{Memory, TOGETHER},
    },
};

/// One internet socket.
#[derive(Debug)]
pub struct InetStock {
    /// Under which identities it is known.
    pub held: Held,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Positions in [`Inventory::descriptors`](super::inventory::Inventory::descriptors).
    pub holders: Vec<usize>,
    /// What it says itself, and the kernel's memory.
    pub details: InetDetails,
    /// References to its file that are neither its holders' nor ours.
    pub references: u64,
    /// A descriptor of it, if it is a TCP connection: whoever ends its holders has to see to it that nothing is sent.
    pub connection: Option<OwnedFd>,
}

/// Puts those that share a port of UDP without `SO_REUSEPORT` in the order in which they were bound, among themselves:
/// whoever was bound last gets what comes (`udp4_lib_lookup2` takes the first of a list that grows at its head). Where
/// somebody's binding was not seen, nobody knows better than their descriptors.
pub(super) fn order_by_binding(sockets: &mut [InetStock], ledger: &Ledger) {
    let mut sharing: HashMap<(Protocol, u16), Vec<usize>> = HashMap::default();
    for (at, stock) in sockets.iter().enumerate() {
        let inet = &stock.details.inet;
        if let (true, None, Some(local)) = (inet.protocol.is_datagram(), inet.turn, inet.local) {
            sharing.entry((inet.protocol, local.port)).or_default().push(at);
        }
    }
    for places in sharing.into_values().filter(|places| places.len() > 1) {
        let bound_at = |at: &usize| ledger.get(sockets.get(*at)?.held.sk)?.bound_at;
        let times: Option<Vec<u64>> = places.iter().map(bound_at).collect();
        let Some(mut times) = times else { continue };
        // Few share a port: each is put where it belongs by exchanging two.
        for first in 0..places.len() {
            let earliest = (first..places.len()).min_by_key(|at| times.get(*at).copied());
            if let (Some(other), Some(here)) = (earliest, places.get(first))
                && let Some(there) = places.get(other)
            {
                times.swap(first, other);
                sockets.swap(*here, *there);
            }
        }
    }
}

/// Takes stock of them: of UDP, UDP-Lite and TCP, in order of first descriptor.
pub(super) fn find(
    descriptors: &[SocketDescriptor],
    memory: &Memory,
    locking: &mut Locking,
) -> Result<Vec<InetStock>, DumpError> {
    let mut duplicates = Duplicates::default();
    let (mut sockets, mut found) = (Vec::new(), Vec::new());
    let all = inventory::holders(descriptors, may_be);
    for (number, (sk, holders)) in all.iter().enumerate() {
        if number.is_multiple_of(TOGETHER) {
            let together = all.iter().skip(number).take(TOGETHER);
            let first = together.filter_map(|(_, at)| descriptors.get(*at.first()?));
            memory.read_ends_ahead(first.map(|descriptor| descriptor.socket.sk));
        }
        let Some(first) = holders.first().and_then(|at| descriptors.get(*at)) else { continue };
        let (pid, fd) = owner_of(first);
        let failed = |source| DumpError::State { pid, fd, source };
        let socket = duplicates.of(first)?;
        let Some((family, protocol)) = inet::kind(socket.as_fd()).map_err(failed)? else {
            continue;
        };
        let ends = match protocol {
            Protocol::Tcp => inet::ends(socket.as_fd(), *sk, family, memory),
            _ => Ok(None),
        };
        let ends = ends.map_err(|unknown| unknown_to(unknown, failed))?;
        if let Some((local, remote)) = ends {
            locking.shut(Connection { local, remote })?;
        }
        sockets.push((holders, first, Over(protocol, family), socket, ends.is_some()));
    }
    // Whatever is read of one of them now stays as it is.
    memory.look_anew();
    let expected = sockets.iter().map(|(_, first, kind, ..)| (first.socket.sk, *kind)).collect();
    let failed = |first: &SocketDescriptor| {
        let (pid, fd) = owner_of(first);
        move |source| DumpError::State { pid, fd, source }
    };
    let Some((_, first, ..)) = sockets.first() else { return Ok(found) };
    let states = InetStates::new(memory, expected);
    let mut states = states.map_err(|unknown| unknown_to(unknown, failed(first)))?;
    for (holders, first, kind, socket, is_connection) in sockets {
        let details = states.read(socket.as_fd(), first, kind);
        let details = details.map_err(|unknown| unknown_to(unknown, failed(first)))?;
        found.push(InetStock {
            held: Held { sk: first.socket.sk, inode: details.inode, cookie: details.cookie },
            netns: first.netns,
            references: inventory::references(descriptors, holders),
            holders: holders.clone(),
            details,
            connection: is_connection.then_some(socket),
        });
    }
    Ok(found)
}

fn unknown_to(
    unknown: Unknown<StateError>,
    failed: impl FnOnce(StateError) -> DumpError,
) -> DumpError {
    match unknown {
        Unknown::OutOfReach(source) | Unknown::Refused(source) => failed(source),
        Unknown::Senseless(error) => error.into(),
    }
}

/// What the kernel tells of them, to hold what was tracked against: sock_diag, and of those that are in none of the
/// kernel's tables they themselves.
pub(super) fn view(stocks: &[InetStock], root: Pid) -> Result<InetView, DiagError> {
    let mut kinds: Vec<Over> = Vec::new();
    for stock in stocks {
        let kind = kind_of(stock);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let mut view = diag::inet_sockets_of(root.0, &kinds)?;
    let held: HashMap<u64, &InetStock> = stocks.iter().map(|s| (s.held.cookie, s)).collect();
    view.sockets.retain(|cookie, _| held.contains_key(cookie));
    for (cookie, stock) in held {
        if is_nowhere(stock) {
            view.sockets.entry(cookie).or_insert_with(|| asked(stock));
        }
    }
    Ok(view)
}

fn kind_of(stock: &InetStock) -> Over {
    Over(stock.details.inet.protocol, stock.details.inet.family)
}

/// Whether the kernel may have it in no table: a TCP socket that is closed (bound ones it tells of since 6.8), a UDP
/// socket without a port.
fn is_nowhere(stock: &InetStock) -> bool {
    let has_port = stock.details.inet.local.is_some_and(|local| local.port != 0);
    let is_datagram = stock.details.inet.protocol.is_datagram();
    stock.details.state == TcpState::Closed && !(is_datagram && has_port)
}

fn asked(stock: &InetStock) -> SeenInet {
    let details = &stock.details;
    SeenInet {
        inode: stock.held.inode,
        cookie: stock.held.cookie,
        kind: kind_of(stock),
        state: details.state,
        local: details.inet.local,
        remote: details.inet.remote,
        shutdown: details.shutdown,
        backlog: details.backlog.unwrap_or(0),
    }
}

/// Whether it can be one of those: what there is beside them only the socket itself tells.
fn may_be(descriptor: &SocketDescriptor) -> bool {
    let family = i32::try_from(descriptor.family).ok().and_then(Family::from_raw);
    let kind = i32::try_from(descriptor.socket_type).ok().and_then(SocketType::from_raw);
    let is_usual = matches!(kind, Some(SocketType::Stream | SocketType::Dgram));
    family.is_some() && is_usual && descriptor.tid == descriptor.pid
}
