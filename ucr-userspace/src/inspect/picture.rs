//! All live unix sockets at one moment, with everybody who holds them.
//!
//! Two passes run side by side: one over the descriptors of all processes, which shows each socket as its
//! holder has it, and one over the kernel's own tables, which finds what no descriptor leads to: connections
//! that nobody has accepted, sockets in messages, those that the kernel or io_uring keeps. What else there is to
//! know (what was tracked, who a process is) is looked up when somebody asks for it.

use std::{
    cell::RefCell,
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
    /// Who holds it.
    pub holders: Vec<Holder>,
}

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
    /// In order of inode, those without one last.
    sockets: Vec<Live>,
    /// Addresses with positions in `sockets`, in order.
    places: Vec<(u64, usize)>,
    /// What could not be looked at, in words.
    pub incomplete: Vec<String>,
    /// Which namespaces were visited for what no descriptor leads to.
    namespaces: HashSet<u64>,
    store: Option<&'a Store>,
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
        let held: HashSet<u64> = sockets.iter().map(|live| live.sight.raw.socket.sk).collect();
        for address in all.addresses {
            if held.contains(&address) {
                continue;
            }
            // One that has gone since is none.
            if let Some(sight) = programs.look(address)? {
                sockets.push(Live { sight, holders: Vec::new() });
            }
        }
        if scope == Scope::OwnNamespace {
            sockets.retain(|live| u64::from(live.sight.raw.netns) == own);
        }
        sockets.sort_by_key(|live| {
            let id = &live.sight.raw.socket;
            (id.inode == 0, id.inode, id.cookie)
        });
        let mut places: Vec<(u64, usize)> =
            sockets.iter().enumerate().map(|(at, live)| (live.sight.raw.socket.sk, at)).collect();
        places.sort_unstable();
        Ok(Self {
            sockets,
            places,
            incomplete,
            namespaces: pass.namespaces.into_iter().collect(),
            store,
            tracked: RefCell::default(),
            people: People::default(),
        })
    }

    /// Each socket once.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.sockets.iter().map(|live| Entry { picture: self, live })
    }

    /// The socket at an address.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<Entry<'_>> {
        let found = self.places.binary_search_by_key(&address, |(sk, _)| *sk).ok()?;
        let live = self.sockets.get(self.places.get(found)?.1)?;
        Some(Entry { picture: self, live })
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

/// Puts descriptors of the same socket together.
fn gather(mut sights: Vec<Sight>) -> Vec<Live> {
    // The kernel may show a descriptor again after a full buffer.
    sights.sort_unstable_by_key(|s| (s.raw.socket.sk, s.raw.pid, s.raw.tid, s.raw.fd));
    let mut sockets: Vec<Live> = Vec::with_capacity(sights.len());
    for sight in sights {
        let raw = &sight.raw;
        let holder =
            Holder { pid: raw.pid, tid: raw.tid, fd: raw.fd, uid: raw.holder_uid, comm: raw.comm };
        match sockets.last_mut() {
            Some(last) if last.sight.raw.socket.sk == raw.socket.sk => {
                // An address that was used again in the middle of the pass has another cookie.
                if last.sight.raw.socket.cookie != raw.socket.cookie {
                    *last = Live { sight, holders: vec![holder] };
                } else if last.holders.last() != Some(&holder) {
                    last.holders.push(holder);
                }
            }
            _ => sockets.push(Live { sight, holders: vec![holder] }),
        }
    }
    sockets
}

/// A socket in its surroundings.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    picture: &'a Picture<'a>,
    live: &'a Live,
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
        let address = self.live.sight.raw.peer.sk;
        if address == 0 { None } else { self.picture.at(address) }
    }

    /// What it is up to.
    #[must_use]
    pub fn condition(&self) -> Condition {
        use crate::model::SocketState;
        let raw = &self.live.sight.raw;
        match SocketState::from_raw(raw.state) {
            Some(SocketState::Listening) => Condition::Listening,
            Some(SocketState::Unconnected) => Condition::Unconnected,
            Some(SocketState::Connected) if is_embryo(&self.live.sight) => Condition::NotAccepted,
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
