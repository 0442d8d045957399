//! What each socket is connected to, as the kernel's memory says: also ends that were not accepted yet, and
//! those whose peer has closed or is outside.

use std::collections::BTreeMap;

use super::{Assembly, DumpError, Reason, Stock, connections::Ends, index};
use crate::{
    dump::external::Policy,
    image::{Connection, External, Role, Sender, Socket, Was},
    ledger::TrackedRole,
    model::{Shutdown, SocketType, UnixName},
    snapshot::memory::{Memory, Sock},
};

/// Connections as they are found.
#[derive(Default)]
struct Found {
    /// Those whose order means nothing.
    others: Vec<Connection>,
    /// By time and inode of the accepted end.
    accepted: BTreeMap<(u64, u32), Connection>,
    waiting: Vec<Connection>,
}

impl<'a> Assembly<'a> {
    /// How the connected sockets hang together.
    pub(super) fn peers(
        &mut self,
        sockets: &mut [Socket],
        memory: &Memory,
    ) -> Result<Vec<Connection>, DumpError> {
        let mut found = Found::default();
        let inventory = self.inventory;
        for (at, stock) in inventory.sockets.iter().enumerate() {
            let (sock, Some(socket)) = (stock.sock, sockets.get_mut(at)) else { continue };
            if self.is_kept(stock) {
                let how = self.keep(stock);
                let kept = how.map(|how| Connection::External { socket: index(at), how });
                found.others.extend(kept);
                continue;
            }
            self.error(stock, &sock, socket);
            match socket.role {
                Role::Embryo => self.embryo(at, stock, &sock, socket, memory, &mut found)?,
                Role::Connected => self.connected(at, stock, &sock, socket, memory, &mut found)?,
                Role::Unconnected | Role::Listening { .. } => {}
            }
        }
        let mut all: Vec<Connection> = found.accepted.into_values().collect();
        all.append(&mut found.waiting);
        for (number, connection) in (0..).zip(&mut all) {
            if let Connection::Accepted { order, .. } | Connection::Waiting { order, .. } =
                connection
            {
                *order = number;
            }
        }
        all.append(&mut found.others);
        Ok(all)
    }

    /// What the next call on a socket fails with. It can be brought about again where the peer has closed and
    /// had not read everything; and of a datagram socket where the other half of its pair has turned away.
    fn error(&mut self, stock: &Stock, sock: &Sock, socket: &mut Socket) {
        let is_reset = sock.error == libc::ECONNRESET
            && socket.role == Role::Connected
            && if socket.socket_type == SocketType::Dgram {
                let peer =
                    self.by_sk.get(&sock.peer).and_then(|at| self.inventory.sockets.get(*at));
                let is_half = |stock: &Stock| stock.details.credentials.is_some();
                peer.is_some_and(|peer| {
                    let is_faithful =
                        peer.sock.peer == stock.held.sk || peer.details.name.is_named();
                    is_half(stock) && is_half(peer) && !is_faithful
                })
            } else {
                !self.by_sk.contains_key(&sock.peer)
            };
        if sock.error == 0 || is_reset {
            socket.error = sock.error;
        } else {
            let error = std::io::Error::from_raw_os_error(sock.error);
            self.refuse(stock, Reason::Setting { setting: format!("a pending error ({error})") });
        }
    }

    /// A connection that was not accepted yet.
    fn embryo(
        &mut self,
        at: usize,
        stock: &'a Stock,
        sock: &Sock,
        socket: &mut Socket,
        memory: &Memory,
        found: &mut Found,
    ) -> Result<(), DumpError> {
        let Some(listener) = stock.waits_at else { return Ok(()) };
        socket.groups = memory.peer_credentials(sock)?.map(|(_, groups)| groups);
        let client = match self.by_sk.get(&sock.peer).copied() {
            Some(client) => {
                let client_stock = self.inventory.sockets.get(client);
                if let Some(theirs) = client_stock.map(|stock| stock.sock) {
                    let (own, theirs) = (Shutdown(theirs.shutdown), Shutdown(sock.shutdown));
                    self.refuse_shutdown(stock, own, theirs);
                }
                Sender::Socket(index(client))
            }
            None => {
                let peer = memory.sock(sock.peer)?;
                let name = memory.name_of(&peer)?;
                match self.rules.policy(&name, &[]) {
                    _ if peer.is_dead() && has_closed_since(sock) => {
                        self.refuse(stock, Reason::ClosedMeanwhile);
                        return Ok(());
                    }
                    _ if peer.is_dead() => Sender::Gone(name),
                    Policy::Dangling => {
                        socket.shutdown = Shutdown::BOTH;
                        Sender::Gone(name)
                    }
                    _ => {
                        let clients = self.clients_of(listener);
                        self.refuse(stock, Reason::Waiting { connections: 1, clients });
                        return Ok(());
                    }
                }
            }
        };
        let (embryo, listener) = (index(at), index(listener));
        found.waiting.push(Connection::Waiting { client, embryo, listener, order: 0 });
        Ok(())
    }

    fn connected(
        &mut self,
        at: usize,
        stock: &'a Stock,
        sock: &Sock,
        socket: &mut Socket,
        memory: &Memory,
        found: &mut Found,
    ) -> Result<(), DumpError> {
        if let Some(&other) = self.by_sk.get(&sock.peer)
            && let Some(peer) = self.inventory.sockets.get(other)
        {
            self.inside((at, stock), (other, peer), sock, found);
            return Ok(());
        }
        let peer = match sock.peer {
            0 => None,
            sk => Some(memory.sock(sk)?),
        };
        let name = match &peer {
            Some(peer) => memory.name_of(peer)?,
            None => UnixName::Unnamed,
        };
        let is_dead = peer.is_none_or(|peer| peer.is_dead());
        if is_dead && socket.socket_type != SocketType::Dgram && has_closed_since(sock) {
            self.refuse(stock, Reason::ClosedMeanwhile);
            return Ok(());
        }
        let policy = if is_dead { Policy::Dangling } else { self.policy(stock, &name) };
        match policy {
            Policy::Dangling => {
                if !is_dead && socket.socket_type != SocketType::Dgram {
                    socket.shutdown = Shutdown::BOTH;
                }
                let was = self.was(stock, name);
                found.others.push(Connection::Ended { survivor: index(at), was });
            }
            Policy::Reconnect => match self.reconnect(stock, name) {
                Ok(how) => found.others.push(Connection::External { socket: index(at), how }),
                Err(reason) => self.refuse(stock, reason),
            },
            // All that can be kept was found before.
            Policy::Keep | Policy::Refuse => {
                let seen = self.seen(stock).and_then(|seen| seen.peer);
                match seen {
                    Some(inode) => {
                        self.refuse_external(stock, inode, self.inventory.view.get(inode));
                    }
                    None => {
                        let listener = self.waiting.get(&stock.held.inode).copied();
                        let listener = listener.map(|inode| self.parties(inode));
                        let listener = listener.unwrap_or_default();
                        self.refuse(stock, Reason::NotAccepted { listener });
                    }
                }
            }
        }
        Ok(())
    }

    /// Both ends are in the image.
    fn inside(
        &mut self,
        (at, stock): (usize, &'a Stock),
        (other, peer): (usize, &'a Stock),
        sock: &Sock,
        found: &mut Found,
    ) {
        if stock.details.socket_type == SocketType::Dgram && !self.is_datagram_pair(stock, peer) {
            let (sender, receiver) = (index(at), index(other));
            found.others.push(Connection::Datagram { sender, receiver });
            return;
        }
        if other < at || peer.waits_at.is_some() {
            return;
        }
        let theirs = peer.sock.shutdown;
        match self.ends(stock, peer) {
            Ends::Pair => {
                if stock.details.socket_type != SocketType::Dgram {
                    let (own, theirs) = (Shutdown(sock.shutdown), Shutdown(theirs));
                    if own != theirs.mirrored() {
                        self.refuse(stock, Reason::OneSidedShutdown { own, peer: theirs });
                    }
                }
                found.others.push(Connection::Pair { a: index(at), b: index(other) });
            }
            ends => {
                let client_first = ends == Ends::ClientFirst;
                let (client, server) = if client_first { (at, other) } else { (other, at) };
                let (own, theirs) = match client_first {
                    true => (sock.shutdown, theirs),
                    false => (theirs, sock.shutdown),
                };
                self.refuse_shutdown(stock, Shutdown(own), Shutdown(theirs));
                let Some(end) = self.inventory.sockets.get(server) else { return };
                let listener = self.listener_of(end).map(|listener| listener.held.sk);
                let listener = listener.and_then(|sk| self.by_sk.get(&sk)).map(|at| index(*at));
                // Inodes are given out in the order of accept, as far as one CPU goes.
                let time = self.tracked(end).and_then(|t| t.opened_at).unwrap_or(0);
                let connection = Connection::Accepted {
                    client: index(client),
                    server: index(server),
                    listener,
                    order: 0,
                };
                found.accepted.insert((time, end.held.inode), connection);
            }
        }
    }

    /// A client may have shut something down before it connected, which its peer does not know of; nobody
    /// else can.
    fn refuse_shutdown(&mut self, stock: &Stock, client: Shutdown, server: Shutdown) {
        if server.mirrored().0 & !client.0 != 0 {
            self.refuse(stock, Reason::OneSidedShutdown { own: client, peer: server });
        }
    }

    pub(super) fn policy(&self, stock: &Stock, name: &UnixName) -> Policy {
        let peer = self.seen(stock).and_then(|seen| seen.peer);
        let inodes = [Some(stock.held.inode), peer];
        let inodes: Vec<u32> = inodes.into_iter().flatten().collect();
        self.rules.policy(name, &inodes)
    }

    /// What the other end of a connection was, which is gone or will be.
    fn was(&self, stock: &Stock, name: UnixName) -> Was {
        let details = &stock.details;
        if details.socket_type == SocketType::Dgram {
            return match details.credentials.is_some() {
                true => Was::Half(name),
                false => Was::Server { name, listener: None },
            };
        }
        let role = self.tracked(stock).map_or(TrackedRole::None, |tracked| tracked.role);
        let has_listener = self.listener_of(stock).is_some();
        let role = match (role, details.name.is_named(), name.is_named()) {
            (TrackedRole::None, false, false) => TrackedRole::Pair,
            (TrackedRole::None, true, _) if has_listener => TrackedRole::Server,
            (TrackedRole::None, _, true) => TrackedRole::Client,
            (TrackedRole::None, true, false) => TrackedRole::Server,
            (role, _, _) => role,
        };
        let position = |stock: &Stock| self.by_sk.get(&stock.held.sk).map(|at| index(*at));
        match role {
            TrackedRole::Pair | TrackedRole::None => Was::Half(name),
            TrackedRole::Server => {
                Was::Client { name, listener: self.listener_of(stock).and_then(position) }
            }
            TrackedRole::Client => {
                let listener = self.listener_called(&name, details.socket_type).and_then(position);
                Was::Server { name, listener }
            }
        }
    }

    /// A listener of the image by its name.
    fn listener_called(&self, name: &UnixName, socket_type: SocketType) -> Option<&'a Stock> {
        let mut listeners = self.listeners.iter();
        let (_, at) = listeners
            .find(|((called, of_type, _), _)| *called == name && *of_type == socket_type)?;
        self.inventory.sockets.get(*at)
    }

    fn reconnect(&self, stock: &Stock, name: UnixName) -> Result<External, Reason> {
        let socket_type = stock.details.socket_type;
        let role = self.tracked(stock).map_or(TrackedRole::None, |tracked| tracked.role);
        let is_client = socket_type == SocketType::Dgram
            || match role {
                TrackedRole::Client => true,
                TrackedRole::Server | TrackedRole::Pair => false,
                // Nobody saw it. An end that was accepted has its listener's name.
                TrackedRole::None => {
                    self.has_listener(&name, socket_type)
                        || !self.has_listener(&stock.details.name, socket_type)
                }
            };
        if !name.is_named() || !is_client {
            return Err(Reason::NobodyToReconnect { name });
        }
        let bytes = stock.queue.iter().map(|message| message.data.len()).sum();
        if !stock.queue.is_empty() {
            return Err(Reason::LostQueue { bytes });
        }
        let directory = match name.is_relative_path() {
            false => None,
            true => {
                let peer = self.tracked(stock).and_then(|tracked| tracked.peer);
                let peer = peer.and_then(|peer| self.inventory.ledger.as_ref()?.get(peer.sk));
                let directory = peer.and_then(|peer| peer.directories.as_ref()?.cwd_from_root());
                match directory {
                    Some(directory) => Some(directory.to_vec()),
                    None => return Err(Reason::UnknownDirectory { name }),
                }
            }
        };
        Ok(External::Reconnect { name, directory })
    }

    fn clients_of(&mut self, listener: usize) -> Vec<super::Party> {
        let inventory = self.inventory;
        let listener = inventory.sockets.get(listener).and_then(|stock| self.seen(stock));
        listener.map_or_else(Vec::new, |listener| self.waiting_clients(listener))
    }
}

/// Whether the peer, which is dead, was alive when this was read: its end shuts a socket down in both
/// directions, and what it had sent by then may not have been seen.
fn has_closed_since(sock: &Sock) -> bool {
    Shutdown(sock.shutdown) != Shutdown::BOTH
}
