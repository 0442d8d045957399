//! What was made, held against the image, up to renumbering.

use std::collections::BTreeMap;
use std::fmt;

use super::execute::Restored;
use super::identity::same_groups;
use super::plan::step::Place;
use crate::image::{Bound, Filter, Image, Notification, Role, Socket, SocketFile, SocketIndex};
use crate::model::name::Escaped;
use crate::model::option_table;
use crate::model::{
    Credentials, Pid, SeenSocket, SocketState, SocketType, UnixName, VfsFile, View,
};
use crate::process::files::Facts;
use crate::process::state::{self, Defaults, SocketDetails, StateError};

/// One socket as it is now.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Read through our descriptor.
    pub details: SocketDetails,
    /// What lies under its path, if its name is one.
    pub file: Option<Facts>,
}

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
    /// `SO_ATTACH_FILTER`, `SO_LOCK_FILTER`.
    Filter,
    /// `F_SETOWN`, `F_SETSIG`.
    Notification,
    /// What an image cannot hold, such as an eBPF filter.
    NotRestorable,
    /// What waits to be received.
    Queue,
    /// User and group of `SO_PEERCRED`.
    PeerCredentials,
    /// User and group that clients of a listener will see.
    ListenerCredentials,
    /// `SO_PEERGROUPS`.
    Groups,
    /// Whether its socket file lies under its name.
    File,
    /// The file's permission bits.
    FileMode,
    /// The file's owner and group.
    FileOwner,
    /// Whether sock_diag reports it at all.
    Snapshot,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Option(number) => return f.write_str(&option_table::name(*number)),
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

/// Why it cannot be said how the sockets are.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A socket was not made: the plan and the image do not belong together.
    #[error("socket {} was not made", .0.0)]
    NotMade(SocketIndex),
    /// A question to the kernel failed.
    #[error("failed to read socket {}", socket.0)]
    State {
        /// Which one.
        socket: SocketIndex,
        /// Why.
        #[source]
        source: StateError,
    },
    /// The socket file cannot be looked at.
    #[error("look at {}", Escaped(path))]
    File {
        /// Where.
        path: Vec<u8>,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

fn indexed(image: &Image) -> impl Iterator<Item = (SocketIndex, &Socket)> {
    (0..).map(SocketIndex).zip(&image.sockets)
}

/// Reads every socket that was made, in the image's order.
///
/// # Errors
///
/// If one cannot be read.
pub fn observe(image: &Image, restored: &Restored) -> Result<Vec<Observed>, ObserveError> {
    let mut defaults = std::collections::HashMap::new();
    let mut all = Vec::with_capacity(image.sockets.len());
    for (index, socket) in indexed(image) {
        let failed = |source| ObserveError::State { socket: index, source };
        let descriptor = restored.socket(index).ok_or(ObserveError::NotMade(index))?;
        let new = match defaults.entry(socket.socket_type) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(unknown) => {
                unknown.insert(Defaults::probe(socket.socket_type).map_err(failed)?)
            }
        };
        let details = state::read(descriptor, new).map_err(failed)?;
        let path = socket.name.as_ref().and_then(path_of);
        let file = match path {
            None => None,
            Some(path) => match Facts::at(&path) {
                Ok(facts) => facts,
                Err(source) => return Err(ObserveError::File { path, source }),
            },
        };
        all.push(Observed { details, file });
    }
    Ok(all)
}

fn path_of(bound: &Bound) -> Option<Vec<u8>> {
    Place { name: bound.name.clone(), directory: bound.directory.clone() }.path()
}

/// Compares. Pure.
#[must_use]
pub fn compare(image: &Image, observed: &[Observed], view: &View) -> Vec<Difference> {
    let mut peers = vec![None; image.sockets.len()];
    for connection in &image.connections {
        for (this, other) in connection.peers() {
            if let Some(peer) = peers.get_mut(this.get()) {
                *peer = Some(other);
            }
        }
    }
    let mut differences = Vec::new();
    for (((index, socket), observed_one), peer) in indexed(image).zip(observed).zip(peers) {
        let mut check = Check { socket: index, differences: &mut differences };
        check.through_descriptor(socket, observed_one);
        let peer = peer.and_then(|peer: SocketIndex| {
            Some((image.sockets.get(peer.get())?, observed.get(peer.get())?))
        });
        let wanted_name = peer.map(|(peer, _)| name_of(peer));
        let found_name = observed_one.details.peer_name.clone();
        check.equal(Field::PeerName, &Shown(wanted_name), &Shown(found_name));
        match view.get(observed_one.details.inode) {
            None => check.differs(Field::Snapshot, "a socket", "none"),
            Some(seen) => {
                let peer_inode = peer.map(|(_, observed)| observed.details.inode);
                check.through_view(socket, seen, peer_inode);
                check.file(socket, observed_one, seen);
            }
        }
    }
    differences
}

/// The pids that `SO_PEERCRED` of sockets should show and does not, and of how many: the kernel shows
/// whoever made the call, and not every pid can be had for that ([`super::workers`]).
#[must_use]
pub fn other_pids(image: &Image, observed: &[Observed]) -> BTreeMap<Pid, usize> {
    let mut others = BTreeMap::new();
    let pid = |credentials: Option<Credentials>| credentials.map(|credentials| credentials.pid);
    for (socket, observed) in image.sockets.iter().zip(observed) {
        let wanted = pid(socket.peer_credentials.or(socket.listener_credentials));
        if let Some(wanted) =
            wanted.filter(|wanted| Some(*wanted) != pid(observed.details.credentials))
        {
            *others.entry(wanted).or_default() += 1;
        }
    }
    others
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
            self.groups(socket, details);
        }
        self.options(socket, details);
        if socket.filter != details.filter {
            self.differs(
                Field::Filter,
                program(socket.filter.as_ref()),
                program(details.filter.as_ref()),
            );
        }
        // Somebody else was quicker than the peer.
        if details.has_messages {
            self.differs(Field::Queue, "empty", "a message");
        }
        for found in &details.not_restorable {
            self.differs(Field::NotRestorable, "none", found);
        }
    }

    fn groups(&mut self, socket: &Socket, details: &SocketDetails) {
        let Some(wanted) = &socket.groups else { return };
        let found = details.groups.as_deref().unwrap_or_default();
        if !same_groups(wanted, found) {
            self.differs(Field::Groups, format!("{wanted:?}"), format!("{found:?}"));
        }
    }

    fn options(&mut self, socket: &Socket, details: &SocketDetails) {
        let value = |value: Option<&[u8]>| {
            Shown(value.map(|bytes| {
                let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                hex.join(" ")
            }))
        };
        let find = |options: &[crate::image::SocketOption], name: i32| {
            options.iter().find(|option| option.name == name).map(|option| option.value.clone())
        };
        for wanted in &socket.options {
            let found = find(&details.options, wanted.name);
            let same =
                found.as_ref().is_some_and(|f| option_table::equal(wanted.name, &wanted.value, f));
            if !same {
                let field = Field::Option(wanted.name);
                self.differs(field, value(Some(&wanted.value)), value(found.as_deref()));
            }
        }
        for found in &details.options {
            if find(&socket.options, found.name).is_none() {
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
        let lies_there = observed.file.is_some_and(|facts| {
            seen.file == Some(VfsFile::from_stat(facts.id.device, facts.id.inode))
        });
        let there = |is: bool| {
            if is { "under its name" } else { "not under its name" }
        };
        let wanted = matches!(bound.file, Some(SocketFile::Present { .. }));
        if wanted != lies_there {
            self.differs(Field::File, there(wanted), there(lies_there));
        }
        if let (Some(SocketFile::Present { mode, uid, gid, .. }), Some(facts)) =
            (&bound.file, observed.file)
        {
            let octal = |mode: u32| format!("{mode:04o}");
            self.equal(Field::FileMode, &octal(*mode), &octal(facts.mode));
            let owner = |uid: u32, gid: u32| format!("{uid}:{gid}");
            self.equal(Field::FileOwner, &owner(*uid, *gid), &owner(facts.uid, facts.gid));
        }
    }
}
