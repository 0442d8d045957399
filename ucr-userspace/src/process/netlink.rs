//! A netlink socket's state, through a descriptor that we hold.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::socket::{NetlinkAddr, bind, connect, getpeername, getsockname};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::state::{self, Defaults, NotRestorable, StateError};
use crate::image::validate::STATUS_FLAGS;
use crate::image::{Filter, InetOption, Netlink, Notification, SocketOption};
use crate::model::netlink::{LEVEL, OPTIONS};
use crate::sys::sockopt;

/// Not in libc.
const NETLINK_LIST_MEMBERSHIPS: i32 = 9;

/// Most bytes of the mask of groups: of generic netlink there are as many as families want.
const MASK: usize = 8192;

/// What a descriptor tells about its netlink socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetlinkDetails {
    /// Inode number in sockfs.
    pub inode: u32,
    /// `SO_COOKIE`.
    pub cookie: u64,
    /// `F_GETFL`, reduced to what an image holds.
    pub status_flags: i32,
    /// `SOL_SOCKET` options whose value differs from that of a new socket.
    pub options: Vec<SocketOption>,
    /// `SO_ATTACH_FILTER` and `SO_LOCK_FILTER`.
    pub filter: Option<Filter>,
    /// `F_SETOWN` and `F_SETSIG`, if either was set.
    pub notification: Option<Notification>,
    /// What only netlink sockets have.
    pub netlink: Netlink,
    /// What differs from a new socket and cannot be given to another one.
    pub not_restorable: Vec<NotRestorable>,
}

/// What new sockets of each protocol look like, asked once.
#[derive(Debug, Default)]
pub struct Usual(HashMap<i32, Defaults>);

impl Usual {
    fn of(&mut self, protocol: i32) -> Result<&Defaults, StateError> {
        match self.0.entry(protocol) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let new = create(true, protocol).map_err(|source| StateError::Read {
                    operation: "socket for the defaults",
                    fd: -1,
                    source,
                })?;
                Ok(unknown.insert(Defaults::of(new.as_fd())?))
            }
        }
    }
}

/// `socket(2)`.
///
/// # Errors
/// The kernel's.
pub fn create(is_raw: bool, protocol: i32) -> io::Result<OwnedFd> {
    let kind = if is_raw { SocketType::RAW } else { SocketType::DGRAM };
    let protocol = u32::try_from(protocol).map_err(|_| io::ErrorKind::InvalidInput)?;
    // 0 is NETLINK_ROUTE.
    let protocol = core::num::NonZero::new(protocol).map(rustix::net::Protocol::from_raw);
    Ok(rustix::net::socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, protocol)?)
}

/// Reads a socket's state.
///
/// # Errors
/// If the kernel refuses a question.
pub fn read(socket: BorrowedFd<'_>, usual: &mut Usual) -> Result<NetlinkDetails, StateError> {
    let protocol = state::int(socket, libc::SO_PROTOCOL, "SO_PROTOCOL")?;
    let settings = state::settings(socket, usual.of(protocol)?)?;
    let mut not_restorable = settings.not_restorable;
    let waiting = sockopt::get(socket, libc::SO_MEMINFO)
        .map_err(|source| state::failed("SO_MEMINFO", socket, source))?;
    // Its first number: what waits to be received. A dump that goes on has always something there.
    if sockopt::as_int(&waiting).is_none_or(|bytes| bytes != 0) {
        not_restorable.push(NotRestorable::Answers);
    }
    let refused =
        |call| move |errno: nix::errno::Errno| state::failed(call, socket, io::Error::from(errno));
    let own: NetlinkAddr = getsockname(socket.as_raw_fd()).map_err(refused("getsockname"))?;
    let peer: NetlinkAddr = getpeername(socket.as_raw_fd()).map_err(refused("getpeername"))?;
    let flags = rustix::fs::fcntl_getfl(socket)
        .map_err(|errno| state::failed("F_GETFL", socket, errno.into()))?;
    let flags = libc::c_int::try_from(flags.bits()).unwrap_or_default();
    let cookie = rustix::net::sockopt::socket_cookie(socket)
        .map_err(|errno| state::failed("SO_COOKIE", socket, errno.into()))?;
    Ok(NetlinkDetails {
        inode: state::inode(socket)?,
        cookie,
        status_flags: flags & STATUS_FLAGS,
        options: settings.options,
        filter: settings.filter,
        notification: state::notification(socket)?,
        netlink: Netlink {
            is_raw: state::int(socket, libc::SO_TYPE, "SO_TYPE")? == libc::SOCK_RAW,
            protocol,
            port: own.pid(),
            groups: groups(socket)?,
            peer: Some((peer.pid(), peer.groups())).filter(|peer| *peer != (0, 0)),
            options: options(socket)?,
        },
        not_restorable,
    })
}

fn groups(socket: BorrowedFd<'_>) -> Result<Vec<u32>, StateError> {
    let refused = |source| state::failed("NETLINK_LIST_MEMBERSHIPS", socket, source);
    let mask = sockopt::get_at(socket, LEVEL, NETLINK_LIST_MEMBERSHIPS, MASK).map_err(refused)?;
    if mask.len() >= MASK {
        return Err(refused(io::ErrorKind::InvalidData.into()));
    }
    let (words, _) = mask.as_chunks::<4>();
    let words = words.iter().map(|word| u32::from_ne_bytes(*word));
    let in_word = |(word, first): (u32, u32)| {
        // Group 1 is bit 0.
        (0..32).filter(move |bit| word & (1 << bit) != 0).map(move |bit| first + bit + 1)
    };
    Ok(words.zip((0..).step_by(32)).flat_map(in_word).collect())
}

fn options(socket: BorrowedFd<'_>) -> Result<Vec<InetOption>, StateError> {
    let mut found = Vec::new();
    for (number, name) in OPTIONS {
        match sockopt::get_at(socket, LEVEL, number, sockopt::MAX_LEN) {
            Ok(value) if sockopt::as_int(&value) == Some(0) => {}
            Ok(value) => found.push(InetOption { level: LEVEL, number, value }),
            Err(error) if super::options::is_unknown(&error) => {}
            Err(error) => return Err(state::failed(name, socket, error)),
        }
    }
    Ok(found)
}

/// Makes a socket with this address, these groups and options; which call the kernel refuses, and why.
///
/// # Errors
/// The kernel's.
pub fn make(saved: &Netlink) -> Result<OwnedFd, (&'static str, io::Error)> {
    let refused = |call| move |source| (call, source);
    let from = |call| move |errno: nix::errno::Errno| (call, io::Error::from(errno));
    let made = create(saved.is_raw, saved.protocol).map_err(refused("socket"))?;
    let socket = made.as_fd();
    for option in &saved.options {
        sockopt::set_at(socket, LEVEL, option.number, &option.value)
            .map_err(refused("setsockopt SOL_NETLINK"))?;
    }
    if saved.port != 0 {
        bind(socket.as_raw_fd(), &NetlinkAddr::new(saved.port, 0)).map_err(from("bind"))?;
    }
    for group in &saved.groups {
        sockopt::set_at(socket, LEVEL, libc::NETLINK_ADD_MEMBERSHIP, &group.to_ne_bytes())
            .map_err(refused("setsockopt NETLINK_ADD_MEMBERSHIP"))?;
    }
    if let Some((port, groups)) = saved.peer {
        connect(socket.as_raw_fd(), &NetlinkAddr::new(port, groups)).map_err(from("connect"))?;
    }
    Ok(made)
}
