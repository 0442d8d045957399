//! Internet sockets, in steps. Pure.
//!
//! A socket gets what decides about its address before it is bound, and all that is to be set otherwise before
//! anything comes to it; what changes how it receives only when nothing more is put into its queue.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::{Serialize, Serializer};

use super::Planner;
use super::binders::indexed;
use super::last::in_order;
use super::step::Step;
use crate::image::{Image, Inet, InetOption, Membership, Role, Socket, SocketIndex};
use crate::model::inet::{Endpoint, Family, Over, Protocol};
use crate::model::inet_options::{self, When};
use crate::model::{Count, Shutdown};

/// A step with an internet socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InetStep {
    /// `socket`.
    Create {
        /// Its version of IP.
        family: Family,
        /// Its protocol.
        protocol: Protocol,
    },
    /// `setsockopt`.
    SetOption(#[serde(serialize_with = "option")] InetOption),
    /// Nothing comes to it but what ucr itself puts there.
    Deafen,
    /// Everything comes to it again.
    Hear,
    /// Has the socket that it replaces make room at its address.
    StandAside,
    /// `bind`.
    Bind(#[serde(serialize_with = "shown")] Endpoint),
    /// `listen`.
    Listen {
        /// Its backlog.
        backlog: u32,
    },
    /// Joining a multicast group.
    Join(#[serde(serialize_with = "membership")] Membership),
    /// `connect` of a datagram socket.
    Connect(#[serde(serialize_with = "shown")] Endpoint),
    /// Sends to here a datagram that is not finished.
    HoldBack(#[serde(serialize_with = "shown")] Endpoint),
    /// Has the network keep out of a TCP connection, until all is restored.
    Lock {
        /// This end.
        #[serde(serialize_with = "shown")]
        local: Endpoint,
        /// The other one.
        #[serde(serialize_with = "shown")]
        remote: Endpoint,
    },
    /// `TCP_REPAIR`: from here on it can be given the state of a connection.
    Repair,
    /// Makes it the connection that it was, to this end.
    Resume(#[serde(serialize_with = "shown")] Endpoint),
    /// Connects a TCP socket to a listener of the image, where the connection waits to be accepted, and sends what was
    /// sent.
    Call {
        /// The listener.
        listener: SocketIndex,
        /// Its place among those of the image that share its port.
        member: Option<u32>,
        /// Its number among those that wait there.
        turn: usize,
    },
    /// Puts into its queue what waited there, as if it came from the network again.
    Deliver {
        /// How many datagrams.
        count: usize,
        /// Its place among those of the image that share its port, all of which are there by then.
        member: Option<u32>,
    },
}

fn shown<S: Serializer>(endpoint: &Endpoint, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(endpoint)
}

fn membership<S: Serializer>(joined: &Membership, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Joined(joined))
}

fn option<S: Serializer>(option: &InetOption, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&SetTo(option))
}

/// A multicast group in words.
struct Joined<'a>(&'a Membership);

impl fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Membership { group, interface, excludes, sources } = self.0;
        write!(f, "{group} at interface {interface}")?;
        let (words, separator) =
            if *excludes { (" without ", " and ") } else { (" from ", " and ") };
        for (number, source) in sources.iter().enumerate() {
            write!(f, "{}{source}", if number == 0 { words } else { separator })?;
        }
        Ok(())
    }
}

/// Whether nothing gets into its queue but what ucr puts there, until it is what it was.
pub(super) fn is_deafened(inet: &Inet) -> bool {
    inet.local.is_some() && inet.protocol.is_datagram()
}

/// An option in words.
struct SetTo<'a>(&'a InetOption);

impl fmt::Display for SetTo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InetOption { level, number, value } = self.0;
        write!(f, "{} to", inet_options::name(*level, *number))?;
        match value.first_chunk() {
            Some(bytes) if value.len() == bytes.len() => {
                write!(f, " {}", i32::from_ne_bytes(*bytes))
            }
            _ => value.iter().try_for_each(|byte| write!(f, " {byte:02x}")),
        }
    }
}

impl InetStep {
    /// In words, of one socket.
    pub(super) fn describe(
        &self,
        SocketIndex(socket): SocketIndex,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        match self {
            Self::Create { family, protocol } => {
                write!(f, "create socket {socket} ({})", Over(*protocol, *family))
            }
            Self::SetOption(option) => {
                write!(f, "of socket {socket} set {}", SetTo(option))
            }
            Self::Deafen => write!(f, "let nothing in to socket {socket} but what waited there"),
            Self::Hear => write!(f, "let everything in to socket {socket}"),
            Self::StandAside => {
                write!(f, "have the socket that socket {socket} replaces make room at its address")
            }
            Self::Bind(local) => write!(f, "bind socket {socket} to {local}"),
            Self::Listen { backlog } => {
                write!(f, "listen on socket {socket} with backlog {backlog}")
            }
            Self::Join(joined) => write!(f, "let socket {socket} join {}", Joined(joined)),
            Self::HoldBack(to) => {
                write!(f, "of socket {socket} hold back a datagram to {to} (MSG_MORE)")
            }
            Self::Connect(remote) => write!(f, "connect socket {socket} to {remote}"),
            Self::Lock { local, remote } => {
                write!(f, "let nothing through between {local} and {remote}")
            }
            Self::Repair => write!(f, "put socket {socket} into repair mode"),
            Self::Resume(remote) => {
                write!(f, "make socket {socket} the connection with {remote} that it was")
            }
            Self::Call { listener, .. } => {
                write!(f, "have socket {socket} wait to be accepted at socket {}", listener.0)
            }
            Self::Deliver { count, .. } => {
                write!(f, "put {} into the queue of socket {socket}", Count(*count, "datagram"))
            }
        }
    }
}

/// All of an image.
fn inet_sockets(image: &Image) -> impl Iterator<Item = (SocketIndex, &Socket, &Inet)> {
    indexed(image).filter_map(|(index, socket)| Some((index, socket, socket.inet.as_deref()?)))
}

/// Whether a listener with this option lets nobody wait who has sent nothing.
fn is_deferring(option: &InetOption) -> bool {
    (option.level, option.number) == (libc::SOL_TCP, libc::TCP_DEFER_ACCEPT)
}

/// The steps for sockets that stand beside those that they replace. First all are made: whoever sets the old ones back, if
/// we are killed, has to have the new ones as well. Then the connections are locked, which he holds, too.
pub(super) fn beside(steps: Vec<Step>) -> Vec<Step> {
    let connections: HashSet<SocketIndex> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Inet { socket, step: InetStep::Resume(_) } => Some(*socket),
            _ => None,
        })
        .collect();
    let rank = |step: &Step| match step {
        Step::Inet { step: InetStep::Create { .. }, .. } => 0,
        Step::Inet { step: InetStep::Lock { .. }, .. } => 1,
        _ => 2,
    };
    let needs_room = |step: &Step| match step {
        Step::Inet { socket, step: InetStep::Bind(_) } => {
            Some(*socket).filter(|socket| !connections.contains(socket))
        }
        // As late as can be: nobody answers for the old one from here on.
        Step::Inet { socket, step: InetStep::Resume(_) } => Some(*socket),
        _ => None,
    };
    let mut all: Vec<Step> = Vec::with_capacity(steps.len());
    for step in steps {
        if let Some(socket) = needs_room(&step) {
            all.push(Step::Inet { socket, step: InetStep::StandAside });
        }
        all.push(step);
    }
    all.sort_by_key(rank);
    all
}

impl Planner<'_> {
    /// Makes them: those that share a port in the order in which they did.
    pub(super) fn inet(&mut self) {
        let mut all: Vec<_> = inet_sockets(self.image).collect();
        all.sort_by_key(|(index, _, inet)| (inet.turn, *index));
        let (connections, all): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, _, inet)| inet.tcp.is_some());
        let (sharing, alone): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, _, inet)| inet.turn.is_some());
        // Where a port is used again (`SO_REUSEADDR`), whoever came last gets what comes.
        for (index, socket, inet) in alone {
            self.inet_socket(index, socket, inet);
            self.inet_queue(index, socket, inet, None);
        }
        // Who shares a port is known by its place among the others: so all are there before anything comes.
        for &(index, socket, inet) in &sharing {
            self.inet_socket(index, socket, inet);
        }
        let mut places: HashMap<_, u32> = HashMap::new();
        for (index, socket, inet) in sharing {
            let place = places.entry((inet.protocol, inet.local)).or_default();
            self.inet_queue(index, socket, inet, Some(*place));
            self.members.insert(index, *place);
            *place += 1;
        }
        let calling: HashMap<SocketIndex, InetStep> = inet_sockets(self.image)
            .flat_map(|(listener, _, inet)| {
                let member = self.members.get(&listener).copied();
                inet.waiting.iter().enumerate().map(move |(turn, waiting)| {
                    (waiting.client, InetStep::Call { listener, member, turn })
                })
            })
            .collect();
        let (callers, others): (Vec<_>, Vec<_>) =
            connections.into_iter().partition(|(index, ..)| calling.contains_key(index));
        self.inet_connections(&others);
        self.inet_calls(callers, &calling);
    }

    /// Connections that wait to be accepted, in their order at each listener: made as they were before, since both ends
    /// are here.
    fn inet_calls(
        &mut self,
        mut callers: Vec<(SocketIndex, &Socket, &Inet)>,
        calling: &HashMap<SocketIndex, InetStep>,
    ) {
        callers.sort_by_key(|(index, ..)| match calling.get(index) {
            Some(InetStep::Call { listener, turn, .. }) => Some((*listener, *turn)),
            _ => None,
        });
        for (index, socket, inet) in callers {
            self.inet_socket(index, socket, inet);
            if let Some(call) = calling.get(&index) {
                self.step(index, call.clone());
            }
            self.deaf_end(index, socket, inet);
            self.inet_last(index, socket, inet);
        }
        // From here on: nothing need come of what is to wait.
        for (listener, _, inet) in
            inet_sockets(self.image).filter(|(_, _, inet)| !inet.waiting.is_empty())
        {
            let deferring = inet.options.iter().find(|option| is_deferring(option));
            if let Some(option) = deferring {
                self.step(listener, InetStep::SetOption(option.clone()));
            }
        }
    }

    /// After all listeners: a connection is bound where nobody else could be bound any more.
    fn inet_connections(&mut self, connections: &[(SocketIndex, &Socket, &Inet)]) {
        for (index, _, inet) in connections {
            if let (Some(local), Some(remote)) = (inet.local, inet.remote) {
                self.step(*index, InetStep::Lock { local, remote });
            }
        }
        for &(index, socket, inet) in connections {
            self.inet_socket(index, socket, inet);
            if let Some(remote) = inet.remote {
                self.step(index, InetStep::Resume(remote));
            }
            self.deaf_end(index, socket, inet);
            self.inet_last(index, socket, inet);
        }
    }

    /// What reads no more. (A FIN of the other end's has the same effect, and an own one is sent with what is sent.)
    fn deaf_end(&mut self, socket: SocketIndex, saved: &Socket, inet: &Inet) {
        let has_ended = inet.tcp.as_deref().is_some_and(|tcp| tcp.state.has_received_fin());
        if saved.shutdown.0 & Shutdown::RECEIVE.0 != 0 && !has_ended {
            self.steps.push(Step::Shutdown { socket, how: Shutdown::RECEIVE });
        }
    }

    fn inet_socket(&mut self, socket: SocketIndex, saved: &Socket, inet: &Inet) {
        let Inet { family, protocol, .. } = *inet;
        self.step(socket, InetStep::Create { family, protocol });
        let early = in_order(saved).into_iter().filter(|option| option.name != libc::SO_PEEK_OFF);
        self.steps.extend(early.map(|option| Step::SetOption { socket, option }));
        self.inet_options(socket, inet, When::First);
        if inet.tcp.is_some() {
            self.step(socket, InetStep::Repair);
        }
        if let Some(local) = inet.local {
            // What comes before it is connected, or between what waited, was never heard by it.
            if is_deafened(inet) {
                self.step(socket, InetStep::Deafen);
            }
            self.step(socket, InetStep::Bind(local));
        }
        if let Role::Listening { backlog } = saved.role {
            self.step(socket, InetStep::Listen { backlog });
            self.inet_options(socket, inet, When::Opened);
        }
        for joined in &inet.memberships {
            self.step(socket, InetStep::Join(joined.clone()));
        }
    }

    fn inet_queue(
        &mut self,
        socket: SocketIndex,
        saved: &Socket,
        inet: &Inet,
        member: Option<u32>,
    ) {
        if !inet.datagrams.is_empty() {
            let count = inet.datagrams.len();
            self.step(socket, InetStep::Deliver { count, member });
        }
        if let Some(remote) = inet.remote.filter(|_| inet.protocol.is_datagram()) {
            self.step(socket, InetStep::Connect(remote));
        }
        if let Some(held_back) = &inet.held_back {
            self.step(socket, InetStep::HoldBack(held_back.to));
        }
        if saved.shutdown != Shutdown::default() {
            self.steps.push(Step::Shutdown { socket, how: saved.shutdown });
        }
        if is_deafened(inet) {
            // Its own filter takes the place of ours: there is no moment without one.
            match saved.filter.clone().filter(|filter| !filter.instructions.is_empty()) {
                Some(filter) => self.steps.push(Step::SetFilter { socket, filter }),
                None => self.step(socket, InetStep::Hear),
            }
        }
        self.inet_last(socket, saved, inet);
    }

    fn inet_last(&mut self, socket: SocketIndex, saved: &Socket, inet: &Inet) {
        if inet.tcp.is_some() {
            self.inet_options(socket, inet, When::Opened);
            self.quick(socket, inet);
        }
        self.inet_options(socket, inet, When::Last);
        let late = saved.options.iter().filter(|option| option.name == libc::SO_PEEK_OFF);
        let late: Vec<_> = late.cloned().collect();
        self.steps.extend(late.into_iter().map(|option| Step::SetOption { socket, option }));
        let flags = saved.status_flags & !libc::O_ASYNC;
        if flags != 0 {
            self.steps.push(Step::SetFlags { socket, flags });
        }
    }

    /// A connection that acknowledges at once, as a new one does: what it was given meanwhile may have changed that.
    fn quick(&mut self, socket: SocketIndex, inet: &Inet) {
        let (level, number) = (libc::SOL_TCP, libc::TCP_QUICKACK);
        if !inet.options.iter().any(|option| (option.level, option.number) == (level, number)) {
            let value = 1_i32.to_ne_bytes().to_vec();
            self.step(socket, InetStep::SetOption(InetOption { level, number, value }));
        }
    }

    fn inet_options(&mut self, socket: SocketIndex, inet: &Inet, when: When) {
        let due = |option: &&InetOption| {
            let known = inet_options::known(option.level, option.number);
            // Nobody would wait at such a listener who has sent nothing.
            let is_later = !inet.waiting.is_empty() && is_deferring(option);
            !is_later && known.is_some_and(|known| known.when == when)
        };
        let mut due: Vec<_> = inet.options.iter().filter(due).cloned().collect();
        due.sort_by_key(|option| inet_options::rank(option.level, option.number));
        due.into_iter().for_each(|option| self.step(socket, InetStep::SetOption(option)));
    }

    fn step(&mut self, socket: SocketIndex, step: InetStep) {
        self.steps.push(Step::Inet { socket, step });
    }
}
