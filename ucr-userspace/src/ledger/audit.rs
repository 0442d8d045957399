//! The ledger held against what an iterator reads in the kernel, field by field. Pure.
//!
//! This is the judgement of the truth test. The two sides do not say the same things in the same
//! words, so each field has a normal form; what is set apart is counted, never dropped.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

use ucr_common::{
    identity::SocketId,
    inet::AF_UNIX,
    record::{FLAG_PAIRING, FLAG_PEER_CLOSED, FLAG_UNANNOUNCED, Record},
};

use super::TrackedInet;
use crate::model::{UnixName, inet::Endpoint};

/// `TCP_CLOSE`.
const UNCONNECTED: u32 = 7;
/// `TCP_LISTEN`.
const LISTENING: u32 = 10;

/// What the comparison found.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    /// Sockets that both sides have.
    pub compared: usize,
    /// Socks that a running `connect` has made and not connected yet: see [`is_unborn`].
    pub unborn: usize,
    /// Records of network namespaces that were not visited: nothing can be said of them.
    pub unvisited: usize,
    /// Where the two disagree.
    pub discrepancies: Vec<Discrepancy>,
}

/// One socket on which the two sides disagree. Two of them are equal if they say the very same: what
/// stands in one comparison and has another value in the next is the kernel at work, not an error.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Discrepancy {
    /// Address of the sock.
    pub sk: u64,
    /// Its cookie (of a stale one: as the ledger has it, 0 if that does not know).
    pub cookie: u64,
    /// What is wrong.
    pub kind: Kind,
}

/// In which way they disagree.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The kernel has it, the ledger does not.
    Missing,
    /// The ledger has it, the kernel does not.
    Stale,
    /// Both have it, and these fields differ.
    Wrong(Vec<Difference>),
}

impl Kind {
    /// Its name in output.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::Wrong(_) => "wrong",
        }
    }
}

/// A field with two values, as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Difference {
    /// Which.
    pub field: Field,
    /// What the ledger has.
    pub ledger: String,
    /// What the kernel has.
    pub kernel: String,
}

/// The fields that are compared. The cookie is none of them: it says whether the two records are of
/// one socket at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// Inode number; an embryo has none, on both sides.
    Inode,
    /// `SOCK_*`.
    Type,
    /// `AF_*`.
    Family,
    /// `IPPROTO_*`.
    Protocol,
    /// `sk_state`.
    State,
    /// Own name, as bytes.
    Name,
    /// Own end of an internet socket.
    Local,
    /// The other end.
    Remote,
    /// The other end, as long as it lives.
    Peer,
    /// Where an embryo waits.
    Listener,
    /// `sk_shutdown`.
    Shutdown,
    /// Of a listener: `sk_max_ack_backlog`.
    Backlog,
    /// Inode number of the network namespace.
    Netns,
    /// What the ledger says for itself alone, and what cannot be: see [`Sides::history`].
    History,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inode => "inode",
            Self::Type => "type",
            Self::Family => "family",
            Self::Protocol => "protocol",
            Self::State => "state",
            Self::Name => "name",
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Peer => "peer",
            Self::Listener => "listener",
            Self::Shutdown => "shutdown",
            Self::Backlog => "backlog",
            Self::Netns => "netns",
            Self::History => "history",
        })
    }
}

impl fmt::Display for Discrepancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sock {:#x} cookie {}", self.kind.name(), self.sk, self.cookie)?;
        let Kind::Wrong(differences) = &self.kind else { return Ok(()) };
        for Difference { field, ledger, kernel } in differences {
            write!(f, ", {field}: ledger {ledger}, kernel {kernel}")?;
        }
        Ok(())
    }
}

/// Compares the ledger with the records that a pass over these network namespaces made.
#[must_use]
pub fn audit(ledger: &[Record], kernel: &[Record], visited: &BTreeSet<u32>) -> Audit {
    let sides = Sides { ledger: Side::new(ledger), kernel: Side::new(kernel), visited };
    let mut audit = Audit::default();
    for (sk, real) in &sides.kernel.records {
        let id = real.socket;
        match sides.ledger.records.get(sk) {
            Some(known) if agree(known.socket.cookie, id.cookie) => {
                audit.compared += 1;
                let differences = sides.differences(known, real);
                if !differences.is_empty() {
                    audit.report(id, Kind::Wrong(differences));
                }
            }
            _ if is_unborn(real) => audit.unborn += 1,
            _ => audit.report(id, Kind::Missing),
        }
    }
    for (sk, known) in &sides.ledger.records {
        let is_there = sides
            .kernel
            .records
            .get(sk)
            .is_some_and(|real| agree(known.socket.cookie, real.socket.cookie));
        if is_there {
            continue;
        }
        // Internet sockets are found by their descriptors, wherever they are.
        if known.family != AF_UNIX || visited.contains(&known.netns) {
            audit.report(known.socket, Kind::Stale);
        } else {
            audit.unvisited += 1;
        }
    }
    audit.discrepancies.sort_unstable();
    audit
}

impl Audit {
    fn report(&mut self, id: SocketId, kind: Kind) {
        self.discrepancies.push(Discrepancy { sk: id.sk, cookie: id.cookie, kind });
    }
}

/// Whether this is the accepting end that `connect` makes before it finds out whether it may connect
/// (`unix_stream_connect`: "First of all allocate resources"). It stands in the kernel's table
/// while the call waits for room in the backlog, belongs to nobody, and goes unseen if the call fails.
///
/// A socket that was born has an inode or, as an embryo, a peer pointer, which it keeps when its
/// client closes.
#[must_use]
pub fn is_unborn(real: &Record) -> bool {
    real.socket.inode == 0 && real.peer.sk == 0 && real.state == UNCONNECTED
}

/// The records of one side by the address of the sock.
struct Side<'a> {
    records: HashMap<u64, &'a Record>,
}

impl<'a> Side<'a> {
    /// An address that was used again during the pass stands for the sock that was met last.
    fn new(records: &'a [Record]) -> Self {
        Self { records: records.iter().map(|record| (record.socket.sk, record)).collect() }
    }

    /// The living socket that an identity means, as this side knows it now: an embryo may have got its
    /// inode, and somebody may have asked for its cookie, since the identity was noted.
    fn resolve(&self, noted: &SocketId) -> Option<&'a Record> {
        self.records.get(&noted.sk).copied().filter(|found| is_one(noted, &found.socket))
    }
}

struct Sides<'a> {
    ledger: Side<'a>,
    kernel: Side<'a>,
    visited: &'a BTreeSet<u32>,
}

impl Sides<'_> {
    fn differences(&self, known: &Record, real: &Record) -> Vec<Difference> {
        let mut found = Differences(Vec::new());
        found.number(Field::Inode, known.socket.inode, real.socket.inode);
        found.number(Field::Type, known.socket_type, real.socket_type);
        found.number(Field::Family, known.family, real.family);
        found.number(Field::Protocol, known.protocol, real.protocol);
        found.number(Field::State, known.state, real.state);
        if known.family == AF_UNIX {
            self.unix(known, real, &mut found);
        } else {
            Self::ends(known, real, &mut found);
        }
        found.number(Field::Shutdown, known.shutdown, real.shutdown);
        // A socket that is no listener may have a backlog as well: `unix_create1` sets it to
        // `net.unix.max_dgram_qlen`. It says nothing.
        if real.state == LISTENING {
            found.number(Field::Backlog, known.backlog, real.backlog);
        }
        found.number(Field::Netns, known.netns, real.netns);
        Self::history(known, &mut found);
        found.0
    }

    /// What only unix sockets have.
    fn unix(&self, known: &Record, real: &Record, found: &mut Differences) {
        let names = [known, real].map(|side| UnixName::from_sun_path(side.name.as_bytes()));
        let [ours, theirs] = &names;
        if known.name.as_bytes() != real.name.as_bytes() {
            found.differ(Field::Name, ours.to_string(), theirs.to_string());
        }
        self.peers(known, real, found);
        self.listeners(known, real, found);
    }

    /// The two ends of an internet socket. What one that is closed was connected to means nothing.
    fn ends(known: &Record, real: &Record, found: &mut Differences) {
        let shown = |end: Option<Endpoint>| end.map_or("none".to_owned(), |end| end.to_string());
        let ends = |record| {
            let inet = TrackedInet::of(record).ok().flatten();
            inet.map_or([None, None], |inet| [inet.local, inet.remote])
        };
        let fields = [Field::Local, Field::Remote];
        for (field, (ours, theirs)) in
            fields.into_iter().zip(ends(known).into_iter().zip(ends(real)))
        {
            if ours != theirs {
                found.differ(field, shown(ours), shown(theirs));
            }
        }
    }

    /// The kernel keeps no history to hold the ledger's against, but some of it is plainly not so: a
    /// socket without a name that was bound (a `bind` that failed was taken for one that did not), and
    /// a note of a call under way where none is.
    fn history(known: &Record, found: &mut Differences) {
        if known.bound_at != 0 && known.name.len == 0 {
            let ledger = format!("bound at {}", known.bound_at);
            found.differ(Field::History, ledger, "no name".to_owned());
        }
        let under_way = known.flags & (FLAG_UNANNOUNCED | FLAG_PAIRING);
        if under_way != 0 {
            let ledger = format!("a call under way (flags {under_way:#x})");
            found.differ(Field::History, ledger, "none".to_owned());
        }
    }

    /// A stream keeps the pointer to its peer when that has closed, a datagram socket until it sends
    /// the next time. The sock it points to is not in the kernel's table any more then, and its
    /// memory, which the pointer holds, cannot be another one's.
    fn peers(&self, known: &Record, real: &Record, found: &mut Differences) {
        let ours = self.ledger.resolve(&known.peer).filter(|_| !is_peer_closed(known));
        let theirs = self.kernel.resolve(&real.peer);
        // A path leads into any namespace, also into one that was not visited: then the kernel's
        // pointer is all there is to hold against.
        if let (Some(ours), None) = (ours, theirs)
            && ours.socket.sk == real.peer.sk
            && !self.visited.contains(&ours.netns)
        {
            return;
        }
        let (ours, theirs) = (ours.map(|peer| peer.socket), theirs.map(|peer| peer.socket));
        let is_same = match (ours, theirs) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => is_one(&ours, &theirs),
            _ => false,
        };
        if !is_same {
            let of_ledger = ours.map_or_else(|| lost(&known.peer), |peer| shown(&peer));
            let of_kernel = theirs.map_or_else(|| lost(&real.peer), |peer| shown(&peer));
            found.differ(Field::Peer, of_ledger, of_kernel);
        }
    }

    /// The kernel forgets the listener when the connection is accepted (`unix_update_edges`), older
    /// kernels never know it; the ledger remembers it for ever. So only what the kernel says counts.
    fn listeners(&self, known: &Record, real: &Record, found: &mut Differences) {
        let Some(theirs) = self.kernel.resolve(&real.listener) else { return };
        let ours = self.ledger.resolve(&known.listener).map_or(known.listener, |is| is.socket);
        if !is_one(&ours, &theirs.socket) {
            found.differ(Field::Listener, shown(&ours), shown(&theirs.socket));
        }
    }
}

fn is_peer_closed(known: &Record) -> bool {
    known.flags & FLAG_PEER_CLOSED != 0
}

/// Whether two values can be the same: 0 is not known.
fn agree(a: u64, b: u64) -> bool {
    a == 0 || b == 0 || a == b
}

/// Whether both mean one socket: by the cookie if both have it. An inode that is not known says
/// nothing, as a cookie.
fn is_one(one: &SocketId, other: &SocketId) -> bool {
    if one.cookie != 0 && other.cookie != 0 {
        one.cookie == other.cookie
    } else {
        one.sk == other.sk && agree(one.inode, other.inode)
    }
}

fn shown(id: &SocketId) -> String {
    match id.sk {
        0 => "none".to_owned(),
        sk => format!("{sk:#x} (cookie {}, inode {})", id.cookie, id.inode),
    }
}

/// No living socket, and which one it was.
fn lost(noted: &SocketId) -> String {
    match noted.sk {
        0 => "none".to_owned(),
        _ => format!("none (was {})", shown(noted)),
    }
}

struct Differences(Vec<Difference>);

impl Differences {
    fn number<N: Copy + PartialEq + fmt::Display>(&mut self, field: Field, ledger: N, kernel: N) {
        if ledger != kernel {
            self.differ(field, ledger.to_string(), kernel.to_string());
        }
    }

    fn differ(&mut self, field: Field, ledger: String, kernel: String) {
        self.0.push(Difference { field, ledger, kernel });
    }
}

#[cfg(test)]
mod tests;
