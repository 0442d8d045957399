//! An internet socket's state: through a descriptor that we hold, and as far as that does not tell it, from the
//! kernel's memory.

mod alike;
#[cfg(test)]
mod tests;
mod trial;

use core::net::IpAddr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, ipproto};
use ucr_common::descriptor::SocketDescriptor;

pub use self::alike::InetStates;
use super::state::{self, NotRestorable, StateError};
use super::states::Unknown;
use super::tcp;
use crate::image::validate::STATUS_FLAGS;
use crate::image::{
    Datagram, Filter, HeldBack, Inet, InetOption, Membership, Notification, SocketOption, Tcp,
};
use crate::model::Shutdown;
use crate::model::inet::{Endpoint, Family, Over, Protocol, TcpState};
use crate::model::inet_options;
use crate::model::name::Escaped;
use crate::snapshot::memory::{InetSock, Memory, MemoryError, RawWaiting};
use crate::sys::sockopt;

/// Longest value of an option that is read, in bytes.
const MAX_LEN: usize = sockopt::MAX_LEN;

/// How often a socket is looked at whose connection moves.
const LOOKS: u32 = 10;

/// What a descriptor tells about its internet socket, and the kernel's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InetDetails {
    /// Inode number in sockfs.
    pub inode: u32,
    /// `SO_COOKIE`.
    pub cookie: u64,
    /// `F_GETFL`, reduced to what an image holds.
    pub status_flags: i32,
    /// `sk_shutdown`.
    pub shutdown: Shutdown,
    /// Of a listener.
    pub backlog: Option<u32>,
    /// Connections that wait to be accepted, in order.
    pub waiting: Vec<RawWaiting>,
    /// Of a listener: how many more are being made.
    pub half_made: u32,
    /// `SOL_SOCKET` options whose value differs from that of a new socket.
    pub options: Vec<SocketOption>,
    /// `SO_ATTACH_FILTER` and `SO_LOCK_FILTER`.
    pub filter: Option<Filter>,
    /// `F_SETOWN` and `F_SETSIG`, if either was set.
    pub notification: Option<Notification>,
    /// `sk_state`.
    pub state: TcpState,
    /// What only internet sockets have.
    pub inet: Inet,
    /// What differs from a new socket and cannot be given to another one.
    pub not_restorable: Vec<NotRestorable>,
}

/// `socket(2)`.
///
/// # Errors
/// The kernel's.
pub fn create(family: Family, protocol: Protocol) -> io::Result<OwnedFd> {
    let (domain, kind, protocol) = kind_of(family, protocol);
    Ok(rustix::net::socket_with(domain, kind, SocketFlags::CLOEXEC, Some(protocol))?)
}

fn kind_of(
    family: Family,
    protocol: Protocol,
) -> (AddressFamily, rustix::net::SocketType, rustix::net::Protocol) {
    let domain = match family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    let (kind, protocol) = match protocol {
        Protocol::Tcp => (rustix::net::SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (rustix::net::SocketType::DGRAM, ipproto::UDP),
        Protocol::UdpLite => (rustix::net::SocketType::DGRAM, ipproto::UDPLITE),
    };
    (domain, kind, protocol)
}

/// The arguments of `socket` for that, without flags.
#[must_use]
pub fn arguments(family: Family, protocol: Protocol) -> (i32, i32, i32) {
    let (domain, kind, protocol) = kind_of(family, protocol);
    let number = |raw: u32| i32::try_from(raw).unwrap_or_default();
    (i32::from(domain.as_raw()), number(kind.as_raw()), number(protocol.as_raw().get()))
}

/// Family and protocol of a socket; `None` if it is none of those that ucr knows (another family, MPTCP, raw).
///
/// # Errors
/// If the kernel refuses the question.
pub fn kind(socket: BorrowedFd<'_>) -> Result<Option<(Family, Protocol)>, StateError> {
    let family = state::int(socket, libc::SO_DOMAIN, "SO_DOMAIN")?;
    let protocol = state::int(socket, libc::SO_PROTOCOL, "SO_PROTOCOL")?;
    Ok(Family::from_raw(family).zip(Protocol::from_raw(protocol)))
}

/// What is in a socket, as it stands: nothing of it is asked for by somebody who wants to know its options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Of a TCP connection.
    pub tcp: Option<Box<Tcp>>,
    /// What waits to be received by a socket of UDP.
    pub datagrams: Vec<Datagram>,
    /// What it holds back.
    pub held_back: Option<HeldBack>,
    /// Connections that wait to be accepted, in order.
    pub waiting: Vec<RawWaiting>,
    lost: Vec<NotRestorable>,
}

/// Reads what is in a socket.
///
/// # Errors
/// If the kernel refuses a question, or its memory makes no sense.
pub fn content(
    socket: BorrowedFd<'_>,
    sk: u64,
    kind: Over,
    memory: &Memory,
) -> Result<Content, Unknown<StateError>> {
    let sock = memory.inet_sock(sk, kind.0.is_datagram())?;
    content_in(socket, &sock, kind, state_of(socket, &sock)?, memory)
}

fn content_in(
    socket: BorrowedFd<'_>,
    sock: &InetSock,
    Over(protocol, family): Over,
    state: TcpState,
    memory: &Memory,
) -> Result<Content, Unknown<StateError>> {
    if protocol.is_datagram() {
        let (datagrams, held_back) = (memory.datagrams(sock.sk)?, memory.held_back(sock.sk)?);
        let datagrams = datagrams.into_iter();
        return Ok(Content {
            datagrams: datagrams
                .map(|raw| Datagram { data: raw.data, from: raw.from, to: raw.to })
                .collect(),
            held_back: held_back.map(|raw| HeldBack { data: raw.data, to: raw.to }),
            ..Content::default()
        });
    }
    match state {
        TcpState::Closed => Ok(Content::default()),
        TcpState::Listening => {
            let waiting = memory.tcp_waiting(sock.sk, family)?;
            Ok(Content { waiting, ..Content::default() })
        }
        _ => {
            let tcp::Found { tcp, lost } = tcp::read(socket, sock.sk, memory)?;
            Ok(Content { tcp: Some(Box::new(tcp)), lost, ..Content::default() })
        }
    }
}

fn state_of(socket: BorrowedFd<'_>, sock: &InetSock) -> Result<TcpState, StateError> {
    TcpState::from_raw(sock.state).ok_or_else(|| {
        let source = io::Error::other(format!("state {} is none of TCP's", sock.state));
        state::failed("sk_state", socket, source)
    })
}

/// A socket and what is in it, of one moment: if a connection moved meanwhile, both are read again.
fn at_once(
    socket: BorrowedFd<'_>,
    sk: u64,
    kind: Over,
    memory: &Memory,
) -> Result<(InetSock, TcpState, Content), Unknown<StateError>> {
    let mut looks = 0;
    loop {
        let sock = memory.inet_sock(sk, kind.0.is_datagram())?;
        let state = state_of(socket, &sock)?;
        let content = content_in(socket, &sock, kind, state, memory)?;
        looks += 1;
        let is_one = content.tcp.as_ref().is_none_or(|tcp| tcp.state == state);
        if is_one || looks == LOOKS {
            return Ok((sock, state, content));
        }
        memory.look_anew();
    }
}

/// Reads a socket's state; `listed` is one of its descriptors, by which it was found.
fn details(
    socket: BorrowedFd<'_>,
    listed: &SocketDescriptor,
    kind: Over,
    states: &mut InetStates<'_>,
) -> Result<InetDetails, Unknown<StateError>> {
    let (Over(protocol, family), sk, memory) = (kind, listed.socket.sk, states.memory());
    let (sock, state, content) = at_once(socket, sk, kind, memory)?;
    let Content { tcp, datagrams, held_back, waiting, lost: of_tcp } = content;
    let local = local(socket)?;
    let mut remote = remote(socket)?;
    if tcp.is_some() && remote.is_none() {
        remote = Some(asked_for(sk, family, local, memory)?);
    }
    let has_ended = state == TcpState::Closed && is_past(local, &sock);
    let was_connected = has_ended || !matches!(state, TcpState::Closed | TcpState::Listening);
    let is_heard = remote.is_some() || has_ended;
    let matters = |option: (i32, i32)| !(was_connected && is_moot(option, protocol, local));
    let (mut settings, mut options) = states.set(socket, sk, kind, is_heard, matters)?;
    settings.not_restorable.extend(lost(&sock));
    if sock.has_upper_layer {
        settings.not_restorable.push(NotRestorable::UpperLayer { name: upper_layer(socket) });
    }
    settings.not_restorable.extend(of_tcp);
    tell_segment(&mut options, &sock, state);
    if protocol.is_datagram() || !was_connected {
        tell_interface(&mut options, &sock);
    }
    let shares_its_port = settings.options.iter().any(|option| option.name == libc::SO_REUSEPORT);
    let groups = memory.memberships(sk, family, protocol.is_datagram())?;
    let inet = Inet {
        family,
        protocol,
        local: Some(local).filter(|local| !local.is_nothing() && !has_ended),
        remote,
        options,
        memberships: groups
            .into_iter()
            .map(|group| Membership {
                group: group.group,
                interface: group.interface,
                excludes: group.excludes,
                sources: group.sources,
            })
            .collect(),
        turn: sock.turn.filter(|_| shares_its_port || !sock.is_alone),
        datagrams,
        held_back,
        tcp,
        waiting: Vec::new(),
    };
    let listens = protocol == Protocol::Tcp && state == TcpState::Listening;
    Ok(InetDetails {
        inode: u32::try_from(listed.socket.inode & u64::from(u32::MAX)).unwrap_or_default(),
        cookie: listed.socket.cookie,
        status_flags: listed.file_flags.cast_signed() & STATUS_FLAGS,
        shutdown: Shutdown(sock.shutdown & Shutdown::BOTH.0),
        backlog: listens.then_some(sock.backlog),
        waiting,
        half_made: if listens { sock.half_made } else { 0 },
        options: settings.options,
        filter: settings.filter,
        notification: match listed.notifies {
            0 => None,
            _ => state::notification(socket)?,
        },
        state,
        inet,
        not_restorable: settings.not_restorable,
    })
}

/// Whether the address is that of a connection which has ended: the port is not the socket's any more, and somebody
/// else's by now, its listener's for one.
fn is_past(local: Endpoint, sock: &InetSock) -> bool {
    local.port != 0 && sock.port == 0
}

/// Whether the value of an option says nothing about what was set, since the socket is connected, or was.
fn is_moot(option: (i32, i32), protocol: Protocol, local: Endpoint) -> bool {
    match option {
        // Of a connection they say what was agreed upon, and not what was set.
        (
            libc::SOL_TCP,
            libc::TCP_FASTOPEN | libc::TCP_FASTOPEN_KEY | libc::TCP_MAXSEG | libc::TCP_WINDOW_CLAMP,
        ) => true,
        // What was accepted has these from the other end's request: by which interface, and with how long a life.
        (libc::SOL_IP, libc::IP_MULTICAST_IF | libc::IP_MULTICAST_TTL)
        | (libc::SOL_IPV6, libc::IPV6_MULTICAST_IF | libc::IPV6_MULTICAST_HOPS) => {
            protocol == Protocol::Tcp
        }
        // Nothing but IPv6 can come to an address of IPv6: `bind` sets it there, and whoever got his address by
        // `connect` or `accept` may not have it. It is of no use to him.
        (libc::SOL_IPV6, libc::IPV6_V6ONLY) => local.unmapped().family() == Family::V6,
        _ => false,
    }
}

/// `IP_MULTICAST_IF` tells of the address that was given, but not of the interface.
fn tell_interface(options: &mut Vec<InetOption>, sock: &InetSock) {
    const LEVEL: i32 = libc::SOL_IP;
    const NUMBER: i32 = libc::IP_MULTICAST_IF;
    if sock.multicast_interface == 0 {
        return;
    }
    let is_it = |option: &InetOption| (option.level, option.number) == (LEVEL, NUMBER);
    let address = match options.iter().position(is_it) {
        Some(at) => options.remove(at).value,
        None => vec![0; 4],
    };
    // `struct ip_mreqn`: the group, which does not matter here, our address, the interface.
    let value = [&[0; 4], address.as_slice(), &sock.multicast_interface.to_ne_bytes()].concat();
    options.push(InetOption { level: LEVEL, number: NUMBER, value });
    options.sort_by_key(|option| inet_options::rank(option.level, option.number));
}

/// `TCP_MAXSEG` of a connection as it was set.
fn tell_segment(options: &mut Vec<InetOption>, sock: &InetSock, state: TcpState) {
    if sock.user_mss == 0 || matches!(state, TcpState::Closed | TcpState::Listening) {
        return;
    }
    let value = i32::from(sock.user_mss).to_ne_bytes().to_vec();
    options.push(InetOption { level: libc::SOL_TCP, number: libc::TCP_MAXSEG, value });
    options.sort_by_key(|option| inet_options::rank(option.level, option.number));
}

/// What cannot be given to another socket.
fn lost(sock: &InetSock) -> Vec<NotRestorable> {
    let is_closed = TcpState::from_raw(sock.state) == Some(TcpState::Closed);
    let all = [
        (sock.error != 0, NotRestorable::PendingError),
        (sock.told > 0, NotRestorable::ErrorQueue { entries: sock.told }),
        (sock.is_chosen, NotRestorable::ReuseportProgram),
        (sock.is_signed, NotRestorable::Signed),
        (sock.is_cut, NotRestorable::Cut),
        (is_closed && sock.has_urgent, NotRestorable::Urgent),
        (is_closed && sock.queued > 0, NotRestorable::Leftover),
    ];
    all.into_iter().filter_map(|(is_there, what)| is_there.then_some(what)).collect()
}

/// What stands on top of TCP, by its name.
fn upper_layer(socket: BorrowedFd<'_>) -> String {
    let name = sockopt::get_at(socket, libc::SOL_TCP, libc::TCP_ULP, MAX_LEN).unwrap_or_default();
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    if name.is_empty() { "a protocol without a name".to_owned() } else { Escaped(name).to_string() }
}

/// `getsockname(2)`.
///
/// # Errors
/// If the kernel refuses the question.
pub fn local(socket: BorrowedFd<'_>) -> Result<Endpoint, StateError> {
    let name = rustix::net::getsockname(socket)
        .map_err(|errno| state::failed("getsockname", socket, errno.into()))?;
    endpoint(name).map_err(|source| state::failed("getsockname", socket, source))
}

/// `getpeername(2)`; `None` if it has no other end.
///
/// # Errors
/// If the kernel refuses the question.
pub fn remote(socket: BorrowedFd<'_>) -> Result<Option<Endpoint>, StateError> {
    match rustix::net::getpeername(socket) {
        Ok(Some(name)) => {
            endpoint(name).map(Some).map_err(|source| state::failed("getpeername", socket, source))
        }
        Ok(None) | Err(rustix::io::Errno::NOTCONN) => Ok(None),
        Err(errno) => Err(state::failed("getpeername", socket, errno.into())),
    }
}

/// Where a connection that does not stand yet is to lead, which `getpeername` does not tell.
fn asked_for(
    sk: u64,
    family: Family,
    local: Endpoint,
    memory: &Memory,
) -> Result<Endpoint, MemoryError> {
    let (_, remote) = memory.tcp_remote(sk, family)?;
    let is_of_link = matches!(remote.address, IpAddr::V6(six) if six.is_unicast_link_local());
    Ok(Endpoint { scope: if is_of_link { local.scope } else { 0 }, ..remote })
}

/// Both ends of a TCP socket that is connected, or about to be.
///
/// # Errors
/// If the kernel refuses a question, or its memory makes no sense.
pub fn ends(
    socket: BorrowedFd<'_>,
    sk: u64,
    family: Family,
    memory: &Memory,
) -> Result<Option<(Endpoint, Endpoint)>, Unknown<StateError>> {
    let (state, remote) = memory.tcp_remote(sk, family)?;
    if matches!(state, TcpState::Closed | TcpState::Listening) {
        return Ok(None);
    }
    Ok(Some((local(socket)?, remote)))
}

fn endpoint(address: rustix::net::SocketAddrAny) -> io::Result<Endpoint> {
    core::net::SocketAddr::try_from(address).map(Endpoint::from).map_err(io::Error::from)
}

/// Sets an option so that reading it gives its value again.
///
/// # Errors
/// The kernel's, and `InvalidInput` for an option that is not in the table.
pub fn set(socket: BorrowedFd<'_>, option: &InetOption) -> io::Result<()> {
    let known = inet_options::known(option.level, option.number);
    let known = known.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    sockopt::set_at(socket, known.level, known.number, &option.value)
}
