//! Who is at the other end: sockets of the image, and temporary ones in the place of those that have closed.

use std::collections::{BTreeSet, HashMap};

use super::binders::{Binder, binder, lost};
use super::step::{Holder, Place, Step};
use super::{PlanError, Planner};
use crate::image::{Connection, External, Image, Role, Sender, Socket, SocketIndex, Was};
use crate::model::{Shutdown, SocketType, UnixName, option_table};

/// Who sends to each connected socket, and which sockets are taken from others.
pub(super) fn find(
    image: &Image,
    gone: &HashMap<SocketIndex, Holder>,
) -> (HashMap<SocketIndex, Holder>, BTreeSet<SocketIndex>) {
    let peers = image.connections.iter().flat_map(Connection::peers);
    let mut across: HashMap<_, _> =
        peers.map(|(this, other)| (this, Holder::Saved(other))).collect();
    across.extend(gone);
    (across, kept(image))
}

/// Sockets that are taken from others as they are.
pub(super) fn kept(image: &Image) -> BTreeSet<SocketIndex> {
    image.connections.iter().filter_map(Connection::kept).collect()
}

/// How many connections wait at each listener.
pub(super) fn crowds(image: &Image) -> HashMap<Holder, u32> {
    let mut crowds = HashMap::new();
    for connection in &image.connections {
        if let Connection::Waiting { listener, .. } = connection {
            *crowds.entry(Holder::Saved(*listener)).or_default() += 1;
        }
    }
    crowds
}

/// Temporary sockets in the place of those that have closed.
pub(super) struct Strangers {
    pub(super) temporary: usize,
    pub(super) across: HashMap<SocketIndex, Holder>,
    pub(super) gone: Vec<Holder>,
    pub(super) datagrams: HashMap<UnixName, Holder>,
    /// Other halves that have closed, of pairs whose remaining half had left them before.
    pub(super) parted: HashMap<SocketIndex, Holder>,
}

impl Strangers {
    pub(super) fn new(temporary: usize) -> Self {
        let (across, gone, datagrams) = (HashMap::new(), Vec::new(), HashMap::new());
        Self { temporary, across, gone, datagrams, parted: HashMap::new() }
    }

    fn make(&mut self) -> Holder {
        let made = Holder::Temporary(self.temporary);
        self.temporary += 1;
        self.gone.push(made);
        made
    }

    /// Gives each its number, and those with a name a binder.
    pub(super) fn find(
        &mut self,
        image: &Image,
        linked: &HashMap<SocketIndex, Holder>,
        binders: &mut Vec<Binder>,
    ) -> Result<(), PlanError> {
        let mut named = |made: Holder, socket_type: SocketType, name: &UnixName| {
            if name.is_named() {
                binders.push(binder(made, socket_type, &lost(name), None, None)?);
            }
            Ok::<(), PlanError>(())
        };
        let type_of = |index: SocketIndex| {
            image.sockets.get(index.get()).map(|socket| socket.socket_type).unwrap_or_default()
        };
        let mut halves = BTreeSet::new();
        for connection in &image.connections {
            match connection {
                Connection::Waiting { client: Sender::Gone(name), embryo, .. } => {
                    let made = self.make();
                    self.across.insert(*embryo, made);
                    named(made, type_of(*embryo), name)?;
                }
                Connection::Ended { survivor, was: Was::Half(name) } => {
                    let made = self.make();
                    self.across.insert(*survivor, made);
                    halves.insert(*survivor);
                    named(made, type_of(*survivor), name)?;
                }
                Connection::Ended { survivor, was } => match (linked.get(survivor), was) {
                    (Some(made), Was::Client { name, .. }) => {
                        self.gone.push(*made);
                        named(*made, type_of(*survivor), name)?;
                    }
                    (Some(made), _) => self.gone.push(*made),
                    (None, Was::Server { name, .. }) => {
                        let made = self.datagram(name, &mut named)?;
                        self.across.insert(*survivor, made);
                    }
                    (None, _) => {}
                },
                _ => {}
            }
        }
        for (index, socket) in super::indexed(image) {
            for message in &socket.queue {
                if let Some(Sender::Gone(name)) = &message.sender
                    && !halves.contains(&index)
                {
                    if socket.name.is_some() {
                        self.datagram(name, &mut named)?;
                    } else if !self.parted.contains_key(&index) {
                        let made = self.make();
                        self.parted.insert(index, made);
                        named(made, SocketType::Dgram, name)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn datagram(
        &mut self,
        name: &UnixName,
        named: &mut impl FnMut(Holder, SocketType, &UnixName) -> Result<(), PlanError>,
    ) -> Result<Holder, PlanError> {
        if let Some(known) = self.datagrams.get(name) {
            return Ok(*known);
        }
        let made = self.make();
        self.datagrams.insert(name.clone(), made);
        named(made, SocketType::Dgram, name)?;
        Ok(made)
    }
}

impl Planner<'_> {
    /// All that comes before a client connects.
    pub(super) fn prepare_client(
        &mut self,
        client: Holder,
        server: Holder,
        listener: Holder,
        socket_type: SocketType,
    ) {
        if self.listens_as_other(client, listener) {
            let wanted = self.seen_by_holder(client);
            self.listen(listener, wanted);
        }
        self.create(client, socket_type);
        if self.binder_of(client).is_some_and(|binder| !binder.contested)
            && let Some(&number) = self.by_holder.get(&client)
        {
            self.bind(number);
        }
        // What it had shut down before, its peer does not know of.
        if let (Holder::Saved(client), Holder::Saved(server)) = (client, server) {
            let common = self.shutdown_of(server).mirrored();
            let alone = Shutdown(self.shutdown_of(client).0 & !common.0);
            if !alone.is_none() {
                self.steps.push(Step::Shutdown { socket: client, how: alone });
            }
        }
    }

    /// Whether the listener is to listen as somebody else before a client connects.
    pub(super) fn listens_as_other(&self, client: Holder, listener: Holder) -> bool {
        let wanted = self.seen_by_holder(client);
        wanted.is_some() && self.listening_as.get(&listener) != Some(&wanted)
    }

    fn shutdown_of(&self, index: SocketIndex) -> Shutdown {
        self.socket(index).map(|socket| socket.shutdown).unwrap_or_default()
    }

    /// Halves of pairs whose other half has closed.
    pub(super) fn gone_halves(&mut self) {
        for connection in &self.image.connections {
            if let Connection::Ended { survivor, was: Was::Half(_) } = connection
                && let Some(socket) = self.socket(*survivor)
                && let Some(other) = self.across.get(survivor)
            {
                let identity = self.seen_by(*survivor);
                self.pair(Holder::Saved(*survivor), *other, socket.socket_type, identity);
            }
        }
    }

    /// Datagram sockets whose peer has closed.
    pub(super) fn gone_receivers(&mut self) {
        for connection in &self.image.connections {
            let Connection::Ended { survivor, was: Was::Server { .. } } = connection else {
                continue;
            };
            let Some(Socket { socket_type: SocketType::Dgram, .. }) = self.socket(*survivor) else {
                continue;
            };
            if let Some(receiver) = self.across.get(survivor).copied()
                && let Some(binder) = self.binder_of(receiver)
            {
                let (sender, place) = (*survivor, binder.place.clone());
                self.steps.push(Step::ConnectDatagram { sender, receiver, place });
            }
        }
    }

    /// Connections that wait to be accepted, in the order of their queues.
    pub(super) fn waiting(&mut self) {
        let mut all: Vec<_> = Vec::new();
        for connection in &self.image.connections {
            if let Connection::Waiting { embryo, listener, order, .. } = *connection {
                all.push((order, embryo, listener));
            }
        }
        all.sort_unstable_by_key(|(order, _, _)| *order);
        // Since 6.16 a connection inherits these when it is made, and not when it is accepted.
        let listeners: BTreeSet<SocketIndex> = all.iter().map(|(_, _, at)| *at).collect();
        for socket in listeners {
            let options = self.socket(socket).map(|saved| saved.options.clone());
            let inherited = options.into_iter().flatten();
            let inherited =
                inherited.filter(|option| option_table::INHERITED.contains(&option.name));
            self.steps.extend(inherited.map(|option| Step::SetOption { socket, option }));
        }
        for (_, embryo, listener) in all {
            let Some(client) = self.across.get(&embryo).copied() else { continue };
            let listener = Holder::Saved(listener);
            let Some(binder) = self.binder_of(listener) else { continue };
            let (place, socket_type) = (binder.place.clone(), binder.socket_type);
            self.prepare_client(client, Holder::Saved(embryo), listener, socket_type);
            let identity = self.seen_by(embryo);
            self.steps.push(Step::Connect { client, listener, place, identity });
        }
    }

    /// Sockets whose peer is not in the image.
    pub(super) fn external(&mut self) {
        for connection in &self.image.connections {
            let Connection::External { socket, how } = connection else { continue };
            let socket = *socket;
            match how {
                External::Reconnect { name, directory } => {
                    let place = Place { name: name.clone(), directory: directory.clone() };
                    self.steps.push(Step::Reconnect { socket, place });
                }
                &External::Keep { pid, fd } => {
                    self.steps.push(Step::Keep { socket, pid, fd });
                    self.made.insert(Holder::Saved(socket));
                }
            }
        }
    }

    /// Closes the temporary ends: what they left unread becomes their peer's error.
    pub(super) fn bury(&mut self) {
        let reset = |(index, socket): (SocketIndex, &Socket)| {
            let is_datagram = socket.socket_type == SocketType::Dgram;
            (socket.error != 0 && !is_datagram && socket.role == Role::Connected).then_some(index)
        };
        let spoilt: Vec<_> = super::indexed(self.image).filter_map(reset).collect();
        self.steps.extend(spoilt.into_iter().map(|socket| Step::Spoil { socket }));
        for made in std::mem::take(&mut self.gone) {
            if self.made.contains(&made) {
                self.steps.push(Step::Close { made });
            }
        }
    }

    /// What each end of a connection has to shut down by itself: of two ends one, the other's side
    /// follows; and nothing where the peer has closed, which does it.
    pub(super) fn shut_down(&self) -> HashMap<SocketIndex, Shutdown> {
        let mut how = HashMap::new();
        for connection in &self.image.connections {
            if let Some((first, second)) = connection.ends()
                && self.socket(second).is_some_and(|s| s.socket_type != SocketType::Dgram)
            {
                how.insert(first, self.shutdown_of(second).mirrored());
                how.insert(second, Shutdown::default());
            }
            if let Connection::Ended { survivor, .. } = connection
                && self.socket(*survivor).is_some_and(|s| s.socket_type != SocketType::Dgram)
            {
                how.insert(*survivor, Shutdown::default());
            }
        }
        how
    }
}
