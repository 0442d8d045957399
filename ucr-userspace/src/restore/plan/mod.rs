//! An image to ordered steps. Pure.
//!
//! The order, and why:
//! 1. Pairs are made: they may have names.
//! 2. A name that several sockets of the image had one after another is given to those that lost it
//!    (their file is gone) before the one that still has it: each binds, makes its connections, and
//!    its file is unlinked.
//! 3. All other listeners bind and listen, temporary ones among them.
//! 4. Each connection in the saved order: the client binds and connects, which does not wait for
//!    `accept`; then the other end is accepted. One at a time, so that no backlog is too small.
//! 5. Unconnected sockets, and names that had to wait for step 2; then datagram sockets are connected,
//!    each before its peer is.
//! 6. Temporary listeners are closed, files that were gone are unlinked.
//! 7. Shutdown, options, flags; then filters, which may drop what is still to be sent; last the mode of
//!    the socket files, which lets others in.

mod binders;
mod datagrams;
mod last;
mod paths;
pub mod step;

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde::Serialize;

pub use self::paths::{PathUse, Spellings};

use self::binders::{Binder, Key, Link, binder, indexed, link, mark_contested};
use self::step::{Afterwards, Aside, Holder, Identity, Step};
use crate::image::datagrams::{Order, order};
use crate::image::validate::{self, Invalid};
use crate::image::{Connection, Image, Role, Socket, SocketFile, SocketIndex, SocketOption};
use crate::model::option_table;
use crate::model::{SocketType, UnixName};

/// Why no order of steps brings an image back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The image contradicts itself.
    #[error("the image is not consistent: {0}")]
    Invalid(#[from] Invalid),
    /// Two sockets are to keep one name.
    #[error("{first} and {second} both keep the name {name}")]
    NameTwice {
        /// The name.
        name: UnixName,
        /// One of them.
        first: Holder,
        /// The other one.
        second: Holder,
    },
    /// It has to be connected to by a name that it lost to another socket of the image.
    #[error("{receiver} has lost the name {name}, by which others are to be connected to it")]
    LostName {
        /// The datagram socket.
        receiver: Holder,
        /// The name.
        name: UnixName,
    },
    /// `..` or nothing at the end of a path.
    #[error("the name {name} of {made} ends in no file name")]
    NoFileName {
        /// The name.
        name: UnixName,
        /// Whose.
        made: Holder,
    },
    /// An option that ucr does not set.
    #[error("socket {} has {}, which ucr does not restore", socket.0, option_table::name(*option))]
    UnknownOption {
        /// Whose.
        socket: SocketIndex,
        /// `SO_*` number.
        option: i32,
    },
}

/// What a plan makes, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Sockets of the image.
    pub sockets: usize,
    /// Listeners among them.
    pub listeners: usize,
    /// Connections through a listener.
    pub connections: usize,
    /// Socket pairs.
    pub pairs: usize,
    /// Datagram sockets that are connected to another one, or to themselves.
    pub datagram_peers: usize,
}

/// Steps in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Done one after another; each can be undone.
    pub steps: Vec<Step>,
    /// Done when all is verified and the processes are there; read back at once.
    pub arming: Vec<Step>,
    /// Done when the root's program runs; these cannot be undone.
    pub finishing: Vec<Step>,
    /// The paths that are bound.
    pub paths: Vec<PathUse>,
    /// The abstract names that are bound, with the type of socket: the kernel keeps them apart.
    pub abstract_names: Vec<(Vec<u8>, SocketType)>,
    /// In numbers.
    pub summary: Summary,
}

impl Plan {
    /// The plan with these files moved out of the way first.
    #[must_use]
    pub fn with_asides(mut self, asides: Vec<Aside>) -> Self {
        let moves = asides.iter().cloned().map(Step::MoveAside);
        self.steps = moves.chain(self.steps).collect();
        for aside in asides {
            match aside.afterwards {
                Afterwards::PutBack => self.steps.push(Step::PutBack(aside)),
                Afterwards::Discard => self.finishing.push(Step::Discard(aside)),
            }
        }
        self
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in (1..).zip(&self.steps) {
            writeln!(f, "{number:>4}  {step}")?;
        }
        writeln!(f, "      verify against the image")?;
        for step in &self.arming {
            writeln!(f, "      {step}")?;
        }
        self.finishing.iter().try_for_each(|step| writeln!(f, "      {step}"))
    }
}

/// Makes a plan.
///
/// # Errors
///
/// An inconsistent image, and what no order of steps can bring back.
pub fn plan(image: &Image) -> Result<Plan, PlanError> {
    plan_knowing(image, &Spellings::default())
}

/// Makes a plan, knowing which paths lead to one place: names that look different may be contested.
///
/// # Errors
///
/// As [`plan`].
pub fn plan_knowing(image: &Image, spellings: &Spellings) -> Result<Plan, PlanError> {
    validate::check(image)?;
    for (index, socket) in indexed(image) {
        if let Some(option) = socket.options.iter().find(|o| option_table::known(o.name).is_none())
        {
            return Err(PlanError::UnknownOption { socket: index, option: option.name });
        }
    }
    let mut planner = Planner::new(image, spellings)?;
    planner.pairs();
    planner.give_up_names_first()?;
    planner.listeners();
    planner.connections();
    planner.others();
    planner.datagrams();
    planner.leave();
    planner.finish();
    Ok(planner.done())
}

struct Planner<'a> {
    image: &'a Image,
    binders: Vec<Binder<'a>>,
    /// Where in `binders` a socket is.
    by_holder: HashMap<Holder, usize>,
    links: Vec<Link>,
    /// The connections through each listener, as places in `links`.
    through: HashMap<Holder, Vec<usize>>,
    /// What connects the datagram sockets.
    datagrams: Order,
    /// Datagram sockets that are connected to by name.
    receivers: BTreeSet<Holder>,
    /// Temporary sockets so far.
    temporary: usize,
    /// What is created already.
    made: BTreeSet<Holder>,
    /// What is bound already.
    bound: BTreeSet<Holder>,
    /// Under whose credentials each listener listens now.
    listening_as: HashMap<Holder, Option<Identity>>,
    steps: Vec<Step>,
}

impl<'a> Planner<'a> {
    fn new(image: &'a Image, spellings: &Spellings) -> Result<Self, PlanError> {
        let (links, temporary) = link(image);
        let accepted: BTreeSet<_> = links.iter().map(|link| link.server).collect();
        let mut binders = Vec::new();
        for (number, (bound, socket_type)) in temporary.iter().enumerate() {
            // One is enough: the connections are made one at a time.
            let listens = Some((1, None));
            binders.push(binder(Holder::Temporary(number), *socket_type, bound, listens)?);
        }
        for (index, socket) in indexed(image) {
            if let Some(bound) = &socket.name
                && !accepted.contains(&index)
            {
                let listens = match socket.role {
                    Role::Listening { backlog } => {
                        Some((backlog, Identity::of(socket, socket.listener_credentials)))
                    }
                    Role::Unconnected | Role::Connected | Role::Embryo => None,
                };
                binders.push(binder(Holder::Saved(index), socket.socket_type, bound, listens)?);
            }
        }
        for binder in &mut binders {
            if let Key::Path(path) = &mut binder.key {
                *path = spellings.first(std::mem::take(path));
            }
        }
        mark_contested(&mut binders)?;
        let by_holder = binders.iter().zip(0..).map(|(binder, at)| (binder.made, at)).collect();
        let mut through: HashMap<Holder, Vec<usize>> = HashMap::new();
        for (number, link) in links.iter().enumerate() {
            through.entry(link.listener).or_default().push(number);
        }
        let datagrams = order(image).unwrap_or_default();
        let receivers = datagrams.named.iter().map(|(_, receiver)| Holder::Saved(*receiver));
        Ok(Self {
            receivers: receivers.collect(),
            datagrams,
            temporary: temporary.len(),
            image,
            binders,
            by_holder,
            links,
            through,
            made: BTreeSet::new(),
            bound: BTreeSet::new(),
            listening_as: HashMap::new(),
            steps: Vec::new(),
        })
    }

    fn socket(&self, index: SocketIndex) -> Option<&'a Socket> {
        self.image.sockets.get(index.get())
    }

    /// Numbers of the binders that fit.
    fn select(&self, fits: impl Fn(&Binder<'_>) -> bool) -> Vec<usize> {
        let binders = self.binders.iter().enumerate();
        binders.filter(|(_, binder)| fits(binder)).map(|(number, _)| number).collect()
    }

    fn create(&mut self, made: Holder, socket_type: SocketType) {
        if self.made.insert(made) {
            self.steps.push(Step::Create { made, socket_type });
        }
    }

    /// Creates and binds; a listener listens too. A file that nobody connects through and that is
    /// not to stay is unlinked at once; that of a datagram socket's peer later.
    fn bind(&mut self, number: usize) {
        let Some(binder) = self.binders.get(number) else {
            return;
        };
        let (made, place, listens) = (binder.made, binder.place.clone(), binder.listens.clone());
        let (socket_type, transient) = (binder.socket_type, !binder.stays);
        if !self.bound.insert(made) {
            return;
        }
        self.create(made, socket_type);
        self.steps.push(Step::Bind { made, place: place.clone() });
        if let Some((_, finally)) = listens {
            let first = self.through.get(&made).and_then(|numbers| numbers.first());
            let first = first.and_then(|number| self.links.get(*number));
            let wanted = first.and_then(|link| self.seen_by(link.client));
            self.listen(made, wanted.or(finally));
        } else if transient && !self.receivers.contains(&made) {
            self.steps.push(Step::Unlink { made, place });
        }
    }

    fn binder_of(&self, made: Holder) -> Option<&Binder<'a>> {
        self.binders.get(*self.by_holder.get(&made)?)
    }

    /// Whose credentials a socket's `SO_PEERCRED` is to show.
    fn seen_by(&self, index: SocketIndex) -> Option<Identity> {
        let socket = self.socket(index)?;
        Identity::of(socket, socket.peer_credentials)
    }

    fn listen(&mut self, made: Holder, identity: Option<Identity>) {
        let listens = self.binder_of(made).and_then(|binder| binder.listens.as_ref());
        if let Some(&(backlog, _)) = listens {
            self.steps.push(Step::Listen { made, backlog, identity: identity.clone() });
            self.listening_as.insert(made, identity);
        }
    }

    fn connect(&mut self, number: usize) {
        let Some(&Link { client, server, listener, .. }) = self.links.get(number) else {
            return;
        };
        let Some(binder) = self.binder_of(listener) else {
            return;
        };
        let place = binder.place.clone();
        let wanted = self.seen_by(client);
        if wanted.is_some() && self.listening_as.get(&listener) != Some(&wanted) {
            self.listen(listener, wanted);
        }
        if let Some(socket) = self.socket(client) {
            self.create(Holder::Saved(client), socket.socket_type);
        }
        if self.binder_of(Holder::Saved(client)).is_some_and(|binder| !binder.contested)
            && let Some(&number) = self.by_holder.get(&Holder::Saved(client))
        {
            self.bind(number);
        }
        let identity = self.seen_by(server);
        self.steps.push(Step::Connect { client, listener, place, identity });
        self.steps.push(Step::Accept { server, listener });
        self.made.insert(Holder::Saved(server));
    }

    /// The end of a listener's part: the credentials that its next clients will see, or, for a
    /// temporary one, its close; and its file, if it is not to stay.
    fn release(&mut self, number: usize) {
        let Some(binder) = self.binders.get(number) else {
            return;
        };
        let (made, place, stays) = (binder.made, binder.place.clone(), binder.stays);
        let finally = binder.listens.clone().and_then(|(_, identity)| identity);
        if matches!(made, Holder::Temporary(_)) {
            self.steps.push(Step::Close { made });
        } else if finally.is_some() && self.listening_as.get(&made) != Some(&finally) {
            self.listen(made, finally);
        }
        if !stays && place.path().is_some() {
            self.steps.push(Step::Unlink { made, place });
        }
    }

    fn give_up_names_first(&mut self) -> Result<(), PlanError> {
        for number in self.select(|b| b.contested && !b.stays && b.listens.is_none()) {
            if let Some(binder) = self.binders.get(number)
                && self.receivers.contains(&binder.made)
            {
                let name = binder.place.name.clone();
                return Err(PlanError::LostName { receiver: binder.made, name });
            }
            self.bind(number);
        }
        for number in self.select(|b| b.contested && !b.stays && b.listens.is_some()) {
            self.bind(number);
            if let Some(made) = self.binders.get(number).map(|binder| binder.made) {
                for link in self.through.get(&made).cloned().unwrap_or_default() {
                    self.connect(link);
                }
            }
            self.release(number);
        }
        Ok(())
    }

    fn is_early(binder: &Binder<'_>) -> bool {
        binder.contested && !binder.stays
    }

    fn listeners(&mut self) {
        for number in self.select(|b| b.listens.is_some() && !Self::is_early(b)) {
            self.bind(number);
        }
    }

    fn connections(&mut self) {
        let early = self.select(Self::is_early);
        let early: BTreeSet<_> =
            early.into_iter().filter_map(|n| self.binders.get(n)).map(|b| b.made).collect();
        let links = self.links.iter().enumerate();
        let late = links.filter(|(_, link)| !early.contains(&link.listener));
        let late: Vec<_> = late.map(|(number, _)| number).collect();
        late.into_iter().for_each(|number| self.connect(number));
    }

    fn others(&mut self) {
        for (index, socket) in indexed(self.image) {
            self.create(Holder::Saved(index), socket.socket_type);
        }
        for number in self.select(|binder| binder.listens.is_none()) {
            self.bind(number);
        }
    }

    fn leave(&mut self) {
        for number in self.select(|b| b.listens.is_some() && !Self::is_early(b)) {
            self.release(number);
        }
    }

    fn finish(&mut self) {
        let mut mirrored = BTreeSet::new();
        for connection in &self.image.connections {
            let Some((_, other)) = connection.ends() else { continue };
            if self.socket(other).is_some_and(|socket| socket.socket_type != SocketType::Dgram) {
                mirrored.insert(other);
            }
        }
        for (socket, saved) in indexed(self.image) {
            if !saved.shutdown.is_none() && !mirrored.contains(&socket) {
                self.steps.push(Step::Shutdown { socket, how: saved.shutdown });
            }
            let set = in_order(saved).into_iter();
            let set = set.map(|option| Step::SetOption { socket, option });
            self.steps.extend(set);
            let flags = saved.status_flags & !libc::O_ASYNC;
            if flags != 0 {
                self.steps.push(Step::SetFlags { socket, flags });
            }
        }
        self.filters();
        for binder in &self.binders {
            if let Some(&SocketFile::Present { mode, uid, gid, .. }) = binder.file {
                let (made, place) = (binder.made, binder.place.clone());
                self.steps.push(Step::Attributes { made, place, mode, uid, gid });
            }
        }
    }

    fn done(self) -> Plan {
        let abstract_names: BTreeSet<_> = self
            .binders
            .iter()
            .filter_map(|binder| match &binder.key {
                Key::Abstract(name, socket_type) => Some((name.clone(), *socket_type)),
                Key::Path(_) => None,
            })
            .collect();
        let roles = self.image.sockets.iter().map(|socket| socket.role);
        let of = |fits: fn(&Connection) -> bool| {
            self.image.connections.iter().filter(|connection| fits(connection)).count()
        };
        let summary = Summary {
            sockets: self.image.sockets.len(),
            listeners: roles.filter(|role| matches!(role, Role::Listening { .. })).count(),
            connections: self.links.len(),
            pairs: of(|connection| matches!(connection, Connection::Pair { .. })),
            datagram_peers: of(|connection| matches!(connection, Connection::Datagram { .. })),
        };
        Plan {
            arming: last::arming(self.image),
            steps: self.steps,
            finishing: Vec::new(),
            paths: paths::uses(&self.binders),
            abstract_names: abstract_names.into_iter().collect(),
            summary,
        }
    }
}

/// A socket's options in an order in which they can be set. Setting a buffer's size locks it
/// (`SO_BUF_LOCK`); the image has no lock if it was off, as it is for a new socket.
fn in_order(saved: &Socket) -> Vec<SocketOption> {
    let mut options = saved.options.clone();
    let has = |number| saved.options.iter().any(|option| option.name == number);
    if (has(libc::SO_SNDBUF) || has(libc::SO_RCVBUF)) && !has(libc::SO_BUF_LOCK) {
        options.push(SocketOption::unlocked_buffers());
    }
    let rank = |number| option_table::TABLE.iter().position(|known| known.number == number);
    options.sort_by_key(|option| rank(option.name));
    options
}
