//! From what was found to an image, or to the reasons why there is none.

mod connections;
mod inet;
mod keeping;
mod netlink;
mod peers;
mod queues;
mod roles;
mod sources;

use std::collections::hash_map::Entry;

use foldhash::{HashMap, HashSet};

use ucr_common::{descriptor::SocketDescriptor, identity::Actor};

use super::{
    DumpError,
    external::Rules,
    interfaces,
    inventory::{Inventory, Stock},
    names::{Named, Outlook, describe},
    obstacle::{Obstacle, Party, Reason},
    owner::lost,
    owner_of as owner,
};
use crate::{
    image::{
        self, Bound, Descriptor, KnownFrom, Notification, Origin, Process, Role, Socket,
        SocketIndex,
    },
    ledger::Tracked,
    model::{
        Pid, SeenSocket, Shutdown, SocketState, SocketType, UnixName, VfsFile, inet::Endpoint,
    },
    process::state::NotRestorable,
    snapshot::memory::{Memory, RawFile},
};

/// What a dump comes to, before the verdicts are looked at.
#[derive(Debug)]
pub struct Assembled {
    /// The image; only worth anything without obstacles.
    pub image: image::Image,
    /// Everything that is in the way.
    pub obstacles: Vec<Obstacle>,
    /// What the user has said is not to be in it.
    pub left_out: Vec<LeftOut>,
}

/// A connection over TCP that waits to be accepted and is not in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The end that waits.
    pub local: Endpoint,
    /// The other one.
    pub remote: Endpoint,
}

/// Who else on this machine holds sockets: asked only when something is in the way, since it takes
/// a pass over every process.
pub trait Outside {
    /// Every process that holds the socket with this inode.
    fn holders(&mut self, inode: u32) -> Vec<Party>;
}

/// Puts the image together.
///
/// # Errors
/// A socket file that cannot be looked at; kernel memory that makes no sense after all.
pub fn assemble(
    inventory: &Inventory,
    processes: Vec<Process>,
    origin: Origin,
    memory: &Memory,
    rules: &Rules,
    outside: &mut dyn Outside,
    threads_of: &dyn Fn(Pid) -> usize,
) -> Result<Assembled, DumpError> {
    let own_netns = origin.netns;
    let root = processes.first().map_or(Pid(0), |process| process.pid);
    let mut work = Assembly::new(inventory, root, rules, outside);
    work.refuse_foreign_descriptors();
    for process in &processes {
        work.refuse_shared_table(process.pid, threads_of(process.pid));
    }
    work.choose_kept(memory)?;
    let mut sockets = Vec::with_capacity(inventory.sockets.len());
    let mut outlooks = HashMap::default();
    for stock in &inventory.sockets {
        let (holder, _) = work.first_holder(stock);
        let outlook = match outlooks.entry(holder) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(Outlook::of(holder)?),
        };
        if let Some(setting) = lost(stock.details.notification, &processes)
            && !work.is_kept(stock)
        {
            work.refuse(stock, Reason::Setting { setting });
        }
        sockets.push(work.socket(stock, holder, outlook, own_netns)?);
    }
    work.inherit_names(&mut sockets);
    let connections = work.peers(&mut sockets, memory)?;
    let dumped: Vec<Pid> = processes.iter().map(|process| process.pid).collect();
    work.queues(&mut sockets, &connections, &dumped);
    work.sources(&mut sockets);
    work.inet(&mut sockets, &processes, own_netns, memory)?;
    work.netlink(&mut sockets, &processes, own_netns);
    let descriptors = work.descriptors();
    let (mut obstacles, left_out) = (work.obstacles, work.left_out);
    obstacles.sort_by_key(|o| (o.pid, o.fd));
    let interfaces = Vec::new();
    let mut image =
        image::Image { origin, processes, sockets, descriptors, connections, interfaces };
    interfaces::name(&mut image, root).map_err(DumpError::Interfaces)?;
    Ok(Assembled { image, obstacles, left_out })
}

/// What stands in the way of sockets of any kind but unix.
struct Common<'a> {
    netns: u32,
    lost: &'a [NotRestorable],
    notification: Option<Notification>,
}

impl Common<'_> {
    fn refused(&self, processes: &[Process], own_netns: u32) -> Vec<Reason> {
        let elsewhere =
            (self.netns != own_netns).then_some(Reason::OtherNamespace { netns: self.netns });
        let settings = self.lost.iter().map(ToString::to_string);
        let settings = settings.chain(lost(self.notification, processes));
        let settings = settings.map(|setting| Reason::Setting { setting });
        elsewhere.into_iter().chain(settings).collect()
    }
}

struct Assembly<'a> {
    inventory: &'a Inventory,
    root: Pid,
    rules: &'a Rules,
    outside: &'a mut dyn Outside,
    by_sk: HashMap<u64, usize>,
    /// Where behind the unix sockets an internet or netlink socket is.
    others_by_sk: HashMap<u64, usize>,
    /// Listeners by what the sockets accepted from them share with them.
    listeners: HashMap<(&'a UnixName, SocketType, Option<VfsFile>), usize>,
    /// Inodes of the datagram sockets outside that have one of these as their peer: by its inode.
    senders: HashMap<u32, Vec<u32>>,
    /// How often each socket is in flight, by the address of its sock.
    in_flight: HashMap<u64, u64>,
    /// Those that are taken over as they are, by the address of the sock.
    kept: HashSet<u64>,
    /// Inode of each client that waits to be accepted, and of the listener it waits at.
    waiting: HashMap<u32, u32>,
    left_out: Vec<LeftOut>,
    obstacles: Vec<Obstacle>,
}

impl<'a> Assembly<'a> {
    fn new(
        inventory: &'a Inventory,
        root: Pid,
        rules: &'a Rules,
        outside: &'a mut dyn Outside,
    ) -> Self {
        let stock = || inventory.sockets.iter().enumerate();
        let inet = inventory.inet.iter().map(|stock| stock.held.sk);
        let others = inet.chain(inventory.netlink.iter().map(|stock| stock.held.sk));
        let waiting = inventory.view.sockets.values().flat_map(|listener| {
            listener.pending.iter().filter(|i| **i != 0).map(|client| (*client, listener.inode))
        });
        let listeners = stock().filter_map(|(at, stock)| {
            let seen = inventory.view.get(stock.held.inode)?;
            (seen.state == SocketState::Listening)
                .then_some(((&seen.name, seen.socket_type, seen.file), at))
        });
        let by_inode: HashMap<u32, usize> = stock()
            .filter(|(_, stock)| stock.held.inode != 0)
            .map(|(at, stock)| (stock.held.inode, at))
            .collect();
        let mut in_flight: HashMap<u64, u64> = HashMap::default();
        let messages = inventory.sockets.iter().flat_map(|stock| &stock.queue);
        for file in messages.flat_map(|message| &message.files) {
            if let RawFile::Socket(sk) = file {
                *in_flight.entry(*sk).or_default() += 1;
            }
        }
        let mut senders: HashMap<u32, Vec<u32>> = HashMap::default();
        for seen in inventory.view.sockets.values() {
            if seen.socket_type == SocketType::Dgram
                && let Some(peer) = seen.peer.filter(|peer| by_inode.contains_key(peer))
                && !by_inode.contains_key(&seen.inode)
            {
                senders.entry(peer).or_default().push(seen.inode);
            }
        }
        Self {
            inventory,
            root,
            rules,
            in_flight,
            kept: HashSet::default(),
            outside,
            listeners: listeners.collect(),
            senders,
            by_sk: stock().map(|(at, s)| (s.held.sk, at)).collect(),
            others_by_sk: others.zip(0..).collect(),
            waiting: waiting.collect(),
            left_out: Vec::new(),
            obstacles: Vec::new(),
        }
    }

    /// Where in the image the socket of a descriptor is; `None` if it is of no family that can be dumped.
    fn position(&self, descriptor: &SocketDescriptor) -> Option<usize> {
        let sk = descriptor.socket.sk;
        let behind = || Some(self.inventory.sockets.len() + self.others_by_sk.get(&sk)?);
        self.by_sk.get(&sk).copied().or_else(behind)
    }

    fn seen(&self, stock: &Stock) -> Option<&'a SeenSocket> {
        self.inventory.view.get(stock.held.inode)
    }

    fn tracked(&self, stock: &Stock) -> Option<&'a Tracked> {
        self.inventory.ledger.as_ref()?.get(stock.held.sk)
    }

    fn first_holder(&self, stock: &Stock) -> (Pid, i32) {
        let first = stock.holders.first().and_then(|at| self.inventory.descriptors.get(*at));
        match (first, stock.waits_at.and_then(|at| self.inventory.sockets.get(at))) {
            (Some(first), _) => owner(first),
            (None, Some(listener)) => self.first_holder(listener),
            (None, None) => (self.root, -1),
        }
    }

    fn refuse(&mut self, stock: &Stock, reason: Reason) {
        let (pid, fd) = self.first_holder(stock);
        self.obstacles.push(Obstacle { pid, fd, inode: stock.held.inode, reason });
    }

    /// Descriptors that are of no family that can be dumped, or not the process's own.
    fn refuse_foreign_descriptors(&mut self) {
        for descriptor in &self.inventory.descriptors {
            let reason = if descriptor.tid != descriptor.pid {
                Reason::OwnTable { thread: Pid(descriptor.tid.cast_signed()) }
            } else if self.position(descriptor).is_none() {
                let SocketDescriptor { family, socket_type, .. } = *descriptor;
                let protocol = self.inventory.protocols.get(&descriptor.socket.sk);
                let protocol = protocol.copied().unwrap_or(-1);
                Reason::Family { family, socket_type, protocol }
            } else {
                continue;
            };
            let (pid, fd) = owner(descriptor);
            let inode = u32::try_from(descriptor.socket.inode).unwrap_or(0);
            self.obstacles.push(Obstacle { pid, fd, inode, reason });
        }
    }

    /// One socket, with what is in its own way.
    fn socket(
        &mut self,
        stock: &Stock,
        holder: Pid,
        outlook: &Outlook,
        own_netns: u32,
    ) -> Result<Socket, DumpError> {
        let (seen, tracked) = (self.seen(stock), self.tracked(stock));
        let details = &stock.details;
        if stock.netns != own_netns {
            self.refuse(stock, Reason::OtherNamespace { netns: stock.netns });
        } else if seen.is_none() && stock.waits_at.is_none() {
            self.refuse(stock, Reason::NotReported);
        }
        for setting in &details.not_restorable {
            // The kernel's memory tells of these.
            let is_certain =
                matches!(setting, NotRestorable::PendingError | NotRestorable::Unlooked);
            if !is_certain && !self.is_kept(stock) {
                self.refuse(stock, Reason::Setting { setting: setting.to_string() });
            }
        }
        self.refuse_sharing(stock);
        let role = self.role(stock, &stock.sock);
        // An embryo gets its listener's.
        let unnamed = UnixName::Unnamed;
        let name = if role == Role::Embryo { &unnamed } else { &details.name };
        let name = describe(Named {
            name,
            seen,
            file: stock.file.as_ref(),
            tracked,
            ledger: self.inventory.ledger.as_ref(),
            holder,
            outlook,
        })?;
        let name = name.unwrap_or_else(|reason| {
            if !self.is_kept(stock) {
                self.refuse(stock, reason);
            }
            None
        });
        let listening = matches!(role, Role::Listening { .. });
        Ok(Socket {
            cookie: stock.held.cookie,
            inode: stock.held.inode,
            socket_type: details.socket_type,
            role,
            name,
            status_flags: details.status_flags,
            shutdown: Shutdown(stock.sock.shutdown & Shutdown::BOTH.0),
            peer_credentials: details.credentials.filter(|_| !listening),
            listener_credentials: details.credentials.filter(|_| listening),
            groups: details.groups.clone(),
            options: details.options.clone(),
            filter: details.filter.clone(),
            notification: details.notification,
            error: 0,
            queue: Vec::new(),
            known_from: known_from(tracked),
            created_at: tracked.and_then(|t| t.created_at),
            creator: tracked.and_then(|t| t.creator.as_ref()).map(actor),
            sources: Vec::new(),
            inet: None,
            netlink: None,
        })
    }

    /// A table that others share, said once, at the process's first socket.
    fn refuse_shared_table(&mut self, pid: Pid, threads: usize) {
        let first = self.inventory.descriptors.iter().find(|d| owner(d).0 == pid && d.tid == d.pid);
        let Some(first) = first else { return };
        let users = first.table_users;
        if usize::try_from(users).is_ok_and(|users| users > threads) {
            let inode = u32::try_from(first.socket.inode).unwrap_or(0);
            let reason = Reason::SharedTable { users, threads };
            self.obstacles.push(Obstacle { pid, fd: owner(first).1, inode, reason });
        }
    }

    /// More references than the descriptors at hand: ask who else there is. (The calls of stopped
    /// threads hold none: a thread stops on its way back, when its call has let go of the file.)
    fn refuse_sharing(&mut self, stock: &Stock) {
        let references = self.unexplained(stock);
        if references == 0 || self.is_kept(stock) {
            return;
        }
        let known_here: Vec<_> = self.holders_of(&stock.holders).collect();
        let reason = self.sharing(stock.held.inode, &known_here, references);
        self.refuse(stock, reason);
    }

    /// Who else holds a socket with more references than these descriptors.
    fn sharing_of(&mut self, holders: &[usize], inode: u32, references: u64) -> Option<Reason> {
        if references == 0 {
            return None;
        }
        let known: Vec<_> = self.holders_of(holders).collect();
        Some(self.sharing(inode, &known, references))
    }

    /// Refuses a socket at the first of these descriptors.
    fn refuse_at(&mut self, holders: &[usize], inode: u32, reason: Reason) {
        let (pid, fd) = self.holders_of(holders).next().unwrap_or((self.root, -1));
        self.obstacles.push(Obstacle { pid, fd, inode, reason });
    }

    fn sharing(&mut self, inode: u32, known_here: &[(Pid, i32)], references: u64) -> Reason {
        let mut found = self.outside.holders(inode);
        // As many as we know are ours, also where ucr's pid namespace gives them other numbers.
        if found.len() <= known_here.len() {
            found.clear();
        }
        found.retain(|party| !known_here.contains(&(party.pid, party.fd.cast_signed())));
        match found.is_empty() {
            true => Reason::HeldElsewhere { references },
            false => Reason::SharedOutside { holders: found },
        }
    }

    /// An accepted socket shares its listener's name, so what is known of the listener's holds for
    /// it too: the two must be restored through one another.
    fn inherit_names(&self, sockets: &mut [Socket]) {
        let of_listeners: HashMap<usize, Bound> = self
            .listeners
            .values()
            .filter_map(|at| Some((*at, sockets.get(*at)?.name.clone()?)))
            .collect();
        for (stock, socket) in self.inventory.sockets.iter().zip(sockets) {
            let Some(listener) = self.listener_of(stock) else { continue };
            if let Some(at) = self.by_sk.get(&listener.held.sk)
                && let Some(bound) = of_listeners.get(at)
            {
                socket.name = Some(bound.clone());
            }
        }
    }

    /// The listener of the image that an accepted socket came through: one with the same name, file
    /// and type. What was tracked has the last word, but only on listeners that still are the same.
    fn listener_of(&self, server: &Stock) -> Option<&'a Stock> {
        if let Some(listener) = server.waits_at {
            return self.inventory.sockets.get(listener);
        }
        let seen = self.seen(server)?;
        if seen.state != SocketState::Connected || !seen.name.is_named() {
            return None;
        }
        let at = self.listeners.get(&(&seen.name, seen.socket_type, seen.file))?;
        let listener = self.inventory.sockets.get(*at)?;
        let tracked = self.tracked(server).and_then(|tracked| tracked.listener);
        tracked.is_none_or(|t| t.inode == Some(listener.held.inode)).then_some(listener)
    }

    fn descriptors(&self) -> Vec<Descriptor> {
        let own = self.inventory.descriptors.iter().filter(|d| d.tid == d.pid);
        own.filter_map(|descriptor| {
            let (pid, fd) = owner(descriptor);
            let socket = index(self.position(descriptor)?);
            Some(Descriptor { pid, fd, socket, close_on_exec: descriptor.close_on_exec != 0 })
        })
        .collect()
    }
}

fn index(position: usize) -> SocketIndex {
    SocketIndex(u32::try_from(position).unwrap_or(u32::MAX))
}

fn known_from(tracked: Option<&Tracked>) -> KnownFrom {
    match tracked {
        Some(tracked) if tracked.is_live() => KnownFrom::SeenLive,
        Some(_) => KnownFrom::PredatesTracer,
        None => KnownFrom::Snapshot,
    }
}

fn actor(actor: &Actor) -> image::Actor {
    image::Actor {
        pid: Pid(actor.pid.cast_signed()),
        tid: Pid(actor.tid.cast_signed()),
        uid: actor.uid,
        comm: actor.comm().to_vec(),
        cgroup: actor.cgroup,
    }
}
