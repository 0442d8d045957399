//! What must hold in an image beyond its types: nothing later has to doubt it.

use std::collections::{HashMap, HashSet};

use super::datagrams::{self, Impossible};
use super::schema::{Bound, Connection, Descriptor, Image, Role, Socket, SocketFile, SocketIndex};
use crate::model::{Credentials, Pid, Shutdown, SocketType, UnixName};

/// No socket option of the kernel is longer than this many bytes in an image.
pub const MAX_OPTION_LEN: usize = 64;

/// Processes of an image, at most.
pub const MAX_PROCESSES: usize = 65_536;

/// Descriptors of an image, at most: four processes as full as `fs.nr_open` lets them be.
pub const MAX_DESCRIPTORS: usize = 4 << 20;

/// Arguments of all processes together, at most. (The kernel gives one process 6 MiB for strings
/// and pointers: `bprm_stack_limits`.)
pub const MAX_ARGUMENTS: usize = 4 << 20;

/// Bytes of all arguments together, at most.
pub const MAX_ARGUMENT_BYTES: usize = 32 << 20;

/// Bytes of a `comm`: 15 for a task of user space, and kernel threads may have longer ones.
pub const MAX_COMM_LEN: usize = 64;

/// `O_NONBLOCK` and `O_ASYNC`: the status flags that an image may hold.
pub const STATUS_FLAGS: i32 = libc::O_NONBLOCK | libc::O_ASYNC;

/// What contradicts what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A tree has a root.
    #[error("it holds no process")]
    NoProcess,
    /// Not a pid.
    #[error("pid {0} is not possible")]
    ImpossiblePid(Pid),
    /// Twice in the list.
    #[error("pid {0} is there twice")]
    PidTwice(Pid),
    /// More sockets than an index can count.
    #[error("{0} sockets are too many")]
    TooManySockets(usize),
    /// More of something than an image may have.
    #[error("{found} {what} are more than the {limit} that an image may have")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Longer than any.
    #[error(
        "the command name of pid {pid} has {len} bytes, and at most {MAX_COMM_LEN} are possible"
    )]
    CommTooLong {
        /// Whose.
        pid: Pid,
        /// Its length in bytes.
        len: usize,
    },
    /// A descriptor below 0.
    #[error("descriptor {fd} of pid {pid} is below zero")]
    NegativeDescriptor {
        /// Whose.
        pid: Pid,
        /// Its number.
        fd: i32,
    },
    /// The same number twice in one process.
    #[error("descriptor {fd} of pid {pid} is there twice")]
    DescriptorTwice {
        /// Whose.
        pid: Pid,
        /// Its number.
        fd: i32,
    },
    /// A descriptor of a process that is not in the image.
    #[error("descriptor {fd} belongs to pid {pid}, which is not in the image")]
    UnknownPid {
        /// Whose.
        pid: Pid,
        /// Its number.
        fd: i32,
    },
    /// An index that leads nowhere.
    #[error("{by} names socket {index}, and there are {sockets}")]
    NoSuchSocket {
        /// Who names it.
        by: &'static str,
        /// The index.
        index: u32,
        /// How many sockets there are.
        sockets: usize,
    },
    /// One of the things that a single socket can have wrong.
    #[error("socket {index}: {problem}")]
    Socket {
        /// Which one.
        index: u32,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What can be wrong with one socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Datagram sockets have no listeners, and no other ones are connected without one.
    #[error("it is a {0} socket, which cannot be {1}")]
    Kind(SocketType, &'static str),
    /// `connect` needs a name.
    #[error("it is connected to a socket without a name, and no pair made it so")]
    NamelessPeer,
    /// Nobody connects to a socket that has another peer.
    #[error("it is connected to a socket that has had another peer since socketpair made it")]
    TakenPeer,
    /// Nor in a circle, for that reason.
    #[error("it is connected in a circle with others, which no order of calls does")]
    Circle,
    /// The same socket is there twice.
    #[error("cookie {0} belongs to another socket as well")]
    CookieTwice(u64),
    /// No kernel could hold that name.
    #[error("the name {0} is not possible")]
    ImpossibleName(UnixName),
    /// A socket without a name has no `Bound`.
    #[error("it is bound to no name")]
    BoundToNothing,
    /// The directory is missing, not absolute, has a NUL, or belongs to no relative path.
    #[error("the directory of the name {0} does not fit")]
    Directory(UnixName),
    /// Only a pathname has a socket file, and each has one.
    #[error("the name {0} and its socket file do not fit")]
    File(UnixName),
    /// More than permission bits.
    #[error("file mode {0:#o} has more than permission bits")]
    FileMode(u32),
    /// `(uid_t) -1` means "unchanged" to the kernel.
    #[error("user or group id 4294967295 is nobody's")]
    NobodysId,
    /// `listen` needs a name, and so does a socket that was accepted.
    #[error("a socket that {0} has no name")]
    Nameless(&'static str),
    /// Other bits than receive and send.
    #[error("shutdown mask {0:#x} is not possible")]
    ShutdownMask(u8),
    /// One end's shutdown is the other's, mirrored.
    #[error("its shutdown ({0}) does not mirror its peer's ({1})")]
    ShutdownNotMirrored(Shutdown, Shutdown),
    /// Bits that `fcntl` could not set again.
    #[error("status flags {0:#o} cannot be set")]
    StatusFlags(i32),
    /// Nobody could use it.
    #[error("no descriptor leads to it")]
    NoDescriptor,
    /// Connected, and in no connection.
    #[error("it is connected, but in no connection")]
    NotInConnection,
    /// In two connections, or in one at both ends.
    #[error("it is an end of more than one connection")]
    InTwoConnections,
    /// In a connection, but its role is another one.
    #[error("it is an end of a connection, but not connected")]
    NotConnected,
    /// The peers' types differ.
    #[error("it is a {0} socket and its peer a {1} socket")]
    PeerType(SocketType, SocketType),
    /// A connection came through something that does not listen.
    #[error("it is named as a listener, but does not listen")]
    NotListening,
    /// A listener accepts connections of its own type only.
    #[error("it is a {0} listener, and the connection is of type {1}")]
    ListenerType(SocketType, SocketType),
    /// An accepted socket shares its listener's address.
    #[error("it listens as {0}, and what was accepted from it is called {1}")]
    ListenerName(UnixName, UnixName),
    /// Both ends of a pair see the same task.
    #[error("the two ends of a pair have different peer credentials")]
    PairCredentials,
    /// The name of the creator's thread is longer than any.
    #[error("its creator's command name has {0} bytes, and at most {MAX_COMM_LEN} are possible")]
    CreatorComm(usize),
    /// An option twice.
    #[error("option {0} is there twice")]
    OptionTwice(i32),
    /// Longer than any option, or empty.
    #[error("option {name} has a value of {len} bytes")]
    OptionSize {
        /// `SO_*` number.
        name: i32,
        /// Length in bytes.
        len: usize,
    },
}

/// Checks an image.
///
/// # Errors
///
/// The first contradiction found.
pub fn check(image: &Image) -> Result<(), Invalid> {
    check_sizes(image)?;
    let pids = check_processes(image)?;
    if u32::try_from(image.sockets.len()).is_err() {
        return Err(Invalid::TooManySockets(image.sockets.len()));
    }
    let mut cookies = HashSet::new();
    for (index, socket) in (0u32..).zip(&image.sockets) {
        let wrong = |problem| Invalid::Socket { index, problem };
        check_socket(socket).map_err(wrong)?;
        // 0: the maker of the image did not know it.
        if socket.cookie != 0 && !cookies.insert(socket.cookie) {
            return Err(wrong(Problem::CookieTwice(socket.cookie)));
        }
    }
    check_descriptors(image, &pids)?;
    check_connections(image)
}

fn check_sizes(image: &Image) -> Result<(), Invalid> {
    let arguments = || image.processes.iter().flat_map(|process| &process.arguments);
    let counts = [
        ("processes", image.processes.len(), MAX_PROCESSES),
        ("descriptors", image.descriptors.len(), MAX_DESCRIPTORS),
        ("arguments", arguments().count(), MAX_ARGUMENTS),
        ("bytes of arguments", arguments().map(Vec::len).sum(), MAX_ARGUMENT_BYTES),
    ];
    match counts.into_iter().find(|(_, found, limit)| found > limit) {
        Some((what, found, limit)) => Err(Invalid::TooMany { what, found, limit }),
        None => Ok(()),
    }
}

fn check_processes(image: &Image) -> Result<HashSet<Pid>, Invalid> {
    if image.processes.is_empty() {
        return Err(Invalid::NoProcess);
    }
    let mut pids = HashSet::new();
    for process in &image.processes {
        if process.pid.0 <= 0 {
            return Err(Invalid::ImpossiblePid(process.pid));
        }
        if process.comm.len() > MAX_COMM_LEN {
            return Err(Invalid::CommTooLong { pid: process.pid, len: process.comm.len() });
        }
        if !pids.insert(process.pid) {
            return Err(Invalid::PidTwice(process.pid));
        }
    }
    Ok(pids)
}

fn check_socket(socket: &Socket) -> Result<(), Problem> {
    if socket.socket_type == SocketType::Dgram && matches!(socket.role, Role::Listening { .. }) {
        return Err(Problem::Kind(socket.socket_type, "a listener"));
    }
    if let Some(bound) = &socket.name {
        check_bound(bound)?;
    } else if matches!(socket.role, Role::Listening { .. }) {
        return Err(Problem::Nameless("listens"));
    }
    if socket.shutdown.0 > Shutdown::BOTH.0 {
        return Err(Problem::ShutdownMask(socket.shutdown.0));
    }
    if socket.status_flags & !STATUS_FLAGS != 0 {
        return Err(Problem::StatusFlags(socket.status_flags));
    }
    for credentials in [socket.peer_credentials, socket.listener_credentials].iter().flatten() {
        let Credentials { uid, gid, .. } = *credentials;
        check_ids(uid, gid)?;
    }
    let comm = socket.creator.as_ref().map_or(0, |actor| actor.comm.len());
    if comm > MAX_COMM_LEN {
        return Err(Problem::CreatorComm(comm));
    }
    let mut names = HashSet::new();
    for option in &socket.options {
        if option.value.is_empty() || option.value.len() > MAX_OPTION_LEN {
            return Err(Problem::OptionSize { name: option.name, len: option.value.len() });
        }
        if !names.insert(option.name) {
            return Err(Problem::OptionTwice(option.name));
        }
    }
    Ok(())
}

fn check_bound(bound: &Bound) -> Result<(), Problem> {
    let name = &bound.name;
    if !name.is_named() {
        return Err(Problem::BoundToNothing);
    }
    if !name.is_possible() {
        return Err(Problem::ImpossibleName(name.clone()));
    }
    let directory_fits = match &bound.directory {
        None => !name.is_relative_path(),
        Some(path) => name.is_relative_path() && path.starts_with(b"/") && !path.contains(&0),
    };
    if !directory_fits {
        return Err(Problem::Directory(name.clone()));
    }
    match (&bound.file, name) {
        (None, UnixName::Abstract(_)) => Ok(()),
        (Some(file), UnixName::Pathname(_)) => match *file {
            SocketFile::Present { mode, .. } if mode > 0o7777 => Err(Problem::FileMode(mode)),
            SocketFile::Present { uid, gid, .. } => check_ids(uid, gid),
            SocketFile::Deleted | SocketFile::Replaced => Ok(()),
        },
        _ => Err(Problem::File(name.clone())),
    }
}

fn check_ids(uid: u32, gid: u32) -> Result<(), Problem> {
    if uid == u32::MAX || gid == u32::MAX { Err(Problem::NobodysId) } else { Ok(()) }
}

fn check_descriptors(image: &Image, pids: &HashSet<Pid>) -> Result<(), Invalid> {
    let mut numbers = HashSet::new();
    let mut reached = HashSet::new();
    for &Descriptor { pid, fd, socket, .. } in &image.descriptors {
        if fd < 0 {
            return Err(Invalid::NegativeDescriptor { pid, fd });
        }
        if !pids.contains(&pid) {
            return Err(Invalid::UnknownPid { pid, fd });
        }
        if !numbers.insert((pid, fd)) {
            return Err(Invalid::DescriptorTwice { pid, fd });
        }
        look_up(image, "a descriptor", socket)?;
        reached.insert(socket);
    }
    match (0u32..).zip(&image.sockets).find(|(index, _)| !reached.contains(&SocketIndex(*index))) {
        None => Ok(()),
        Some((index, _)) => Err(Invalid::Socket { index, problem: Problem::NoDescriptor }),
    }
}

fn look_up<'a>(
    image: &'a Image,
    by: &'static str,
    index: SocketIndex,
) -> Result<&'a Socket, Invalid> {
    image.sockets.get(index.get()).ok_or(Invalid::NoSuchSocket {
        by,
        index: index.0,
        sockets: image.sockets.len(),
    })
}

fn check_connections(image: &Image) -> Result<(), Invalid> {
    let mut ends: HashMap<SocketIndex, SocketIndex> = HashMap::new();
    for connection in &image.connections {
        let (a, b) = connection.ends();
        let problem = |index: SocketIndex, problem| Invalid::Socket { index: index.0, problem };
        for (this, other) in connection.peers() {
            let socket = look_up(image, "a connection", this)?;
            if socket.role != Role::Connected {
                return Err(problem(this, Problem::NotConnected));
            }
            if ends.insert(this, other).is_some() {
                return Err(problem(this, Problem::InTwoConnections));
            }
        }
        let both = (look_up(image, "a connection", a)?, look_up(image, "a connection", b)?);
        let (first, second) = both;
        if first.socket_type != second.socket_type {
            return Err(problem(a, Problem::PeerType(first.socket_type, second.socket_type)));
        }
        // A datagram socket shuts down for itself alone.
        let is_datagram = first.socket_type == SocketType::Dgram;
        if !is_datagram && first.shutdown != second.shutdown.mirrored() {
            return Err(problem(a, Problem::ShutdownNotMirrored(first.shutdown, second.shutdown)));
        }
        match *connection {
            Connection::Accepted { .. } if is_datagram => {
                return Err(problem(a, Problem::Kind(first.socket_type, "accepted")));
            }
            Connection::Datagram { .. } if !is_datagram => {
                let what = "connected in one direction";
                return Err(problem(a, Problem::Kind(first.socket_type, what)));
            }
            Connection::Datagram { .. } => {}
            Connection::Pair { .. } => {
                let identity = |socket: &Socket| socket.peer_credentials.map(|c| (c.uid, c.gid));
                if let (Some(one), Some(other)) = (identity(first), identity(second))
                    && one != other
                {
                    return Err(problem(a, Problem::PairCredentials));
                }
            }
            Connection::Accepted { listener, server, .. } => {
                let Some(accepted) = &second.name else {
                    return Err(problem(server, Problem::Nameless("was accepted")));
                };
                let Some(index) = listener else { continue };
                let listener = look_up(image, "a connection", index)?;
                if !matches!(listener.role, Role::Listening { .. }) {
                    return Err(problem(index, Problem::NotListening));
                }
                if listener.socket_type != second.socket_type {
                    let types = (listener.socket_type, second.socket_type);
                    return Err(problem(index, Problem::ListenerType(types.0, types.1)));
                }
                if let Some(bound) = &listener.name
                    && bound.name != accepted.name
                {
                    let names = (bound.name.clone(), accepted.name.clone());
                    return Err(problem(index, Problem::ListenerName(names.0, names.1)));
                }
            }
        }
    }
    let alone = (0u32..).zip(&image.sockets).find(|(index, socket)| {
        socket.role == Role::Connected && !ends.contains_key(&SocketIndex(*index))
    });
    if let Some((index, _)) = alone {
        return Err(Invalid::Socket { index, problem: Problem::NotInConnection });
    }
    datagrams::order(image).map(drop).map_err(|impossible| {
        let (index, problem) = match impossible {
            Impossible::Nameless(index) => (index, Problem::NamelessPeer),
            Impossible::Taken(index) => (index, Problem::TakenPeer),
            Impossible::Circle(index) => (index, Problem::Circle),
        };
        Invalid::Socket { index: index.0, problem }
    })
}
