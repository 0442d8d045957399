//! An image to ordered steps. Pure.
//!
//! The order, and why:
//! 1. Pairs are made: they may have names.
//! 2. An abstract name that a listener had which is gone, and that another socket has now, is given to
//!    temporary listeners before that one: each binds, makes its connections, and is closed. (A path is
//!    contested by nobody: what has lost its file is bound where nobody else comes.)
//! 3. All other listeners bind and listen, temporary ones among them.
//! 4. The connections in the saved order: clients bind and connect, which does not wait for `accept`; then
//!    their other ends are accepted. Several at a time, but no more than the listener's backlog has room for.
//! 5. Unconnected sockets, and names that had to wait for step 2; then connections that nobody accepts yet,
//!    in the order of their queue.
//! 6. What waits for datagram sockets is sent, before they are connected (each before its peer is), because
//!    then only their peers may; then what waits for all others, whose ends were temporary sockets are
//!    closed. Every socket is there by then: it may be in flight.
//! 7. Temporary listeners are closed, files that were gone are unlinked.
//! 8. Internet sockets (`inet`), which have nothing to do with the others.
//! 9. Shutdown, options, flags; then filters, which may drop what is still to be sent; last the mode of
//!    the socket files, which lets others in.

mod across;
mod binders;
mod connections;
mod datagrams;
pub mod inet;
mod last;
mod paths;
mod queues;
pub mod spot;
pub mod step;

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde::Serialize;

pub use self::binders::{file_spot, named_spot};
pub use self::paths::{PathUse, Spellings};

use self::binders::{Binder, Key, Link, Links, binder, indexed, link, mark_contested};
use self::spot::{Landing, Spot};
use self::step::{Aside, Holder, Identity, Step};
use crate::image::datagrams::{Order, order};
use crate::image::validate::{self, Invalid};
use crate::image::{Image, Role, Socket, SocketIndex};
use crate::model::{SocketType, UnixName};
use crate::model::{inet_options, option_table};

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
    /// Temporary sockets keep their names until all is sent.
    #[error("a socket that has closed had the name {name}, which another one of the image has now")]
    NameReused {
        /// The name.
        name: UnixName,
    },
    /// Nobody can send to it what waits for it.
    #[error("socket {} has no name, and what waits for it was not sent by its other half", socket.0)]
    NamelessReceiver {
        /// The datagram socket.
        socket: SocketIndex,
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
    #[error("socket {} has {option}, which ucr does not restore", socket.0)]
    UnknownOption {
        /// Whose.
        socket: SocketIndex,
        /// Its name, or its number.
        option: String,
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
    /// Connections that wait to be accepted.
    pub waiting: usize,
    /// Messages that wait to be received.
    pub messages: usize,
    /// Socket pairs.
    pub pairs: usize,
    /// Sockets whose peer is a process that is not in the image, or that are taken from one.
    pub outside: usize,
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
    /// Where socket files are made that stay.
    pub paths: Vec<PathUse>,
    /// The directory beneath which all paths of the image are looked up, if not ours.
    #[serde(skip)]
    pub beneath: Option<Vec<u8>>,
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
        self.finishing.extend(asides.into_iter().map(Step::Discard));
        self
    }

    /// Whether sockets are bound beneath a root directory of their own.
    #[must_use]
    pub fn binds_privately(&self) -> bool {
        self.steps.iter().any(|step| {
            let Step::Bind { place, landing, .. } = step else { return false };
            place.path().is_some() && *landing != Landing::ByName
        })
    }

    /// The plan for sockets whose predecessors live until all is done: their files take the place of others,
    /// as the last thing that is done with names, and the old ones make room where addresses are.
    #[must_use]
    pub fn in_place(mut self) -> Self {
        let mut exchanges = Vec::new();
        for step in &mut self.steps {
            let Step::Bind { made, place, landing } = step else { continue };
            let spot = match landing {
                Landing::ByName => place.path().map(Spot::here),
                Landing::At(spot) => Some(spot.clone()),
                Landing::Nowhere | Landing::Over(_) => None,
            };
            if let Some(spot) = spot {
                *landing = Landing::Over(spot.clone());
                exchanges.push(Step::Exchange { made: *made, spot });
            }
        }
        // Behind their attributes: whoever finds the new file has the rights of the old one.
        self.steps.extend(exchanges);
        self.steps = inet::beside(self.steps);
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
    plan_beneath(image, spellings, None)
}

/// Makes a plan in which every path of the image is looked up beneath a directory.
///
/// # Errors
///
/// As [`plan`].
pub fn plan_beneath(
    image: &Image,
    spellings: &Spellings,
    beneath: Option<&[u8]>,
) -> Result<Plan, PlanError> {
    validate::check(image)?;
    for (index, socket) in indexed(image) {
        let general = socket.options.iter().find(|o| option_table::known(o.name).is_none());
        let mut own = socket.inet.iter().flat_map(|inet| &inet.options);
        let own = own.find(|o| inet_options::known(o.level, o.number).is_none());
        let unknown = general.map(|option| option_table::name(option.name));
        let unknown = unknown.or(own.map(|o| inet_options::name(o.level, o.number)));
        if let Some(option) = unknown {
            return Err(PlanError::UnknownOption { socket: index, option });
        }
    }
    queues::check(image)?;
    let mut planner = Planner::new(image, spellings, beneath)?;
    planner.pairs();
    planner.give_up_names_first();
    planner.listeners();
    planner.connections();
    planner.others();
    planner.waiting();
    planner.external();
    planner.datagram_queues(queues::When::BeforeParted);
    planner.part();
    planner.datagram_queues(queues::When::BeforeConnected);
    planner.datagrams();
    planner.gone_receivers();
    planner.datagram_queues(queues::When::Afterwards);
    planner.queues();
    planner.bury();
    planner.leave();
    planner.inet();
    planner.finish();
    Ok(planner.done(beneath))
}

struct Planner<'a> {
    image: &'a Image,
    binders: Vec<Binder>,
    /// Where in `binders` a socket is.
    by_holder: HashMap<Holder, usize>,
    links: Vec<Link>,
    /// The connections through each listener, as places in `links`.
    through: HashMap<Holder, Vec<usize>>,
    /// What connects the datagram sockets.
    datagrams: Order,
    /// Temporary sockets so far.
    temporary: usize,
    /// Who is at the other end of each socket that is connected, of whatever kind.
    across: HashMap<SocketIndex, Holder>,
    /// Temporary sockets that stand for ends that have closed, until all is sent.
    gone: Vec<Holder>,
    /// Temporary datagram sockets by name: for senders and receivers that have closed.
    strangers: HashMap<UnixName, Holder>,
    /// Who has sent what waits for a half of a pair, when both have left each other.
    parted: HashMap<SocketIndex, Holder>,
    /// How many connections wait at each listener.
    crowds: HashMap<Holder, u32>,
    /// Sockets that are taken from others as they are.
    kept: BTreeSet<SocketIndex>,
    /// What is created already.
    made: BTreeSet<Holder>,
    /// What is bound already.
    bound: BTreeSet<Holder>,
    /// Under whose credentials each listener listens now.
    listening_as: HashMap<Holder, Option<Identity>>,
    /// The place of each internet socket among those of the image that share its port.
    members: HashMap<SocketIndex, u32>,
    steps: Vec<Step>,
}

impl<'a> Planner<'a> {
    fn new(
        image: &'a Image,
        spellings: &Spellings,
        beneath: Option<&[u8]>,
    ) -> Result<Self, PlanError> {
        let Links { links, stopgaps, gone, temporary } = link(image);
        let mut through: HashMap<Holder, Vec<usize>> = HashMap::new();
        for (number, link) in links.iter().enumerate() {
            through.entry(link.listener).or_default().push(number);
        }
        let accepted = links.iter().filter_map(|link| match link.server {
            Holder::Saved(server) => Some(server),
            Holder::Temporary(_) => None,
        });
        let mut nameless: BTreeSet<SocketIndex> = accepted.collect();
        let (across, kept) = across::find(image, &gone);
        nameless.extend(&kept);
        let mut binders = Vec::new();
        for stopgap in &stopgaps {
            let (made, kind) = (stopgap.made, stopgap.socket_type);
            let count = through.get(&made).map_or(1, Vec::len);
            let backlog = u32::try_from(count).unwrap_or(u32::MAX).min(connections::AT_ONCE);
            let listens = Some((backlog, None));
            binders.push(binder(made, kind, &stopgap.bound, listens, beneath)?);
        }
        for (index, socket) in indexed(image) {
            if let Some(bound) = &socket.name
                && !nameless.contains(&index)
                && socket.role != Role::Embryo
            {
                let listens = match socket.role {
                    Role::Listening { backlog } => {
                        Some((backlog, Identity::of(socket, socket.listener_credentials)))
                    }
                    Role::Unconnected | Role::Connected | Role::Embryo => None,
                };
                let made = Holder::Saved(index);
                binders.push(binder(made, socket.socket_type, bound, listens, beneath)?);
            }
        }
        let mut strangers = across::Strangers::new(temporary);
        strangers.find(image, &gone, &mut binders)?;
        for binder in &mut binders {
            if let Key::Path(spot) = &mut binder.key {
                *spot = spellings.first(std::mem::take(spot));
            }
        }
        mark_contested(&mut binders)?;
        let is_late = |binder: &&Binder| {
            let is_stranger =
                matches!(binder.made, Holder::Temporary(_)) && binder.listens.is_none();
            is_stranger && binder.contested && matches!(binder.key, Key::Abstract(..))
        };
        if let Some(binder) = binders.iter().find(is_late) {
            return Err(PlanError::NameReused { name: binder.place.name.clone() });
        }
        let by_holder = binders.iter().zip(0..).map(|(binder, at)| (binder.made, at)).collect();
        let datagrams = order(image).unwrap_or_default();
        Ok(Self {
            temporary: strangers.temporary,
            across: across.into_iter().chain(strangers.across).collect(),
            gone: strangers.gone,
            parted: strangers
                .parted
                .into_iter()
                .chain(datagrams.parted.iter().map(|(from, to)| (*to, Holder::Saved(*from))))
                .collect(),
            strangers: strangers.datagrams,
            datagrams,
            crowds: across::crowds(image),
            kept,
            image,
            binders,
            by_holder,
            links,
            through,
            made: BTreeSet::new(),
            bound: BTreeSet::new(),
            listening_as: HashMap::new(),
            members: HashMap::new(),
            steps: Vec::new(),
        })
    }

    /// One more temporary socket.
    fn temporary(&mut self) -> Holder {
        self.temporary += 1;
        Holder::Temporary(self.temporary - 1)
    }

    fn socket(&self, index: SocketIndex) -> Option<&'a Socket> {
        self.image.sockets.get(index.get())
    }

    /// Numbers of the binders that fit.
    fn select(&self, fits: impl Fn(&Binder) -> bool) -> Vec<usize> {
        let binders = self.binders.iter().enumerate();
        binders.filter(|(_, binder)| fits(binder)).map(|(number, _)| number).collect()
    }

    fn create(&mut self, made: Holder, socket_type: SocketType) {
        if self.made.insert(made) {
            self.steps.push(Step::Create { made, socket_type });
        }
    }

    /// Creates and binds; a listener listens too.
    fn bind(&mut self, number: usize) {
        let Some(binder) = self.binders.get(number) else {
            return;
        };
        let (made, place, listens) = (binder.made, binder.place.clone(), binder.listens.clone());
        let (socket_type, landing) = (binder.socket_type, binder.landing.clone());
        if !self.bound.insert(made) {
            return;
        }
        self.create(made, socket_type);
        self.steps.push(Step::Bind { made, place, landing });
        if let Some((_, finally)) = listens {
            let first = self.through.get(&made).and_then(|numbers| numbers.first());
            let first = first.and_then(|number| self.links.get(*number));
            let wanted = first.and_then(|link| self.seen_by_holder(link.client));
            self.listen(made, wanted.or(finally));
        }
    }

    fn binder_of(&self, made: Holder) -> Option<&Binder> {
        self.binders.get(*self.by_holder.get(&made)?)
    }

    /// Whose credentials a socket's `SO_PEERCRED` is to show.
    fn seen_by(&self, index: SocketIndex) -> Option<Identity> {
        let socket = self.socket(index)?;
        Identity::of(socket, socket.peer_credentials)
    }

    fn seen_by_holder(&self, holder: Holder) -> Option<Identity> {
        match holder {
            Holder::Saved(index) => self.seen_by(index),
            Holder::Temporary(_) => None,
        }
    }

    fn others(&mut self) {
        for (index, socket) in indexed(self.image) {
            if let Some(netlink) = socket.netlink.clone() {
                self.steps.push(Step::Netlink { socket: index, netlink });
                continue;
            }
            let is_other = socket.role == Role::Embryo || socket.inet.is_some();
            if !is_other && !self.kept.contains(&index) {
                self.create(Holder::Saved(index), socket.socket_type);
            }
        }
        for number in self.select(|binder| binder.listens.is_none()) {
            self.bind(number);
        }
    }

    fn leave(&mut self) {
        for number in self.select(|b| b.listens.is_some() && !Self::is_early(b)) {
            self.release(number);
        }
        if self.binders.iter().any(|binder| binder.landing == Landing::Nowhere) {
            self.steps.push(Step::LeavePrivate);
        }
    }
}
