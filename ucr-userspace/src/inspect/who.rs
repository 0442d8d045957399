//! Who is on the other end of a socket: finds the sockets that are asked about, and what belongs to them,
//! at a cost that does not grow with the sockets of the whole machine where tracing is attached.

mod describe;

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

use ucr_common::identity::Actor;

use super::{
    people::People,
    picture::{Holder, Picture, is_embryo},
    tracked,
};
use crate::{
    kernel::clock,
    model::{Pid, SeenSocket, SocketState, UnixName, VfsFile},
    process::procfs,
    query::who::{Answer, Target},
    snapshot::diag,
    tracer::{
        TracerError,
        programs::{Programs, Scope, Sight, Sought},
        store::Store,
    },
};

/// Most processes that are asked one by one who holds a socket, before all are.
const ASKED_ONE_BY_ONE: usize = 6;

/// Most sockets whose surroundings are searched for one by one, before all sockets are looked at.
const SEARCHED_ONE_BY_ONE: usize = 8;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WhoError {
    /// The kernel could not be asked.
    #[error(transparent)]
    Tracer(#[from] TracerError),
    /// The process is not there, or may not be looked at.
    #[error("look at process {pid}")]
    Process {
        /// Which.
        pid: i32,
        /// Why.
        #[source]
        source: procfs::ProcError,
    },
}

/// Finds out. An answer without subjects means that there is no such socket.
///
/// # Errors
/// See [`WhoError`].
pub fn who(
    programs: &Programs,
    store: Option<&Store>,
    target: &Target,
) -> Result<Answer, WhoError> {
    let mut search = Search {
        programs,
        store,
        seen: HashMap::new(),
        holders: HashMap::new(),
        notes: Vec::new(),
        has_seen_all: false,
        by_peer: HashMap::new(),
        by_name: HashMap::new(),
    };
    let subjects = search.find(target)?;
    if subjects.len() > SEARCHED_ONE_BY_ONE {
        search.see_all()?;
    }
    let surroundings: Vec<Surroundings> =
        subjects.into_iter().map(|sk| search.surroundings(sk)).collect::<Result<_, _>>()?;
    search.find_holders(&surroundings)?;
    search.look_closely(&surroundings)?;
    let people = People::default();
    let tracing_since = match store {
        None => None,
        Some(store) => Some(clock::to_realtime(store.control()?.attached_at)),
    };
    let subjects = surroundings.iter().filter_map(|around| search.subject(around, &people));
    Ok(Answer {
        target: target.to_string(),
        subjects: subjects.collect(),
        tracing_since,
        notes: search.notes,
    })
}

/// Addresses of what belongs to a socket.
struct Surroundings {
    sk: u64,
    peer: Option<u64>,
    /// Of a listener: each with its client.
    connections: Vec<(u64, Option<u64>)>,
    senders: Vec<u64>,
}

impl Surroundings {
    fn all(&self) -> impl Iterator<Item = u64> {
        let ends = self.connections.iter().flat_map(|(server, client)| [Some(*server), *client]);
        let ends = ends.chain([Some(self.sk), self.peer]).flatten();
        ends.chain(self.senders.iter().copied())
    }
}

struct Search<'a> {
    programs: &'a Programs,
    store: Option<&'a Store>,
    seen: HashMap<u64, Sight>,
    holders: HashMap<u64, BTreeSet<Holder>>,
    notes: Vec<String>,
    /// Every socket is in `seen`, and every descriptor in `holders`.
    has_seen_all: bool,
    /// Then: sockets by the address of their peer.
    by_peer: HashMap<u64, Vec<u64>>,
    /// Then: sockets by where their name is kept.
    by_name: HashMap<u64, Vec<u64>>,
}

impl Search<'_> {
    /// Addresses of the sockets that are asked about.
    fn find(&mut self, target: &Target) -> Result<Vec<u64>, WhoError> {
        match target {
            Target::Process { pid, fd } => self.of_process(*pid, *fd),
            Target::Inode(inode) => {
                let is_it = |sight: &Sight| sight.raw.socket.inode == u64::from(*inode);
                Ok(self.wanted(&Sought::Inode(*inode), is_it)?)
            }
            Target::Cookie(cookie) => {
                let is_it = |sight: &Sight| sight.raw.socket.cookie == *cookie;
                Ok(self.wanted(&Sought::Cookie(*cookie), is_it)?)
            }
            Target::Name(name) => self.named(name),
        }
    }

    /// The sockets with a name: of those that share it with their listener, only the listener, since they
    /// are its connections.
    fn named(&mut self, name: &UnixName) -> Result<Vec<u64>, WhoError> {
        let found = self.wanted(&Sought::Name(name), |sight: &Sight| sight.name == *name)?;
        let listeners: Vec<u64> =
            found.iter().copied().filter(|sk| self.seen.get(sk).is_some_and(is_listener)).collect();
        Ok(if listeners.is_empty() { found } else { listeners })
    }

    /// Searches the ledger; what it does not have, among all sockets.
    fn wanted(
        &mut self,
        sought: &Sought<'_>,
        is_it: impl Fn(&Sight) -> bool,
    ) -> Result<Vec<u64>, TracerError> {
        let mut found = Vec::new();
        if self.store.is_some() {
            for address in self.programs.search(sought)?.addresses {
                found.extend(self.look(address)?.filter(|sight| is_it(sight)).map(sk_of));
            }
        }
        if found.is_empty() {
            self.see_all()?;
            found.extend(self.seen.values().filter(|sight| is_it(sight)).map(sk_of));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The sockets of a process.
    fn of_process(&mut self, pid: i32, fd: Option<u32>) -> Result<Vec<u64>, WhoError> {
        let threads =
            procfs::threads(Pid(pid)).map_err(|source| WhoError::Process { pid, source })?;
        let mut found = Vec::new();
        for thread in threads {
            for sight in self.programs.see_descriptors(Some(thread.0))? {
                if fd.is_none_or(|fd| sight.raw.fd == fd) {
                    found.push(sk_of(&sight));
                }
                self.take(sight);
            }
        }
        found.sort_unstable();
        found.dedup();
        for address in &found {
            if let Some(sight) = self.programs.look(*address)?
                && self.seen.get(address).is_some_and(|seen| is_same(seen, &sight))
            {
                self.seen.insert(*address, sight);
            }
        }
        Ok(found)
    }

    /// Takes note of a descriptor. One that leads to another socket, which has the address of one that was
    /// seen before, is of no interest.
    fn take(&mut self, sight: Sight) {
        let raw = &sight.raw;
        if self.seen.get(&raw.socket.sk).is_some_and(|seen| !is_same(seen, &sight)) {
            return;
        }
        if let Some(holder) = Holder::of(&sight) {
            self.holders.entry(raw.socket.sk).or_default().insert(holder);
        }
        // What a pass tells is less than a look.
        self.seen.entry(raw.socket.sk).or_insert(sight);
    }

    /// The socket at an address, if there is one.
    fn look(&mut self, address: u64) -> Result<Option<&Sight>, TracerError> {
        if address == 0 {
            return Ok(None);
        }
        if !self.has_seen_all
            && let Some(sight) = self.programs.look(address)?
        {
            self.seen.insert(address, sight);
        }
        Ok(self.seen.get(&address))
    }

    fn see_all(&mut self) -> Result<(), TracerError> {
        if self.has_seen_all {
            return Ok(());
        }
        let picture = Picture::take(self.programs, None, Scope::AllNamespaces)?;
        self.notes.extend(picture.incomplete.iter().cloned());
        for entry in picture.entries() {
            let live = entry.live();
            let sk = live.sight.raw.socket.sk;
            self.holders.insert(sk, live.holders().collect());
            let raw = &live.sight.raw;
            self.by_peer.entry(raw.peer.sk).or_default().push(sk);
            self.by_name.entry(raw.address).or_default().push(sk);
            self.seen.entry(sk).or_insert_with(|| live.sight.clone());
        }
        self.has_seen_all = true;
        Ok(())
    }

    /// What belongs to a socket.
    fn surroundings(&mut self, sk: u64) -> Result<Surroundings, TracerError> {
        let mut around =
            Surroundings { sk, peer: None, connections: Vec::new(), senders: Vec::new() };
        let Some(sight) = self.look(sk)?.cloned() else { return Ok(around) };
        around.peer = self.look(sight.raw.peer.sk)?.map(sk_of);
        if is_listener(&sight) {
            let mut servers = self.connections(&sight)?;
            let waiting = |servers: &[u64], search: &Self| {
                let embryos = servers.iter().filter_map(|server| search.seen.get(server));
                embryos.filter(|server| is_embryo(server)).count()
            };
            // What tracing has missed shows where the kernel counts it.
            let counted = usize::try_from(sight.raw.receive_count).unwrap_or(usize::MAX);
            if !self.has_seen_all && waiting(&servers, self) < counted {
                self.see_all()?;
                servers = self.connections(&sight)?;
            }
            for server in servers {
                let client = self.seen.get(&server).map_or(0, |server| server.raw.peer.sk);
                let client = self.look(client)?.map(sk_of);
                around.connections.push((server, client));
            }
        } else if i32::from(sight.raw.socket_type) == libc::SOCK_DGRAM {
            let peer = around.peer;
            let senders = self.senders(sk)?;
            around.senders = senders.into_iter().filter(|sender| Some(*sender) != peer).collect();
        }
        // Whether the other end still has its own is to be told as well.
        if let Some(beyond) = around.peer.and_then(|peer| self.seen.get(&peer)) {
            self.look(beyond.raw.peer.sk)?;
        }
        Ok(around)
    }

    /// The connections through a listener, accepted or not: they share its very name, whatever else is
    /// called the same.
    fn connections(&mut self, listener: &Sight) -> Result<Vec<u64>, TracerError> {
        let address = listener.raw.address;
        let is_one = |other: &Sight| other.raw.address == address && !is_listener(other);
        if self.store.is_some() && !self.has_seen_all {
            let mut found = self.programs.search(&Sought::Related(sk_of(listener)))?.addresses;
            // What is older than the tracer is known by its name alone.
            found.extend(self.programs.search(&Sought::Name(&listener.name))?.addresses);
            return self.looked_at(found, is_one);
        }
        self.see_all()?;
        let all = self.by_name.get(&address).into_iter().flatten().copied();
        let mut all: Vec<u64> = all.filter(|sk| self.seen.get(sk).is_some_and(is_one)).collect();
        all.sort_unstable();
        Ok(all)
    }

    /// The datagram sockets that are connected to one.
    fn senders(&mut self, receiver: u64) -> Result<Vec<u64>, TracerError> {
        if self.store.is_some() && !self.has_seen_all {
            let found = self.programs.search(&Sought::Related(receiver))?.addresses;
            return self.looked_at(found, |other| other.raw.peer.sk == receiver);
        }
        self.see_all()?;
        Ok(self.by_peer.get(&receiver).cloned().unwrap_or_default())
    }

    /// Of these addresses, those at which there is such a socket.
    fn looked_at(
        &mut self,
        mut addresses: Vec<u64>,
        is_it: impl Fn(&Sight) -> bool,
    ) -> Result<Vec<u64>, TracerError> {
        addresses.sort_unstable();
        addresses.dedup();
        let mut found = Vec::new();
        for address in addresses {
            if let Some(sight) = self.programs.look(address)?.filter(|sight| is_it(sight)) {
                self.seen.insert(address, sight);
                found.push(address);
            }
        }
        Ok(found)
    }

    /// Looks once more at what a pass has only glanced at: that does not tell whom a socket sees at its other
    /// end (`SO_PEERCRED`).
    fn look_closely(&mut self, surroundings: &[Surroundings]) -> Result<(), TracerError> {
        for sk in surroundings.iter().flat_map(Surroundings::all).collect::<BTreeSet<u64>>() {
            let Some(known) = self.seen.get_mut(&sk).filter(|sight| sight.raw.peer_pid == 0) else {
                continue;
            };
            let (before, closely) = (&known.raw.socket, self.programs.look(sk)?);
            // Another one may have got the address since; and this one, meanwhile, a cookie.
            if let Some(sight) = closely
                && sight.raw.socket.inode == before.inode
                && (before.cookie == 0 || sight.raw.socket.cookie == before.cookie)
            {
                known.raw.peer_pid = sight.raw.peer_pid;
            }
        }
        Ok(())
    }

    /// Finds who holds the sockets: of processes that are known to have had to do with them, and only if
    /// that does not explain all references, of all processes.
    fn find_holders(&mut self, surroundings: &[Surroundings]) -> Result<(), TracerError> {
        let wanted: BTreeSet<u64> = surroundings.iter().flat_map(Surroundings::all).collect();
        if self.store.is_some() && !self.has_seen_all {
            let mut suspects = BTreeSet::new();
            for sight in wanted.iter().filter_map(|sk| self.seen.get(sk)) {
                let tracked = tracked::of(self.store, sight).tracked;
                let actors = tracked.into_iter().flat_map(|t| [t.opener, t.creator, t.binder]);
                suspects.extend(actors.flatten().map(|actor: Actor| actor.pid));
            }
            let asked: BTreeSet<u32> =
                self.holders.values().flatten().map(|holder| holder.pid).collect();
            let suspects: Vec<u32> = suspects.difference(&asked).copied().collect();
            if suspects.len() <= ASKED_ONE_BY_ONE {
                for pid in suspects {
                    let thread = i32::try_from(pid).unwrap_or(i32::MAX);
                    for sight in self.programs.see_descriptors(Some(thread))? {
                        if wanted.contains(&sk_of(&sight)) {
                            self.take(sight);
                        }
                    }
                }
            }
        }
        if wanted.iter().all(|sk| self.unexplained(*sk) == 0) {
            return Ok(());
        }
        // Also if all were seen already: one may have been made behind the back of that pass.
        for sight in self.programs.see_descriptors(None)? {
            if wanted.contains(&sk_of(&sight)) {
                self.take(sight);
            }
        }
        Ok(())
    }

    /// References to a socket's file that no known descriptor has.
    fn unexplained(&self, sk: u64) -> u64 {
        let references = self.seen.get(&sk).map_or(0, |sight| sight.raw.references);
        let holders = self.holders.get(&sk).map_or(0, BTreeSet::len);
        references.saturating_sub(u64::try_from(holders).unwrap_or(u64::MAX))
    }
}

fn sk_of(sight: &Sight) -> u64 {
    sight.raw.socket.sk
}

fn is_listener(sight: &Sight) -> bool {
    SocketState::from_raw(sight.raw.state) == Some(SocketState::Listening)
}

/// Whether two sightings at one address are of one socket.
fn is_same(one: &Sight, other: &Sight) -> bool {
    let (one, other) = (&one.raw.socket, &other.raw.socket);
    if one.cookie != 0 && other.cookie != 0 {
        one.cookie == other.cookie
    } else {
        one.inode == other.inode
    }
}

/// What else may be meant by a path that no socket has for its name: first the path without symbolic links,
/// then the sockets that have the file for theirs, whatever they call it (`/var/run/x`, or `x` from where they
/// stood). To be asked where the path was typed: a daemon stands somewhere else.
#[must_use]
pub fn meant(target: &Target) -> Vec<Vec<Target>> {
    let Target::Name(UnixName::Pathname(path)) = target else { return Vec::new() };
    let Ok(real) = fs::canonicalize(Path::new(OsStr::from_bytes(path))) else { return Vec::new() };
    let file = fs::metadata(&real).ok();
    let file = file.map(|facts| VfsFile::from_stat(facts.dev(), facts.ino()));
    // Without an answer there is nothing that else could be meant.
    let view = diag::unix_sockets().unwrap_or_default();
    let has_it = |socket: &&SeenSocket| socket.file.is_some() && socket.file == file;
    let owners: Vec<&SeenSocket> = view.sockets.values().filter(has_it).collect();
    let listens = |state| state == SocketState::Listening;
    let any_listens = owners.iter().any(|owner| listens(owner.state));
    let mut inodes: Vec<u32> = owners
        .iter()
        .filter(|owner| listens(owner.state) || !any_listens)
        .map(|owner| owner.inode)
        .collect();
    inodes.sort_unstable();
    let name = UnixName::Pathname(real.into_os_string().into_encoded_bytes());
    vec![vec![Target::Name(name)], inodes.into_iter().map(Target::Inode).collect()]
}
