//! All live unix sockets at one moment, with everybody who holds them.
//!
//! Two passes run side by side: one over the descriptors of all processes, which shows each socket as its
//! holder has it, and one over the kernel's own tables, which finds what no descriptor leads to: connections
//! that nobody has accepted, sockets in messages, those that the kernel or io_uring keeps. What else there is to
//! know (what was tracked, who a process is) is looked up when somebody asks for it.

use std::{
    cell::{OnceCell, RefCell},
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt as _,
    rc::Rc,
    thread,
};

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
        programs::{Programs, Scope, Sight},
        store::Store,
    },
};

/// A live socket.
#[derive(Debug)]
pub struct Live {
    /// As it was seen; if several descriptors lead to it, as the first one showed it.
    pub sight: Sight,
    /// Who holds it: nearly always one.
    first: Option<Holder>,
    more: Vec<Holder>,
}

impl Live {
    /// Who holds it.
    pub fn holders(&self) -> impl ExactSizeIterator<Item = &Holder> + Clone {
        Holders { first: self.first.as_ref(), more: self.more.iter() }
    }

    fn add(&mut self, holder: Holder) {
        match (&self.first, self.more.last()) {
            (None, _) => self.first = Some(holder),
            // The kernel may show a descriptor again after a full buffer.
            (Some(last), None) | (Some(_), Some(last)) if *last == holder => {}
            _ => self.more.push(holder),
        }
    }
}

/// Those who hold a socket.
#[derive(Clone)]
struct Holders<'a> {
    first: Option<&'a Holder>,
    more: std::slice::Iter<'a, Holder>,
}

impl<'a> Iterator for Holders<'a> {
    type Item = &'a Holder;

    fn next(&mut self) -> Option<&'a Holder> {
        self.first.take().or_else(|| self.more.next())
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
    /// Its name without the padding.
    #[must_use]
    pub fn comm(&self) -> &[u8] {
        let end = self.comm.iter().position(|byte| *byte == 0).unwrap_or(self.comm.len());
        self.comm.split_at(end).0
    }
}

/// All of it.
pub struct Picture<'a> {
    /// In order of address.
    sockets: Vec<Live>,
    /// The addresses alone: they are searched.
    addresses: Vec<u64>,
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
        let (sights, all) = thread::scope(|threads| {
            let all = threads.spawn(|| programs.see_addresses(scope));
            let sights = programs.see_descriptors(None);
            (sights, all.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload)))
        });
        let (sights, (all, pass)) = (sights?, all?);
        let mut incomplete: Vec<String> = pass.failed.iter().map(|e| one_line(e)).collect();
        if all.left_out > 0 {
            incomplete.push(format!(
                "{} sockets more than there is room for were not looked at, unless somebody holds them",
                all.left_out
            ));
        }
        let mut sockets = gather(sights);
        for address in unheld(all.addresses, &sockets) {
            // One that has gone since is none.
            if let Some(sight) = programs.look(address)? {
                sockets.push(Live { sight, first: None, more: Vec::new() });
            }
        }
        look_for_peers(programs, &mut sockets)?;
        // What no descriptor leads to stands behind all others so far.
        sockets.sort_by_key(|live| live.sight.raw.socket.sk);
        let addresses: Vec<u64> = sockets.iter().map(|live| live.sight.raw.socket.sk).collect();
        let peers = peers(&sockets, &addresses);
        let mut order: Vec<(bool, u64, u64, usize)> = sockets
            .iter()
            .map(|live| live.sight.raw.socket)
            .enumerate()
            .map(|(at, id)| (id.inode == 0, id.inode, id.cookie, at))
            .collect();
        order.sort_unstable();
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
            addresses,
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
        self.entry(self.addresses.binary_search(&address).ok()?)
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

/// Looks at peers that neither pass came across: they were made in between, or are in a network namespace
/// that was not visited. What is found may have such a peer itself.
fn look_for_peers(programs: &Programs, sockets: &mut Vec<Live>) -> Result<(), TracerError> {
    let mut known: HashSet<u64> = sockets.iter().map(|live| live.sight.raw.socket.sk).collect();
    let mut next = 0;
    while let Some(live) = sockets.get(next) {
        next += 1;
        let address = live.sight.raw.peer.sk;
        if address == 0 || !known.insert(address) {
            continue;
        }
        if let Some(sight) = programs.look(address)? {
            sockets.push(Live { sight, first: None, more: Vec::new() });
        }
    }
    Ok(())
}

/// Addresses at which no descriptor leads to a socket; those are in order.
fn unheld(mut addresses: Vec<u64>, held: &[Live]) -> Vec<u64> {
    addresses.sort_unstable();
    addresses.dedup();
    let mut held = held.iter().map(|live| live.sight.raw.socket.sk).peekable();
    addresses.retain(|address| {
        while held.next_if(|sk| sk < address).is_some() {}
        held.peek() != Some(address)
    });
    addresses
}

/// Where the peer of each socket is. Looked up once: a listing asks several times.
fn peers(sockets: &[Live], addresses: &[u64]) -> Vec<Option<usize>> {
    let place = |live: &Live| match live.sight.raw.peer.sk {
        0 => None,
        address => addresses.binary_search(&address).ok(),
    };
    sockets.iter().map(place).collect()
}

/// Puts descriptors of the same socket together.
fn gather(sights: Vec<Sight>) -> Vec<Live> {
    // What is sorted are positions: the sights are large.
    let mut order: Vec<(u64, u32, u32, usize)> = sights
        .iter()
        .enumerate()
        .map(|(at, sight)| (sight.raw.socket.sk, sight.raw.tid, sight.raw.fd, at))
        .collect();
    order.sort_unstable();
    let mut sights: Vec<Option<Sight>> = sights.into_iter().map(Some).collect();
    let mut sockets: Vec<Live> = Vec::with_capacity(order.len());
    for (sk, _, _, at) in order {
        let Some(sight) = sights.get_mut(at).and_then(Option::take) else { continue };
        let raw = &sight.raw;
        let holder =
            Holder { pid: raw.pid, tid: raw.tid, fd: raw.fd, uid: raw.holder_uid, comm: raw.comm };
        match sockets.last_mut() {
            // An address that was used again in the middle of the pass has another cookie.
            Some(last)
                if last.sight.raw.socket.sk == sk
                    && last.sight.raw.socket.cookie == raw.socket.cookie =>
            {
                last.add(holder);
            }
            Some(last) if last.sight.raw.socket.sk == sk => {
                *last = Live { sight, first: Some(holder), more: Vec::new() };
            }
            _ => sockets.push(Live { sight, first: Some(holder), more: Vec::new() }),
        }
    }
    sockets
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
