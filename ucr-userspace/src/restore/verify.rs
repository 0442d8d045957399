//! What was made, held against the image, up to renumbering.

mod inet;
mod insight;
mod netlink;
mod observe;
mod pids;
mod queues;
mod tcp;
mod waiting;

use std::fmt;

pub use self::inet::look_at_inet;
pub use self::insight::{Insight, MANY};
pub use self::netlink::look_at_netlink;
pub use self::observe::{ObserveError, Observed, observe};
pub use self::pids::other_pids;
pub use self::queues::look_deeper;

use super::identity::same_groups;
use super::plan::file_spot;
use crate::image::{
    Connection, External, Filter, Image, Notification, Role, Socket, SocketFile, SocketIndex,
    SocketOption, Was,
};
use crate::model::name::Escaped;
use crate::model::{Credentials, SeenSocket, SocketState, SocketType, UnixName, VfsFile, View};
use crate::model::{inet_options, option_table};
use crate::process::files::same_file;
use crate::process::state::{NotRestorable, SocketDetails};

/// Something that is not as the image says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which socket.
    pub socket: SocketIndex,
    /// Which of its properties.
    pub field: Field,
    /// What the image says.
    pub wanted: String,
    /// What is.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { socket, field, wanted, found } = self;
        write!(f, "socket {}: {field}: wanted {wanted}, found {found}", socket.0)
    }
}

/// A property that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `SO_TYPE`.
    Type,
    /// Unconnected, listening, connected; as the descriptor and as sock_diag say.
    Role,
    /// Of a listener.
    Backlog,
    /// `getsockname`.
    Name,
    /// `getpeername`.
    PeerName,
    /// Which socket is at the other end.
    Peer,
    /// `sk_shutdown`.
    Shutdown,
    /// `O_NONBLOCK`, `O_ASYNC`.
    StatusFlags,
    /// An option, by number.
    Option(i32),
    /// An option of another level than `SOL_SOCKET`.
    InetOption(i32, i32),
    /// The multicast groups that it is in.
    Memberships,
    /// What belongs to a TCP connection.
    Connection(&'static str),
    /// `SO_ATTACH_FILTER`, `SO_LOCK_FILTER`.
    Filter,
    /// `F_SETOWN`, `F_SETSIG`.
    Notification,
    /// What an image cannot hold, such as an eBPF filter.
    NotRestorable,
    /// What waits to be received.
    Queue,
    /// A datagram that is not finished.
    HeldBack,
    /// A message that waits to be received, by its number.
    Message(usize),
    /// Connections that wait to be accepted.
    Waiting,
    /// The error that the next call tells.
    Error,
    /// User and group of `SO_PEERCRED`.
    PeerCredentials,
    /// User and group that clients of a listener will see.
    ListenerCredentials,
    /// `SO_PEERGROUPS`.
    Groups,
    /// Whether its socket file lies where it is to be, or nowhere.
    File,
    /// The file's permission bits.
    FileMode,
    /// The file's owner and group.
    FileOwner,
    /// Whether sock_diag reports it at all.
    Snapshot,
}

impl Field {
    /// Whether it changes when somebody else connects or sends something.
    #[must_use]
    pub fn is_arrival(self) -> bool {
        matches!(self, Self::Queue | Self::Waiting | Self::Message(_))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Option(number) => return f.write_str(&option_table::name(*number)),
            Self::Message(number) => return write!(f, "message {number} of the queue"),
            Self::InetOption(level, number) => {
                return f.write_str(&inet_options::name(*level, *number));
            }
            Self::Connection(what) => return write!(f, "connection: {what}"),
            Self::Memberships => "multicast groups",
            Self::Type => "type",
            Self::Role => "role",
            Self::Backlog => "backlog",
            Self::Name => "name",
            Self::PeerName => "peer name",
            Self::Peer => "peer",
            Self::Shutdown => "shutdown",
            Self::StatusFlags => "status flags",
            Self::Filter => "filter",
            Self::Notification => "notification by signal",
            Self::NotRestorable => "not restorable",
            Self::Queue => "receive queue",
            Self::HeldBack => "unfinished datagram",
            Self::Waiting => "connections that wait",
            Self::Error => "pending error",
            Self::PeerCredentials => "peer credentials",
            Self::ListenerCredentials => "listener credentials",
            Self::Groups => "groups of the credentials",
            Self::File => "socket file",
            Self::FileMode => "socket file mode",
            Self::FileOwner => "socket file owner",
            Self::Snapshot => "kernel's report",
        })
    }
}

fn indexed(image: &Image) -> impl Iterator<Item = (SocketIndex, &Socket)> {
    (0..).map(SocketIndex).zip(&image.sockets)
}

/// What an image says of a socket's other end.
enum Peer<'a> {
    /// Nobody.
    None,
    /// A socket of the image.
    Socket(SocketIndex),
    /// One that cannot be seen, with this name.
    Called(&'a UnixName),
    /// Whoever answers to this name now.
    Anew(&'a UnixName),
    /// The socket is the very one that was saved.
    Same,
}

fn peers(image: &Image) -> Vec<Peer<'_>> {
    let mut peers: Vec<_> = image.sockets.iter().map(|_| Peer::None).collect();
    let mut set = |socket: SocketIndex, peer| {
        if let Some(place) = peers.get_mut(socket.get()) {
            *place = peer;
        }
    };
    for connection in &image.connections {
        match connection {
            Connection::Ended { survivor, was } => {
                let name = match was {
                    Was::Half(name) | Was::Client { name, .. } | Was::Server { name, .. } => name,
                };
                set(*survivor, Peer::Called(name));
            }
            Connection::External { socket, how: External::Reconnect { name, .. } } => {
                set(*socket, Peer::Anew(name));
            }
            Connection::External { socket, how: External::Keep { .. } } => set(*socket, Peer::Same),
            _ => connection.peers().for_each(|(this, other)| set(this, Peer::Socket(other))),
        }
    }
    peers
}

/// Compares. Pure.
#[must_use]
pub fn compare(image: &Image, observed: &[Option<Observed>], view: &View) -> Vec<Difference> {
    let unnamed = UnixName::Unnamed;
    let mut differences = Vec::new();
    for (((index, socket), observed_one), peer) in indexed(image).zip(observed).zip(peers(image)) {
        let Some(observed_one) = observed_one else { continue };
        let mut check = Check { socket: index, differences: &mut differences };
        let (name, inode) = match peer {
            Peer::Same => continue,
            Peer::None => (None, Some(None)),
            Peer::Called(name) | Peer::Anew(name) => (Some(name), None),
            Peer::Socket(other) => {
                let name = image.sockets.get(other.get()).and_then(|peer| peer.name.as_ref());
                let peer = observed.get(other.get()).and_then(Option::as_ref);
                let inode = peer.map(|peer| peer.details.inode);
                (Some(name.map_or(&unnamed, |bound| &bound.name)), Some(inode))
            }
        };
        check.through_descriptor(socket, observed_one);
        // The same user, started again, may be in other groups.
        if !matches!(peer, Peer::Anew(_)) {
            check.groups(socket, &observed_one.details);
        }
        let found_name = observed_one.details.peer_name.as_ref();
        check.equal(Field::PeerName, &Shown(name), &Shown(found_name));
        match view.get(observed_one.details.inode) {
            None => check.differs(Field::Snapshot, "a socket", "none"),
            Some(seen) => {
                check.through_view(socket, seen, inode.unwrap_or(seen.peer));
                check.file(socket, observed_one, seen);
            }
        }
    }
    differences
}

fn name_of(socket: &Socket) -> UnixName {
    socket.name.as_ref().map(|bound| bound.name.clone()).unwrap_or_default()
}

#[derive(PartialEq, Eq)]
struct Shown<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("none"),
        }
    }
}

fn ids(credentials: Option<Credentials>) -> Shown<String> {
    Shown(credentials.map(|Credentials { uid, gid, .. }| format!("uid {uid} gid {gid}")))
}

/// An option's bytes.
fn value(value: Option<&[u8]>) -> Shown<String> {
    Shown(value.map(|bytes| {
        let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        hex.join(" ")
    }))
}

fn program(filter: Option<&Filter>) -> Shown<String> {
    Shown(filter.map(|Filter { instructions, locked }| {
        let locked = if *locked { " locked" } else { "" };
        format!("{} instructions{locked}: {instructions:x?}", instructions.len())
    }))
}

struct Check<'a> {
    socket: SocketIndex,
    differences: &'a mut Vec<Difference>,
}

impl Check<'_> {
    fn differs(&mut self, field: Field, wanted: impl fmt::Display, found: impl fmt::Display) {
        let (wanted, found) = (wanted.to_string(), found.to_string());
        self.differences.push(Difference { socket: self.socket, field, wanted, found });
    }

    fn equal<T: PartialEq + fmt::Display>(&mut self, field: Field, wanted: &T, found: &T) {
        if wanted != found {
            self.differs(field, wanted, found);
        }
    }

    fn through_descriptor(&mut self, socket: &Socket, observed: &Observed) {
        let details = &observed.details;
        self.equal(Field::Type, &socket.socket_type, &details.socket_type);
        self.equal(Field::Name, &name_of(socket), &details.name);
        // Signals are switched on later, and read back by `arm`.
        let flags = socket.status_flags & !libc::O_ASYNC;
        self.equal(Field::StatusFlags, &flags, &details.status_flags);
        if let Some(Notification { owner, .. }) = details.notification {
            self.differs(
                Field::Notification,
                "nobody told yet",
                format!("{owner} told by a signal"),
            );
        }
        let listening = matches!(socket.role, Role::Listening { .. });
        if listening != details.accepting {
            let role = |accepting| {
                if accepting { "listening" } else { "not listening" }
            };
            self.differs(Field::Role, role(listening), role(details.accepting));
        }
        let (field, wanted) = if listening {
            (Field::ListenerCredentials, socket.listener_credentials)
        } else {
            (Field::PeerCredentials, socket.peer_credentials)
        };
        // An image may not know them.
        if wanted.is_some() {
            self.equal(field, &ids(wanted), &ids(details.credentials));
        }
        self.options(&socket.options, &details.options);
        self.filter(socket.filter.as_ref(), details.filter.as_ref());
        // Somebody else was quicker than the peer.
        if details.has_messages && socket.queue.is_empty() {
            self.differs(Field::Queue, "empty", "a message");
        }
        // What could not be looked at without moving something is read from the kernel's memory.
        let looked_at = |found: &&NotRestorable| **found != NotRestorable::Unlooked;
        for found in details.not_restorable.iter().filter(looked_at) {
            // As is this.
            if matches!(found, NotRestorable::PendingError) && socket.error != 0 {
                continue;
            }
            self.differs(Field::NotRestorable, "none", found);
        }
    }

    fn groups(&mut self, socket: &Socket, details: &SocketDetails) {
        let known = socket.peer_credentials.or(socket.listener_credentials).is_some();
        let Some(wanted) = socket.groups.as_ref().filter(|_| known) else { return };
        let found = details.groups.as_deref().unwrap_or_default();
        if !same_groups(wanted, found) {
            self.differs(Field::Groups, format!("{wanted:?}"), format!("{found:?}"));
        }
    }

    fn filter(&mut self, wanted: Option<&Filter>, found: Option<&Filter>) {
        if wanted != found {
            self.differs(Field::Filter, program(wanted), program(found));
        }
    }

    fn options(&mut self, all_wanted: &[SocketOption], all_found: &[SocketOption]) {
        let find = |options: &[SocketOption], name: i32| {
            options.iter().find(|option| option.name == name).map(|option| option.value.clone())
        };
        for wanted in all_wanted {
            let found = find(all_found, wanted.name);
            let same =
                found.as_ref().is_some_and(|f| option_table::equal(wanted.name, &wanted.value, f));
            if !same {
                let field = Field::Option(wanted.name);
                self.differs(field, value(Some(&wanted.value)), value(found.as_deref()));
            }
        }
        for found in all_found {
            if find(all_wanted, found.name).is_none() {
                self.differs(
                    Field::Option(found.name),
                    "a new socket's",
                    value(Some(&found.value)),
                );
            }
        }
    }

    fn through_view(&mut self, socket: &Socket, seen: &SeenSocket, peer: Option<u32>) {
        let state = match socket.role {
            Role::Unconnected => SocketState::Unconnected,
            Role::Listening { .. } => SocketState::Listening,
            Role::Connected | Role::Embryo => SocketState::Connected,
        };
        // Who connects to a datagram socket marks that one as well.
        if socket.socket_type != SocketType::Dgram {
            self.equal(Field::Role, &state, &seen.state);
        }
        self.equal(Field::Shutdown, &socket.shutdown, &seen.shutdown);
        self.equal(Field::Peer, &Shown(peer), &Shown(seen.peer));
        if let Role::Listening { backlog } = socket.role {
            self.equal(Field::Backlog, &backlog, &seen.send_queue);
        }
    }

    fn file(&mut self, socket: &Socket, observed: &Observed, seen: &SeenSocket) {
        let Some(bound) = &socket.name else { return };
        // sock_diag's numbers are those of the file system below, which an overlay hides.
        let lies_there = observed.file.is_some_and(|facts| match &observed.bound {
            Some(own) => same_file(own.facts.id, facts.id),
            None => seen.file == Some(VfsFile::from_stat(facts.id.device, facts.id.inode)),
        });
        let there = |is: bool| {
            if is { "in its place" } else { "not in its place" }
        };
        let wanted = file_spot(bound, None).is_some();
        if wanted != lies_there {
            self.differs(Field::File, there(wanted), there(lies_there));
        }
        if let Some(own) = observed.bound.as_ref().filter(|own| !wanted && own.facts.links > 0) {
            self.differs(Field::File, "none", Escaped(&own.path));
        }
        if let (
            Some(
                SocketFile::Present { mode, uid, gid, .. }
                | SocketFile::Moved { mode, uid, gid, .. },
            ),
            Some(facts),
        ) = (&bound.file, observed.file)
        {
            let octal = |mode: u32| format!("{mode:04o}");
            self.equal(Field::FileMode, &octal(*mode), &octal(facts.mode));
            let owner = |uid: u32, gid: u32| format!("{uid}:{gid}");
            self.equal(Field::FileOwner, &owner(*uid, *gid), &owner(facts.uid, facts.gid));
        }
    }
}
