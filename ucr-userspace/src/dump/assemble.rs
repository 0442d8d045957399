//! From what was found to an image, or to the reasons why there is none.

mod connections;

use std::collections::{HashMap, HashSet};

use ucr_common::{descriptor::SocketDescriptor, identity::Actor};

use super::{
    inventory::{Inventory, Stock},
    names::{NameError, Named, Outlook, describe},
    obstacle::{Obstacle, Party, Reason},
    owner::lost,
};
use crate::{
    image::{
        self, Bound, Connection, Descriptor, KnownFrom, Origin, Process, Role, Socket, SocketFile,
        SocketIndex,
    },
    ledger::Tracked,
    model::{Pid, SeenSocket, Shutdown, SocketState, SocketType, UnixName, VfsFile},
};

/// What a dump comes to, before the verdicts are looked at.
#[derive(Debug)]
pub struct Assembled {
    /// The image; only worth anything without obstacles.
    pub image: image::Image,
    /// Everything that is in the way.
    pub obstacles: Vec<Obstacle>,
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
/// A socket file that cannot be looked at.
pub fn assemble(
    inventory: &Inventory,
    processes: Vec<Process>,
    origin: Origin,
    outside: &mut dyn Outside,
    threads_of: &dyn Fn(Pid) -> usize,
) -> Result<Assembled, NameError> {
    let own_netns = origin.netns;
    let mut work = Assembly::new(inventory, outside);
    work.refuse_foreign_descriptors();
    for process in &processes {
        work.refuse_shared_table(process.pid, threads_of(process.pid));
    }
    let mut sockets = Vec::with_capacity(inventory.sockets.len());
    let mut outlooks = HashMap::new();
    for stock in &inventory.sockets {
        let (holder, _) = work.first_holder(stock);
        let outlook = match outlooks.get(&holder) {
            Some(known) => *known,
            None => *outlooks.entry(holder).or_insert(Outlook::of(holder)?),
        };
        if let Some(setting) = lost(stock.details.notification, &processes) {
            work.refuse(stock, Reason::Setting { setting });
        }
        sockets.push(work.socket(stock, holder, outlook, own_netns)?);
    }
    work.inherit_names(&mut sockets);
    let connections = work.connections();
    work.refuse_lost_receivers(&sockets, &connections);
    let descriptors = work.descriptors();
    let mut obstacles = work.obstacles;
    obstacles.sort_by_key(|o| (o.pid, o.fd));
    let image = image::Image { origin, processes, sockets, descriptors, connections };
    Ok(Assembled { image, obstacles })
}

struct Assembly<'a> {
    inventory: &'a Inventory,
    outside: &'a mut dyn Outside,
    by_inode: HashMap<u32, usize>,
    by_sk: HashMap<u64, usize>,
    /// Listeners by what the sockets accepted from them share with them.
    listeners: HashMap<(&'a UnixName, SocketType, Option<VfsFile>), usize>,
    /// Inodes of the datagram sockets outside that have one of these as their peer: by its inode.
    senders: HashMap<u32, Vec<u32>>,
    /// Inode of each client that waits to be accepted, and of the listener it waits at.
    waiting: HashMap<u32, u32>,
    obstacles: Vec<Obstacle>,
}

impl<'a> Assembly<'a> {
    fn new(inventory: &'a Inventory, outside: &'a mut dyn Outside) -> Self {
        let stock = || inventory.sockets.iter().enumerate();
        let waiting = inventory.view.sockets.values().flat_map(|listener| {
            listener.pending.iter().filter(|i| **i != 0).map(|client| (*client, listener.inode))
        });
        let listeners = stock().filter_map(|(at, stock)| {
            let seen = inventory.view.get(stock.held.inode)?;
            (seen.state == SocketState::Listening)
                .then_some(((&seen.name, seen.socket_type, seen.file), at))
        });
        let by_inode: HashMap<u32, usize> = stock().map(|(at, s)| (s.held.inode, at)).collect();
        let mut senders: HashMap<u32, Vec<u32>> = HashMap::new();
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
            outside,
            listeners: listeners.collect(),
            by_inode,
            senders,
            by_sk: stock().map(|(at, s)| (s.held.sk, at)).collect(),
            waiting: waiting.collect(),
            obstacles: Vec::new(),
        }
    }

    fn seen(&self, stock: &Stock) -> Option<&'a SeenSocket> {
        self.inventory.view.get(stock.held.inode)
    }

    fn tracked(&self, stock: &Stock) -> Option<&'a Tracked> {
        self.inventory.ledger.as_ref()?.get(stock.held.sk)
    }

    fn first_holder(&self, stock: &Stock) -> (Pid, i32) {
        let first = stock.holders.first().and_then(|at| self.inventory.descriptors.get(*at));
        first.map_or((Pid(0), -1), owner)
    }

    fn refuse(&mut self, stock: &Stock, reason: Reason) {
        let (pid, fd) = self.first_holder(stock);
        self.obstacles.push(Obstacle { pid, fd, inode: stock.held.inode, reason });
    }

    /// Descriptors that are no unix sockets, or not the process's own.
    fn refuse_foreign_descriptors(&mut self) {
        for descriptor in &self.inventory.descriptors {
            let reason = if descriptor.tid != descriptor.pid {
                Reason::OwnTable { thread: Pid(descriptor.tid.cast_signed()) }
            } else if !is_unix(descriptor) {
                let SocketDescriptor { family, socket_type, .. } = *descriptor;
                Reason::Family { family, socket_type }
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
        outlook: Outlook,
        own_netns: u32,
    ) -> Result<Socket, NameError> {
        let (seen, tracked) = (self.seen(stock), self.tracked(stock));
        let details = &stock.details;
        if stock.netns != own_netns {
            self.refuse(stock, Reason::OtherNamespace { netns: stock.netns });
        } else if seen.is_none() {
            self.refuse(stock, Reason::NotReported);
        }
        for setting in &details.not_restorable {
            self.refuse(stock, Reason::Setting { setting: setting.to_string() });
        }
        self.refuse_sharing(stock);
        let role = seen.map_or(Role::Unconnected, |seen| self.role(stock, seen));
        let name = describe(Named {
            name: &details.name,
            seen,
            file: stock.file.as_ref(),
            tracked,
            ledger: self.inventory.ledger.as_ref(),
            holder,
            outlook,
        })?;
        let name = name.unwrap_or_else(|reason| {
            self.refuse(stock, reason);
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
            shutdown: seen.map_or(Shutdown::default(), |seen| seen.shutdown),
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
        })
    }

    /// What the socket is doing; a state that cannot be dumped is refused on the way.
    fn role(&mut self, stock: &Stock, seen: &SeenSocket) -> Role {
        if seen.socket_type == SocketType::Dgram {
            return self.datagram_role(stock, seen);
        }
        match seen.state {
            SocketState::Listening => {
                if seen.receive_queue > 0 {
                    let clients = self.waiting_clients(seen);
                    let connections = seen.receive_queue;
                    self.refuse(stock, Reason::Waiting { connections, clients });
                }
                return Role::Listening { backlog: seen.send_queue };
            }
            SocketState::Unconnected => {
                self.refuse_queue(stock, seen, None);
                return Role::Unconnected;
            }
            SocketState::Connected => {}
        }
        let peer = seen.peer.and_then(|inode| self.inventory.view.get(inode));
        self.refuse_queue(stock, seen, peer);
        match seen.peer {
            Some(inode) if self.by_inode.contains_key(&inode) => {
                let theirs = peer.map_or(seen.shutdown.mirrored(), |peer| peer.shutdown);
                if seen.shutdown != theirs.mirrored() {
                    let reason = Reason::OneSidedShutdown { own: seen.shutdown, peer: theirs };
                    self.refuse(stock, reason);
                }
            }
            Some(inode) => self.refuse_external(stock, inode, peer),
            None => {
                let reason = self.without_peer(stock, seen);
                self.refuse(stock, reason);
            }
        }
        Role::Connected
    }

    /// What a datagram socket is doing: its state says only that somebody has connected to it, or it to
    /// somebody.
    fn datagram_role(&mut self, stock: &Stock, seen: &SeenSocket) -> Role {
        if seen.receive_queue > 0 {
            self.refuse(stock, Reason::QueuedData { bytes: seen.receive_queue });
        } else if stock.details.has_messages {
            self.refuse(stock, Reason::QueuedMessages);
        }
        self.refuse_senders(stock, seen.peer);
        match seen.peer {
            None if stock.details.peer_name.is_none() => return Role::Unconnected,
            None => self.refuse(stock, Reason::PeerClosed),
            Some(inode) if self.by_inode.contains_key(&inode) => {}
            Some(inode) => self.refuse_external(stock, inode, self.inventory.view.get(inode)),
        }
        Role::Connected
    }

    /// Whoever is connected to it from outside has nobody left, once it is gone.
    fn refuse_senders(&mut self, stock: &Stock, peer: Option<u32>) {
        let senders = self.senders.remove(&stock.held.inode).unwrap_or_default();
        // Its own peer is refused as that.
        let others: Vec<u32> = senders.into_iter().filter(|inode| Some(*inode) != peer).collect();
        if others.is_empty() {
            return;
        }
        let mut holders: Vec<Party> =
            others.into_iter().flat_map(|inode| self.outside.holders(inode)).collect();
        holders.sort();
        self.refuse(stock, Reason::ExternalSenders { holders });
    }

    /// A name that a receiver has lost to another socket cannot be given to both, one after the other, while
    /// the order in which datagram sockets are connected is to be kept.
    fn refuse_lost_receivers(&mut self, sockets: &[Socket], connections: &[Connection]) {
        let mut users: HashMap<(&UnixName, Option<&[u8]>), usize> = HashMap::new();
        for bound in sockets.iter().filter_map(|socket| socket.name.as_ref()) {
            *users.entry((&bound.name, bound.directory.as_deref())).or_default() += 1;
        }
        let inventory = self.inventory;
        let mut refused = HashSet::new();
        for connection in connections {
            let Connection::Datagram { receiver, .. } = *connection else { continue };
            let bound = sockets.get(receiver.get()).and_then(|socket| socket.name.as_ref());
            let Some(bound) = bound else { continue };
            let is_lost = matches!(bound.file, Some(SocketFile::Deleted | SocketFile::Replaced));
            let is_shared = users
                .get(&(&bound.name, bound.directory.as_deref()))
                .is_some_and(|count| *count > 1);
            if is_lost
                && is_shared
                && refused.insert(receiver)
                && let Some(stock) = inventory.sockets.get(receiver.get())
            {
                self.refuse(stock, Reason::LostName { name: bound.name.clone() });
            }
        }
    }

    fn refuse_external(&mut self, stock: &Stock, inode: u32, peer: Option<&SeenSocket>) {
        let name = peer.map_or(UnixName::Unnamed, |peer| peer.name.clone());
        let holders = self.outside.holders(inode);
        self.refuse(stock, Reason::ExternalPeer { peer: inode, name, holders });
    }

    /// A connected socket whose peer has no inode: not accepted yet, or closed.
    fn without_peer(&mut self, stock: &Stock, seen: &SeenSocket) -> Reason {
        let listener = self.waiting.get(&stock.held.inode).copied();
        let closed = self.tracked(stock).is_some_and(|tracked| tracked.peer_closed);
        match listener {
            Some(inode) => Reason::NotAccepted { listener: self.parties(inode) },
            // The end of a peer shuts a stream down in both directions.
            None if closed || seen.shutdown == Shutdown::BOTH => Reason::PeerClosed,
            None => Reason::NotAccepted { listener: Vec::new() },
        }
    }

    fn refuse_queue(&mut self, stock: &Stock, seen: &SeenSocket, peer: Option<&SeenSocket>) {
        if seen.receive_queue > 0 {
            self.refuse(stock, Reason::QueuedData { bytes: seen.receive_queue });
        } else if peer.is_some_and(|peer| peer.send_queue > 0) {
            // The sender is charged for something that has no bytes: messages without data.
            self.refuse(stock, Reason::QueuedMessages);
        }
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
        let holders = || stock.holders.iter().filter_map(|at| self.inventory.descriptors.get(*at));
        let known = u64::try_from(stock.holders.len()).unwrap_or(u64::MAX);
        let references = holders().map(|d| d.references).max().unwrap_or(0);
        if references <= known {
            return;
        }
        let known_here: HashSet<(Pid, i32)> = holders().map(owner).collect();
        let mut found = self.outside.holders(stock.held.inode);
        // As many as we know are ours, also where ucr's pid namespace gives them other numbers.
        if found.len() <= stock.holders.len() {
            found.clear();
        }
        found.retain(|party| !known_here.contains(&(party.pid, party.fd.cast_signed())));
        if !found.is_empty() {
            self.refuse(stock, Reason::SharedOutside { holders: found });
        } else {
            self.refuse(stock, Reason::HeldElsewhere { references: references - known });
        }
    }

    fn waiting_clients(&mut self, listener: &SeenSocket) -> Vec<Party> {
        let inodes: Vec<u32> = listener.pending.iter().copied().filter(|i| *i != 0).collect();
        inodes.into_iter().flat_map(|inode| self.parties(inode)).collect()
    }

    fn parties(&mut self, inode: u32) -> Vec<Party> {
        self.outside.holders(inode)
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
        let unix = self.inventory.descriptors.iter().filter(|d| is_unix(d) && d.tid == d.pid);
        unix.filter_map(|descriptor| {
            let (pid, fd) = owner(descriptor);
            let socket = index(*self.by_sk.get(&descriptor.socket.sk)?);
            Some(Descriptor { pid, fd, socket, close_on_exec: descriptor.close_on_exec != 0 })
        })
        .collect()
    }
}

fn is_unix(descriptor: &SocketDescriptor) -> bool {
    i32::try_from(descriptor.family) == Ok(libc::AF_UNIX)
}

fn owner(descriptor: &SocketDescriptor) -> (Pid, i32) {
    (Pid(descriptor.pid.cast_signed()), descriptor.fd.cast_signed())
}

fn index(position: usize) -> SocketIndex {
    SocketIndex(u32::try_from(position).unwrap_or(u32::MAX))
}

fn known_from(tracked: Option<&Tracked>) -> KnownFrom {
    match tracked {
        Some(tracked) if tracked.origin.is_live() => KnownFrom::SeenLive,
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
