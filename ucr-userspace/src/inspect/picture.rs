//! All live unix sockets at one moment, with everybody who holds them.
//!
//! Two passes run side by side: one over the descriptors of all processes, which shows each socket as its
//! holder has it, and one over the kernel's own tables, which finds what no descriptor leads to: connections
//! that nobody has accepted, sockets in messages, those that the kernel or io_uring keeps. What else there is to
//! know (what was tracked, who a process is) is looked up when somebody asks for it.

use std::{
    cell::{OnceCell, RefCell},
    collections::{HashMap, HashSet, hash_map},
    fs,
    os::unix::fs::MetadataExt as _,
    rc::Rc,
    sync::mpsc,
    thread,
};

use ucr_common::sighting::{NO_FD, Sighting};

use super::{
    people::People,
    tracked::{self, Known},
};
use crate::{
    causes::one_line,
    ledger::Tracked,
    model::{Count, SocketState},
    tracer::{
        TracerError,
        programs::{Parser, Programs, Scope, Sight},
        store::Store,
    },
};

/// A live socket.
#[derive(Debug)]
pub struct Live {
    /// As it was seen; if several descriptors lead to it, as the first one showed it.
    pub sight: Sight,
    /// Who else holds it: nearly always nobody.
    more: Vec<Holder>,
}

impl Live {
    fn new(sight: Sight) -> Self {
        Self { sight, more: Vec::new() }
    }

    /// Who holds it.
    pub fn holders(&self) -> impl ExactSizeIterator<Item = Holder> + Clone {
        Holders { first: Holder::of(&self.sight), more: self.more.iter() }
    }

    fn add(&mut self, holder: Holder) {
        let last = self.more.last().copied().or_else(|| Holder::of(&self.sight));
        // The kernel may show a descriptor again after a full buffer.
        if last != Some(holder) {
            self.more.push(holder);
        }
    }
}

/// Those who hold a socket.
#[derive(Clone)]
struct Holders<'a> {
    first: Option<Holder>,
    more: std::slice::Iter<'a, Holder>,
}

impl Iterator for Holders<'_> {
    type Item = Holder;

    fn next(&mut self) -> Option<Holder> {
        self.first.take().or_else(|| self.more.next().copied())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let length = self.more.len() + usize::from(self.first.is_some());
        (length, Some(length))
    }
}

impl ExactSizeIterator for Holders<'_> {}

/// A descriptor that leads to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Process, in the initial pid namespace.
    pub pid: u32,
    /// Thread: another one only if it has a descriptor table of its own.
    pub tid: u32,
    /// Descriptor.
    pub fd: u32,
    /// Real user id of the process.
    pub uid: u32,
    /// Its name, NUL-padded.
    pub comm: [u8; 16],
}

impl Holder {
    /// Whose descriptor led to a sight; nobody's, if its address did.
    pub(super) fn of(sight: &Sight) -> Option<Self> {
        let Sighting { pid, tid, fd, holder_uid: uid, comm, .. } = sight.raw;
        (fd != NO_FD).then_some(Self { pid, tid, fd, uid, comm })
    }

    /// Its name without the padding.
    #[must_use]
    pub fn comm(&self) -> &[u8] {
        let end = self.comm.iter().position(|byte| *byte == 0).unwrap_or(self.comm.len());
        self.comm.split_at(end).0
    }
}

/// All of it.
pub struct Picture<'a> {
    sockets: Vec<Live>,
    /// Where the one at an address is.
    places: Places,
    /// For each of `sockets` where its peer is.
    peers: Vec<Option<usize>>,
    /// Where they are, in order of inode; those without one last.
    order: Vec<usize>,
    /// What could not be looked at, in words.
    pub incomplete: Vec<String>,
    /// Tasks whose network namespace may not be looked at.
    pub hidden_tasks: usize,
    /// Which namespaces were visited for what no descriptor leads to.
    namespaces: HashSet<u64>,
    store: Option<&'a Store>,
    /// Listeners by where their name is kept; made when somebody asks.
    listeners: OnceCell<HashMap<u64, usize>>,
    tracked: RefCell<HashMap<u64, Rc<Known>>>,
    /// Who processes and users are.
    pub people: People,
}

impl<'a> Picture<'a> {
    /// Takes it. With `store`, what was tracked is at hand.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take(
        programs: &Programs,
        store: Option<&'a Store>,
        scope: Scope,
    ) -> Result<Self, TracerError> {
        let own = fs::metadata("/proc/self/ns/net").map_or(0, |facts| facts.ino());
        let mut found = Found::default();
        let (descriptors, all) = thread::scope(|threads| {
            let all = threads.spawn(|| programs.see_addresses(scope));
            let (pieces, poured) = mpsc::sync_channel(PIECES);
            let descriptors = threads.spawn(move || {
                // Whoever takes them goes on until there are no more.
                programs.pour_descriptors(None, |piece| drop(pieces.send(piece)))
            });
            let mut parser = Parser::default();
            for piece in poured {
                parser.take(&piece, |sight| found.add(sight));
            }
            (joined(descriptors), joined(all))
        });
        descriptors?;
        let (all, pass) = all?;
        let mut incomplete: Vec<String> = pass.failed.iter().map(|e| one_line(e)).collect();
        if all.left_out > 0 {
            incomplete.push(format!(
                "{} sockets more than there is room for were not looked at, unless somebody holds them",
                all.left_out
            ));
        }
        for address in all.addresses {
            found.look(programs, address)?;
        }
        let peers = found.peers(programs)?;
        let Found { sockets, places } = found;
        let mut order: Vec<(bool, u64, u64, usize)> = sockets
            .iter()
            .map(|live| live.sight.raw.socket)
            .enumerate()
            .map(|(at, id)| (id.inode == 0, id.inode, id.cookie, at))
            .collect();
        // Of one process they are mostly in order already, which this way to sort makes use of.
        order.sort();
        if scope == Scope::OwnNamespace {
            // They stay where they are: they may be the other end of one that is shown.
            let all = order.len();
            order.retain(|(.., at)| {
                sockets.get(*at).is_some_and(|live| u64::from(live.sight.raw.netns) == own)
            });
            let hidden = all - order.len();
            if hidden > 0 {
                incomplete.push(format!(
                    "{} of other network namespaces not shown: --all-netns shows them",
                    Count(hidden, "socket")
                ));
            }
        }
        Ok(Self {
            sockets,
            places,
            peers,
            order: order.into_iter().map(|(.., at)| at).collect(),
            incomplete,
            hidden_tasks: pass.hidden,
            namespaces: pass.namespaces.into_iter().collect(),
            store,
            listeners: OnceCell::new(),
            tracked: RefCell::default(),
            people: People::default(),
        })
    }

    /// Each socket once.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.order.iter().filter_map(|at| self.entry(*at))
    }

    /// The socket at an address.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<Entry<'_>> {
        self.entry(*self.places.get(&address)?)
    }

    /// The listener that a socket came through, if it is still there.
    #[must_use]
    pub fn listener_of(&self, entry: &Entry<'_>) -> Option<Entry<'_>> {
        let raw = &entry.live.sight.raw;
        if let Some(listener) = self.at(raw.listener.sk).filter(|_| raw.listener.sk != 0) {
            return Some(listener);
        }
        let listeners = self.listeners.get_or_init(|| {
            let listens = |live: &Live| live.sight.raw.state == SocketState::Listening.raw();
            let all = self.sockets.iter().enumerate().filter(|(_, live)| listens(live));
            all.map(|(at, live)| (live.sight.raw.address, at)).collect()
        });
        self.entry(*listeners.get(&raw.address)?)
    }

    fn entry(&self, at: usize) -> Option<Entry<'_>> {
        Some(Entry { picture: self, live: self.sockets.get(at)?, at })
    }

    /// Whether sockets that no descriptor leads to were looked for in a namespace.
    #[must_use]
    pub fn has_visited(&self, netns: u32) -> bool {
        self.namespaces.contains(&netns.into())
    }

    fn tracked(&self, sight: &Sight) -> Rc<Known> {
        let sk = sight.raw.socket.sk;
        if let Some(known) = self.tracked.borrow().get(&sk) {
            return Rc::clone(known);
        }
        let known = Rc::new(tracked::of(self.store, sight));
        self.tracked.borrow_mut().insert(sk, Rc::clone(&known));
        known
    }
}

/// How many pieces of a pass may wait to be taken apart.
const PIECES: usize = 64;

/// Addresses of the kernel's, which nobody chooses: they need no hash that resists anybody.
type Places = HashMap<u64, usize, foldhash::fast::FixedState>;

/// Sockets that have been come across.
#[derive(Default)]
struct Found {
    sockets: Vec<Live>,
    places: Places,
}

impl Found {
    /// What a descriptor leads to.
    fn add(&mut self, sight: Sight) {
        let known = match self.places.entry(sight.raw.socket.sk) {
            hash_map::Entry::Vacant(place) => {
                place.insert(self.sockets.len());
                self.sockets.push(Live::new(sight));
                return;
            }
            hash_map::Entry::Occupied(place) => self.sockets.get_mut(*place.get()),
        };
        let Some(known) = known else { return };
        match Holder::of(&sight) {
            Some(holder) if known.sight.raw.socket.cookie == sight.raw.socket.cookie => {
                known.add(holder);
            }
            // An address that was used again in the middle of the pass has another cookie.
            _ => *known = Live::new(sight),
        }
    }

    /// What no descriptor leads to. What has gone since is nothing.
    fn look(&mut self, programs: &Programs, address: u64) -> Result<Option<usize>, TracerError> {
        if let Some(place) = self.places.get(&address) {
            return Ok(Some(*place));
        }
        let Some(sight) = programs.look(address)? else { return Ok(None) };
        let place = self.sockets.len();
        self.places.insert(address, place);
        self.sockets.push(Live::new(sight));
        Ok(Some(place))
    }

    /// Where the peer of each socket is. Neither pass came across some: they were made in between, or are in a
    /// network namespace that was not visited; these are looked at, and may have such peers themselves.
    fn peers(&mut self, programs: &Programs) -> Result<Vec<Option<usize>>, TracerError> {
        let mut peers = Vec::with_capacity(self.sockets.len());
        while let Some(live) = self.sockets.get(peers.len()) {
            let peer = match live.sight.raw.peer.sk {
                0 => None,
                address => self.look(programs, address)?,
            };
            peers.push(peer);
        }
        Ok(peers)
    }
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
}

/// A socket in its surroundings.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    picture: &'a Picture<'a>,
    live: &'a Live,
    at: usize,
}

/// What a socket is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Neither connected nor listening.
    Unconnected,
    /// A listener.
    Listening,
    /// Connected, and the peer is there.
    Connected,
    /// It waits to be accepted.
    NotAccepted,
    /// It was connected, and its peer has closed.
    PeerClosed,
    /// The kernel calls it by a number that we do not know.
    Unknown,
}

impl Condition {
    /// All of them, as they are called.
    pub const NAMES: [&'static str; 6] =
        ["unconnected", "listening", "connected", "not-accepted", "peer-closed", "unknown"];

    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unconnected => "unconnected",
            Self::Listening => "listening",
            Self::Connected => "connected",
            Self::NotAccepted => "not-accepted",
            Self::PeerClosed => "peer-closed",
            Self::Unknown => "unknown",
        }
    }
}

impl<'a> Entry<'a> {
    /// The socket itself.
    #[must_use]
    pub fn live(&self) -> &'a Live {
        self.live
    }

    /// The picture that it is part of.
    #[must_use]
    pub fn picture(&self) -> &'a Picture<'a> {
        self.picture
    }

    /// The other end, if it is there.
    #[must_use]
    pub fn peer(&self) -> Option<Self> {
        self.picture.peers.get(self.at).copied().flatten().and_then(|at| self.picture.entry(at))
    }

    /// What it is up to.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let raw = &self.live.sight.raw;
        match SocketState::from_raw(raw.state) {
            Some(SocketState::Listening) => Condition::Listening,
            Some(SocketState::Unconnected) => Condition::Unconnected,
            Some(SocketState::Connected) if is_embryo(&self.live.sight) => Condition::NotAccepted,
            // A datagram socket that others are connected to: the kernel gives it this state, too.
            Some(SocketState::Connected) if raw.peer.sk == 0 => Condition::Unconnected,
            Some(SocketState::Connected) if self.has_lost_its_peer() => Condition::PeerClosed,
            Some(SocketState::Connected) => Condition::Connected,
            None => Condition::Unknown,
        }
    }

    /// A peer in a namespace that was not visited may be there, and held by nobody.
    fn has_lost_its_peer(&self) -> bool {
        self.peer().is_none() && self.picture.has_visited(self.live.sight.raw.netns)
    }

    /// What was tracked of it.
    #[must_use]
    pub fn known(&self) -> Rc<Known> {
        self.picture.tracked(&self.live.sight)
    }

    /// What was tracked of it, if anything was.
    #[must_use]
    pub fn history(&self) -> Option<Tracked> {
        self.known().tracked.clone()
    }
}

/// Whether nobody has accepted it.
#[must_use]
pub fn is_embryo(sight: &Sight) -> bool {
    use ucr_common::sighting::SIGHT_NO_SOCKET;
    sight.raw.flags & SIGHT_NO_SOCKET != 0 && sight.raw.state == 1
}

#[cfg(test)]
mod tests;
