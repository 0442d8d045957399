//! What must hold in an image beyond its types: nothing later has to doubt it.

mod connections;
mod inet;
mod netlink;
mod queues;

use std::collections::HashSet;

pub use self::queues::{MAX_MESSAGES, MAX_PASSED};

use super::interfaces::Interface;
use super::schema::{
    Bound, Descriptor, Filter, Image, Owner, Role, Socket, SocketFile, SocketIndex,
};
use crate::model::{Credentials, Pid, Shutdown, SocketType, UnixName, name::Escaped};

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

/// Supplementary groups of a task, at most (`NGROUPS_MAX`).
pub const MAX_GROUPS: usize = 65_536;

/// Instructions of a classic filter, at most (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Bytes of the name of a network interface, at most (`IFNAMSIZ`, with a NUL).
pub const MAX_INTERFACE_LEN: usize = 15;

/// The highest error number (`MAX_ERRNO`).
const MAX_ERRNO: i32 = 4095;

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
    /// Not an interface, or there twice.
    #[error("network interface {number} with the name {} is not possible", Escaped(name))]
    Interface {
        /// Its number.
        number: u32,
        /// Its name.
        name: Vec<u8>,
    },
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
    /// Only a pathname is bound under a root directory, and that is absolute.
    #[error("the root directory of the name {0} does not fit")]
    Root(UnixName),
    /// One of the queue.
    #[error("a message that waits for it {0}")]
    Message(&'static str),
    /// An embryo has none.
    #[error("a descriptor leads to it, and it was not accepted yet")]
    EmbryoDescriptor,
    /// No process has such a descriptor.
    #[error("pid {0} cannot have descriptor {1}, which it is to be taken from")]
    Keeper(Pid, i32),
    /// More than the kernel lets a task have, or nobody's.
    #[error("{0} groups, or one of them, are not possible")]
    Groups(usize),
    /// None, or more than the kernel takes.
    #[error("a filter of {0} instructions is not possible")]
    FilterSize(usize),
    /// No such signal.
    #[error("signal {0} is not possible")]
    Signal(i32),
    /// Nobody's id.
    #[error("pid {0}, which it tells by a signal, is not possible")]
    Owner(Pid),
    /// Not an errno.
    #[error("error number {0} is not possible")]
    Errno(i32),
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
    /// Something about an internet socket.
    #[error("an internet socket that {0}")]
    Inet(&'static str),
    /// Something about a netlink socket.
    #[error("a netlink socket that {0}")]
    Netlink(&'static str),
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
    check_interfaces(image)?;
    inet::check_waiting(image)?;
    let passed = queues::check(image)?;
    check_descriptors(image, &pids, &passed)?;
    connections::check(image)
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

/// Each has a name that a kernel takes (`dev_valid_name`), and a number of its own.
fn check_interfaces(image: &Image) -> Result<(), Invalid> {
    let mut numbers = HashSet::new();
    for Interface { number, name } in &image.interfaces {
        let is_name = (1..=MAX_INTERFACE_LEN).contains(&name.len())
            && !name.iter().any(|byte| matches!(byte, 0 | b'/' | b':'));
        if *number == 0 || !is_name || !numbers.insert(number) {
            return Err(Invalid::Interface { number: *number, name: name.clone() });
        }
    }
    Ok(())
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
    } else if matches!(socket.role, Role::Listening { .. }) && socket.inet.is_none() {
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
    if let Some(groups) = &socket.groups
        && (groups.len() > MAX_GROUPS || groups.contains(&u32::MAX))
    {
        return Err(Problem::Groups(groups.len()));
    }
    // Without instructions it is a lock alone.
    if let Some(Filter { instructions, locked }) = &socket.filter
        && (instructions.len() > MAX_INSTRUCTIONS || (instructions.is_empty() && !locked))
    {
        return Err(Problem::FilterSize(instructions.len()));
    }
    if let Some(notification) = socket.notification {
        if !(0..=64).contains(&notification.signal) {
            return Err(Problem::Signal(notification.signal));
        }
        match notification.owner {
            Owner::Thread(pid) | Owner::Process(pid) | Owner::Group(pid) if pid.0 <= 0 => {
                return Err(Problem::Owner(pid));
            }
            _ => {}
        }
    }
    if !(0..=MAX_ERRNO).contains(&socket.error) {
        return Err(Problem::Errno(socket.error));
    }
    let comm = socket.creator.as_ref().map_or(0, |actor| actor.comm.len());
    if comm > MAX_COMM_LEN {
        return Err(Problem::CreatorComm(comm));
    }
    if let Some(inet) = &socket.inet {
        inet::check(socket, inet)?;
    }
    if let Some(netlink) = &socket.netlink {
        netlink::check(socket, netlink)?;
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
    check_name(name, bound.directory.as_deref())?;
    let is_path = matches!(name, UnixName::Pathname(_));
    if bound.root.as_deref().is_some_and(|root| !is_path || !is_absolute(root)) {
        return Err(Problem::Root(name.clone()));
    }
    match (&bound.file, name) {
        (None, UnixName::Abstract(_)) => Ok(()),
        (Some(file), UnixName::Pathname(_)) => match *file {
            SocketFile::Present { mode, .. } | SocketFile::Moved { mode, .. } if mode > 0o7777 => {
                Err(Problem::FileMode(mode))
            }
            SocketFile::Moved { ref path, .. } if !is_absolute(path) => {
                Err(Problem::File(name.clone()))
            }
            SocketFile::Present { uid, gid, .. } | SocketFile::Moved { uid, gid, .. } => {
                check_ids(uid, gid)
            }
            SocketFile::Deleted | SocketFile::Replaced => Ok(()),
        },
        _ => Err(Problem::File(name.clone())),
    }
}

fn is_absolute(path: &[u8]) -> bool {
    path.starts_with(b"/") && !path.contains(&0)
}

/// A name that the kernel could hold, and the directory that goes with a relative one.
fn check_name(name: &UnixName, directory: Option<&[u8]>) -> Result<(), Problem> {
    if !name.is_possible() {
        return Err(Problem::ImpossibleName(name.clone()));
    }
    let directory_fits = match directory {
        None => !name.is_relative_path(),
        Some(path) => name.is_relative_path() && is_absolute(path),
    };
    if directory_fits { Ok(()) } else { Err(Problem::Directory(name.clone())) }
}

fn check_ids(uid: u32, gid: u32) -> Result<(), Problem> {
    if uid == u32::MAX || gid == u32::MAX { Err(Problem::NobodysId) } else { Ok(()) }
}

fn check_descriptors(
    image: &Image,
    pids: &HashSet<Pid>,
    passed: &HashSet<SocketIndex>,
) -> Result<(), Invalid> {
    let mut numbers = HashSet::new();
    let mut reached = passed.clone();
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
        let found = look_up(image, "a descriptor", socket)?;
        if found.role == Role::Embryo {
            return Err(Invalid::Socket { index: socket.0, problem: Problem::EmbryoDescriptor });
        }
        reached.insert(socket);
    }
    let lost = |(index, socket): &(u32, &Socket)| {
        socket.role != Role::Embryo && !reached.contains(&SocketIndex(*index))
    };
    match (0u32..).zip(&image.sockets).find(lost) {
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
