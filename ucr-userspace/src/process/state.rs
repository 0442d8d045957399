//! One socket's state, read through a descriptor that we hold.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, sockopt as typed};

use super::filter::{self, Attached};
use super::options;
use crate::image::validate::STATUS_FLAGS;
use crate::image::{Filter, Notification, Owner, SocketOption};
use crate::model::option_table;
use crate::model::{Credentials, Pid, SocketType, UnixName};
use crate::sys::{addr, notify, peer, sockopt};

/// What a descriptor tells about its socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketDetails {
    /// Inode number in sockfs.
    pub inode: u32,
    /// `SO_COOKIE`.
    pub cookie: u64,
    /// `SO_TYPE`.
    pub socket_type: SocketType,
    /// `getsockname`.
    pub name: UnixName,
    /// `getpeername`; `None` if there is no peer.
    pub peer_name: Option<UnixName>,
    /// `SO_ACCEPTCONN`.
    pub accepting: bool,
    /// For a datagram socket: something waits to be received, if only a message without data.
    pub has_messages: bool,
    /// `F_GETFL`, reduced to what an image holds.
    pub status_flags: i32,
    /// `SO_PEERCRED`, if it is set. For a listener these are the credentials of the task that
    /// called `listen` (`unix_listen`), which its clients will see.
    pub credentials: Option<Credentials>,
    /// `SO_PEERGROUPS`: the supplementary groups that go with them, in ascending order.
    pub groups: Option<Vec<u32>>,
    /// Options whose value differs from that of a new socket.
    pub options: Vec<SocketOption>,
    /// `SO_ATTACH_FILTER` and `SO_LOCK_FILTER`.
    pub filter: Option<Filter>,
    /// `F_SETOWN` and `F_SETSIG`, if either was set.
    pub notification: Option<Notification>,
    /// What differs from a new socket and cannot be given to another one.
    pub not_restorable: Vec<NotRestorable>,
}

/// State that an image cannot hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRestorable {
    /// An option with this value.
    Option {
        /// `SO_*` name.
        name: &'static str,
        /// The bytes that `getsockopt` gave.
        value: Vec<u8>,
    },
    /// An eBPF filter (`SO_ATTACH_BPF`).
    BpfFilter,
    /// The next call on it fails with an error that only that call would tell.
    PendingError,
    /// What lies in the error queue.
    ErrorQueue {
        /// How much.
        entries: u32,
    },
    /// A program that chooses among the sockets of one port.
    ReuseportProgram,
    /// A protocol on top, as TLS.
    UpperLayer {
        /// `TCP_ULP`.
        name: String,
    },
    /// Answers of the kernel's that a netlink socket has not received.
    Answers,
    /// Urgent data.
    Urgent,
    /// Both ends mark packets instead of dropping them (ECN).
    Ecn,
    /// Segments are signed (`TCP_MD5SIG`).
    Signed,
    /// The other end's SYN (`TCP_SAVE_SYN`).
    SavedSyn,
    /// Data in a SYN (`TCP_FASTOPEN`).
    FastOpen,
    /// What a connection that has ended has left to be read.
    Leftover,
    /// A datagram that is not finished and is to go out in pieces.
    Cut,
    /// A message may wait, but looking for it would move `SO_PEEK_OFF`.
    Unlooked,
}

impl fmt::Display for NotRestorable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option { name, value } => {
                write!(f, "{name} =")?;
                value.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
            }
            Self::Unlooked => f.write_str(
                "SO_PEEK_OFF of a socket that is shut down: what waits to be received, which cannot be \
                 looked at without moving it,",
            ),
            Self::PendingError => f.write_str("SO_ERROR: an error that is yet to be told"),
            Self::ErrorQueue { entries } => {
                write!(f, "the error queue ({entries} waiting: MSG_ERRQUEUE)")
            }
            Self::ReuseportProgram => f.write_str(
                "SO_ATTACH_REUSEPORT_CBPF or _EBPF: a program that chooses among the sockets of a port",
            ),
            Self::UpperLayer { name } => {
                write!(f, "TCP_ULP: {name}, a protocol on top of TCP whose keys and records no call tells,")
            }
            Self::Answers => f.write_str("what a netlink socket has not received, or a dump of its that goes on,"),
            Self::Urgent => f.write_str("urgent data (MSG_OOB) that is not received"),
            Self::Ecn => f.write_str("explicit congestion notification (net.ipv4.tcp_ecn)"),
            Self::Signed => {
                f.write_str("TCP_MD5SIG or TCP_AO_ADD_KEY: keys that segments are signed with, which no call tells,")
            }
            Self::SavedSyn => f.write_str("TCP_SAVED_SYN: the SYN of the other end"),
            Self::FastOpen => f.write_str("TCP_FASTOPEN: data that goes with a SYN"),
            Self::Leftover => {
                f.write_str("what a connection that has ended has left to be received")
            }
            Self::Cut => f.write_str(
                "a datagram that is not finished (UDP_CORK, MSG_MORE) and is to be cut into pieces (UDP_SEGMENT)",
            ),
            Self::BpfFilter => f.write_str("SO_ATTACH_BPF: an eBPF filter"),
        }
    }
}

/// Why a socket's state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The kernel refuses a question.
    #[error("{operation} of descriptor {fd}")]
    Read {
        /// What was asked.
        operation: &'static str,
        /// Our descriptor.
        fd: i32,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// Not a unix socket, or of no type that it can have.
    #[error("descriptor {fd} is no unix socket: family {family}, type {kind}")]
    NotUnix {
        /// Our descriptor.
        fd: i32,
        /// `SO_DOMAIN`.
        family: i32,
        /// `SO_TYPE`.
        kind: i32,
    },
}

/// What is set on a socket, apart from what a new one has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// See [`SocketDetails::options`].
    pub options: Vec<SocketOption>,
    /// See [`SocketDetails::filter`].
    pub filter: Option<Filter>,
    /// Options that cannot be given to another one.
    pub not_restorable: Vec<NotRestorable>,
}

/// What a new socket of one type looks like on the running kernel.
#[derive(Clone, Debug)]
pub struct Defaults {
    options: Vec<SocketOption>,
    reported: Vec<(&'static str, Vec<u8>)>,
}

impl Defaults {
    /// Makes a socket, reads it and closes it.
    ///
    /// # Errors
    ///
    /// If it cannot be made or read.
    pub fn probe(socket_type: SocketType) -> Result<Self, StateError> {
        let kind = match socket_type {
            SocketType::Stream => rustix::net::SocketType::STREAM,
            SocketType::Dgram => rustix::net::SocketType::DGRAM,
            SocketType::Seqpacket => rustix::net::SocketType::SEQPACKET,
        };
        let new = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .map_err(|errno| StateError::Read {
            operation: "socket for the defaults",
            fd: -1,
            source: errno.into(),
        })?;
        Self::of(new.as_fd())
    }

    /// Reads a socket that is new.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub(super) fn of(socket: BorrowedFd<'_>) -> Result<Self, StateError> {
        let options = options::read(socket, option_table::TABLE.iter());
        let options = options.map_err(|(name, error)| failed(name, socket, error))?;
        Ok(Self { options, reported: reported(socket)? })
    }
}

pub(super) fn failed(
    operation: &'static str,
    socket: BorrowedFd<'_>,
    source: io::Error,
) -> StateError {
    StateError::Read { operation, fd: socket.as_raw_fd(), source }
}

fn reported(socket: BorrowedFd<'_>) -> Result<Vec<(&'static str, Vec<u8>)>, StateError> {
    let mut values = Vec::new();
    for &(number, name) in option_table::REPORTED {
        match sockopt::get(socket, number) {
            Ok(value) => values.push((name, value)),
            Err(error) if options::is_unknown(&error) => {}
            Err(error) => return Err(failed(name, socket, error)),
        }
    }
    Ok(values)
}

/// An option of `SOL_SOCKET` that is a number.
///
/// # Errors
///
/// If the kernel refuses.
pub fn int(socket: BorrowedFd<'_>, number: i32, name: &'static str) -> Result<i32, StateError> {
    let value = sockopt::get(socket, number).map_err(|error| failed(name, socket, error))?;
    sockopt::as_int(&value).ok_or_else(|| failed(name, socket, io::ErrorKind::UnexpectedEof.into()))
}

/// `SO_PEERCRED`; `None` where the kernel has none (it then says pid 0 and ids of -1).
///
/// # Errors
///
/// If the kernel refuses.
pub fn credentials(socket: BorrowedFd<'_>) -> Result<Option<Credentials>, StateError> {
    const NAME: &str = "SO_PEERCRED";
    let value =
        sockopt::get(socket, libc::SO_PEERCRED).map_err(|error| failed(NAME, socket, error))?;
    let (parts, rest) = value.as_chunks::<4>();
    let (&[pid, uid, gid], []) = (parts, rest) else {
        return Err(failed(NAME, socket, io::ErrorKind::UnexpectedEof.into()));
    };
    let (uid, gid) = (u32::from_ne_bytes(uid), u32::from_ne_bytes(gid));
    let pid = Pid(i32::from_ne_bytes(pid));
    Ok((uid != u32::MAX || gid != u32::MAX).then_some(Credentials { pid, uid, gid }))
}

/// `SO_PEERGROUPS`, in ascending order; `None` where the kernel has none.
///
/// # Errors
///
/// If the kernel refuses.
pub fn groups(socket: BorrowedFd<'_>) -> Result<Option<Vec<u32>>, StateError> {
    let mut groups =
        peer::groups(socket).map_err(|error| failed("SO_PEERGROUPS", socket, error))?;
    groups.iter_mut().for_each(|groups| groups.sort_unstable());
    Ok(groups)
}

/// The inode number in sockfs: 32 bits there, also where `stat` has more room.
///
/// # Errors
///
/// If `fstat` fails.
pub fn inode(socket: BorrowedFd<'_>) -> Result<u32, StateError> {
    let stat = rustix::fs::fstat(socket).map_err(|errno| failed("fstat", socket, errno.into()))?;
    Ok(u32::try_from(stat.st_ino & u64::from(u32::MAX)).unwrap_or_default())
}

/// Who is told by which signal, if anybody is.
///
/// # Errors
///
/// If the kernel refuses.
pub fn notification(socket: BorrowedFd<'_>) -> Result<Option<Notification>, StateError> {
    let (owner, signal) =
        notify::get(socket).map_err(|source| failed("F_GETOWN_EX, F_GETSIG", socket, source))?;
    // An owner that is gone is pid 0 as well (`f_getown_ex`).
    let owner = match (owner.pid, owner.kind) {
        (0, _) => Owner::Nobody,
        (pid, notify::THREAD) => Owner::Thread(Pid(pid)),
        (pid, notify::GROUP) => Owner::Group(Pid(pid)),
        (pid, _) => Owner::Process(Pid(pid)),
    };
    let any = owner != Owner::Nobody || signal != 0;
    Ok(any.then_some(Notification { owner, signal }))
}

/// What waits for the user of a datagram socket.
#[derive(Clone, Copy, Debug, Default)]
struct Awaited {
    message: bool,
    error: bool,
    unlooked: bool,
}

fn awaited(socket: BorrowedFd<'_>, peeks_at: bool) -> Result<Awaited, StateError> {
    let mut question = [PollFd::from_borrowed_fd(socket, PollFlags::IN | PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut question, Some(&now)).map_err(|errno| failed("poll", socket, errno.into()))?;
    let [answer] = question;
    let answer = answer.revents();
    let (message, error) = (answer.contains(PollFlags::IN), answer.contains(PollFlags::ERR));
    let unknown = Awaited { message: false, error, unlooked: false };
    // A socket that is shut down is readable in any case.
    if !answer.contains(PollFlags::RDHUP) {
        return Ok(Awaited { message, ..unknown });
    }
    // Receiving takes a pending error away, and peeking at a message without data marks it as seen, which
    // matters to whoever goes on from an offset.
    if error || peeks_at {
        return Ok(Awaited { unlooked: peeks_at, ..unknown });
    }
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match rustix::net::recv(socket, &mut [0_u8; 0], flags) {
        Ok(_) => Ok(Awaited { message: true, ..unknown }),
        Err(rustix::io::Errno::AGAIN) => Ok(unknown),
        Err(errno) => Err(failed("recv of nothing", socket, errno.into())),
    }
}

/// Reads what is set on a socket.
///
/// # Errors
///
/// If the kernel refuses a question.
pub fn settings(socket: BorrowedFd<'_>, defaults: &Defaults) -> Result<Settings, StateError> {
    settings_of(socket, defaults, |_| true)
}

/// Reads those of a socket's options that are wanted, as far as they are set.
pub(super) fn options_of(
    socket: BorrowedFd<'_>,
    defaults: &Defaults,
    is_wanted: impl Fn(i32) -> bool,
) -> Result<Vec<SocketOption>, StateError> {
    // What a new one does not have, none has.
    let known = defaults.options.iter().filter(|option| is_wanted(option.name));
    let known = known.filter_map(|option| option_table::known(option.name));
    let mut options =
        options::read(socket, known).map_err(|(name, error)| failed(name, socket, error))?;
    unusual(&mut options, &defaults.options, |option| option.name);
    Ok(options)
}

/// [`settings`] with no options but those that are wanted.
pub(super) fn settings_of(
    socket: BorrowedFd<'_>,
    defaults: &Defaults,
    is_wanted: impl Fn(i32) -> bool,
) -> Result<Settings, StateError> {
    let options = options_of(socket, defaults, is_wanted)?;
    let mut not_restorable: Vec<_> = reported(socket)?
        .into_iter()
        .filter(|pair| !defaults.reported.contains(pair))
        .map(|(name, value)| NotRestorable::Option { name, value })
        .collect();
    let filter = match filter::read(socket).map_err(|(name, error)| failed(name, socket, error))? {
        Attached::Nothing => None,
        Attached::Classic(filter) => Some(filter),
        Attached::Extended => {
            not_restorable.push(NotRestorable::BpfFilter);
            None
        }
    };
    Ok(Settings { options, filter, not_restorable })
}

/// Leaves those that differ from what is usual. Both stand in the order of one table.
pub(super) fn unusual<T: PartialEq, K: PartialEq>(
    all: &mut Vec<T>,
    usual: &[T],
    key: impl Fn(&T) -> K,
) {
    let mut usual = usual.iter();
    all.retain(|option| {
        let mut rest = usual.clone();
        match rest.find(|known| key(known) == key(option)) {
            Some(known) => {
                usual = rest;
                known != option
            }
            None => true,
        }
    });
}

/// Reads a socket's state.
///
/// # Errors
///
/// If it is no unix socket, or the kernel refuses a question.
pub fn read(socket: BorrowedFd<'_>, defaults: &Defaults) -> Result<SocketDetails, StateError> {
    let kind = int(socket, libc::SO_TYPE, "SO_TYPE")?;
    let family = int(socket, libc::SO_DOMAIN, "SO_DOMAIN")?;
    let (libc::AF_UNIX, Some(socket_type)) = (family, SocketType::from_raw(kind)) else {
        return Err(StateError::NotUnix { fd: socket.as_raw_fd(), family, kind });
    };
    let name = addr::local(socket).map_err(|error| failed("getsockname", socket, error))?;
    let peer_name = match addr::peer(socket) {
        Ok(name) => Some(UnixName::from_sun_path(&name)),
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => None,
        Err(error) => return Err(failed("getpeername", socket, error)),
    };
    let cookie =
        typed::socket_cookie(socket).map_err(|errno| failed("SO_COOKIE", socket, errno.into()))?;
    let flags =
        rustix::fs::fcntl_getfl(socket).map_err(|errno| failed("F_GETFL", socket, errno.into()))?;
    let flags = libc::c_int::try_from(flags.bits()).unwrap_or_default();

    let Settings { options, filter, mut not_restorable } = settings(socket, defaults)?;
    let peeks_at = options.iter().any(|option| option.name == libc::SO_PEEK_OFF);
    let awaited = match socket_type {
        SocketType::Dgram => awaited(socket, peeks_at)?,
        SocketType::Stream | SocketType::Seqpacket => Awaited::default(),
    };
    not_restorable.extend(awaited.unlooked.then_some(NotRestorable::Unlooked));
    not_restorable.extend(awaited.error.then_some(NotRestorable::PendingError));

    Ok(SocketDetails {
        inode: inode(socket)?,
        cookie,
        socket_type,
        name: UnixName::from_sun_path(&name),
        peer_name,
        has_messages: awaited.message,
        accepting: int(socket, libc::SO_ACCEPTCONN, "SO_ACCEPTCONN")? != 0,
        status_flags: flags & STATUS_FLAGS,
        credentials: credentials(socket)?,
        groups: groups(socket)?,
        options,
        filter,
        notification: notification(socket)?,
        not_restorable,
    })
}
