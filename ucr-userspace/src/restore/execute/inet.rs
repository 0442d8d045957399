//! Steps with internet sockets.

use core::net::IpAddr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net;

use super::super::forge::Forger;
use super::super::plan::inet::InetStep;
use super::super::plan::step::{Holder, Step};
use super::{Restored, StepError, call};
use crate::image::{Datagram, Image, Inet, InetOption, Membership, SocketIndex};
use crate::model::inet::{Endpoint, Family};
use crate::model::option_table::SO_BINDTOIFINDEX;
use crate::process::inet;
use crate::sys::sockopt::SO_DETACH_REUSEPORT_BPF;
use crate::sys::{filter, sockopt};

/// How long a datagram is waited for: loopback hands it over at once, unless the machine is very busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// Length of a `struct sockaddr_storage`.
const STORAGE: usize = 128;

/// `SKF_AD_OFF + SKF_AD_MARK` (`linux/filter.h`): where a classic program finds a packet's mark.
const MARK: u32 = 0xffff_f014;

/// `SKF_AD_OFF + SKF_AD_PKTTYPE`: where it finds whom a packet was for; 0 (`PACKET_HOST`) is this host alone.
const PACKET_TYPE: u32 = 0xffff_f004;

/// Codes of classic programs: load a word, jump if equal, return a number.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

impl Restored {
    pub(super) fn inet(
        &mut self,
        image: &Image,
        index: SocketIndex,
        step: &InetStep,
        steps: &[Step],
    ) -> Result<(), StepError> {
        let is_beside = self.beside.has(index);
        let is_adopted = self.is_adopted(index);
        match step {
            InetStep::Create { family, protocol } => {
                let socket = match self.adopted.get(&Holder::Saved(index)) {
                    Some(made) => made.try_clone().map_err(call("duplicate a descriptor"))?,
                    None if is_beside => self.create_beside(index, steps)?,
                    None => inet::create(*family, *protocol).map_err(call("socket"))?,
                };
                self.keep(Holder::Saved(index), socket)
            }
            // All is done with it, but that it was deaf to what the old one has heard.
            _ if is_adopted && !matches!(step, InetStep::Hear) => Ok(()),
            // Into another process it goes in the place of something else.
            InetStep::StandAside if !is_beside => Ok(()),
            InetStep::StandAside => {
                let barrier = self.exchange.barrier();
                self.stand_aside(image, index, barrier.as_deref())
            }
            InetStep::SetOption(option) => {
                inet::set(self.saved(index)?, option).map_err(call("setsockopt"))
            }
            InetStep::Deafen => {
                let socket = self.saved(index)?;
                let attached = match is_beside && self.beside.go_on() {
                    true => filter::attach(socket, &ONLY_OURS),
                    false => filter::attach(socket, &only_marked(self.mark)),
                };
                attached.map_err(call("setsockopt SO_ATTACH_FILTER"))
            }
            // As long as the old one hears it.
            InetStep::Hear if is_beside && self.beside.go_on() => Ok(()),
            InetStep::Hear => {
                let nothing = 0_i32.to_ne_bytes();
                sockopt::set(self.saved(index)?, libc::SO_DETACH_FILTER, &nothing)
                    .map_err(call("setsockopt SO_DETACH_FILTER"))
            }
            InetStep::Bind(local) => {
                let saved = saved_inet(image, index)?;
                if is_beside {
                    return self.bind_beside(image, index, *local);
                }
                if saved.turn.is_some() && self.sharing.insert((saved.protocol, *local)) {
                    is_ours_alone(self.saved(index)?, saved, *local)?;
                }
                let address = core::net::SocketAddr::from(*local);
                net::bind(self.saved(index)?, &address).map_err(call("bind"))
            }
            InetStep::Listen { backlog } => {
                let backlog = i32::try_from(*backlog).unwrap_or(i32::MAX);
                if is_beside {
                    return self.listen_beside(index, saved_inet(image, index)?, backlog);
                }
                net::listen(self.saved(index)?, backlog).map_err(call("listen"))
            }
            InetStep::Join(membership) => join(self.saved(index)?, membership),
            InetStep::Connect(remote) => {
                let address = core::net::SocketAddr::from(*remote);
                net::connect(self.saved(index)?, &address).map_err(call("connect"))
            }
            InetStep::HoldBack(to) => {
                let held_back = saved_inet(image, index)?.held_back.as_ref();
                let data = held_back.map(|held_back| held_back.data.as_slice()).unwrap_or_default();
                let (address, flags) = (core::net::SocketAddr::from(*to), net::SendFlags::MORE);
                let flags = flags | net::SendFlags::DONTWAIT;
                let sent = net::sendto(self.saved(index)?, data, flags, &address);
                match sent.map_err(call("sendto"))? {
                    length if length == data.len() => Ok(()),
                    _ => Err(call("sendto")(io::Error::from(io::ErrorKind::WriteZero))),
                }
            }
            InetStep::Lock { local, remote } => self.shut(*local, *remote),
            InetStep::Repair => self.repair(index),
            InetStep::Resume(remote) => {
                let saved = saved_inet(image, index)?;
                let tcp = saved.tcp.as_deref().ok_or(StepError::Missing(Holder::Saved(index)))?;
                self.resume(index, saved, tcp, *remote)
            }
            InetStep::Call { listener, member, turn } => {
                self.call(image, index, *listener, *member, *turn)
            }
            InetStep::Deliver { member, .. } => {
                let saved = saved_inet(image, index)?;
                deliver(self.saved(index)?, saved, *member, &mut Forger::new(self.mark))
            }
        }
    }
}

pub(super) fn saved_inet(image: &Image, index: SocketIndex) -> Result<&Inet, StepError> {
    let saved = image.sockets.get(index.get()).and_then(|saved| saved.inet.as_deref());
    saved.ok_or(StepError::Missing(Holder::Saved(index)))
}

/// Whoever shares an address with processes outside would get what comes for them, and they what waited here.
fn is_ours_alone(socket: BorrowedFd<'_>, saved: &Inet, local: Endpoint) -> Result<(), StepError> {
    // One that does not share.
    let other = inet::create(saved.family, saved.protocol).map_err(call("socket"))?;
    let is_v6_only =
        |option: &&InetOption| (option.level, option.number) == (libc::SOL_IPV6, libc::IPV6_V6ONLY);
    if let Some(option) = saved.options.iter().find(is_v6_only) {
        inet::set(other.as_fd(), option).map_err(call("setsockopt IPV6_V6ONLY"))?;
    }
    let device = device(socket)?.to_ne_bytes();
    sockopt::set(other.as_fd(), SO_BINDTOIFINDEX, &device).map_err(call("setsockopt"))?;
    match net::bind(&other, &core::net::SocketAddr::from(local)) {
        Err(Errno::ADDRINUSE) => {
            Err(call("bind: processes outside share this address (SO_REUSEPORT)")(Errno::ADDRINUSE))
        }
        // An address that is not of this host is refused to a socket without the options for it.
        _ => Ok(()),
    }
}

/// Index of the interface that a socket is bound to (`SO_BINDTODEVICE`); 0 if it is bound to none.
pub(super) fn device(socket: BorrowedFd<'_>) -> Result<u32, StepError> {
    let device = sockopt::get(socket, SO_BINDTOIFINDEX).map_err(call("getsockopt"))?;
    Ok(sockopt::as_int(&device).unwrap_or_default().cast_unsigned())
}

/// Joins a group: of any source but some, or of some sources only.
fn join(socket: BorrowedFd<'_>, membership: &Membership) -> Result<(), StepError> {
    let Membership { group, interface, excludes, sources } = membership;
    let level = if group.is_ipv4() { libc::SOL_IP } else { libc::SOL_IPV6 };
    // `struct group_req` and `struct group_source_req`: addresses stand at multiples of 8.
    let head = [&interface.to_ne_bytes()[..], &[0; 4], &storage(*group)].concat();
    if *excludes {
        sockopt::set_at(socket, level, libc::MCAST_JOIN_GROUP, &head)
            .map_err(call("setsockopt MCAST_JOIN_GROUP"))?;
    }
    for source in sources {
        let request = [&head[..], &storage(*source)].concat();
        let (number, name) = if *excludes {
            (libc::MCAST_BLOCK_SOURCE, "setsockopt MCAST_BLOCK_SOURCE")
        } else {
            (libc::MCAST_JOIN_SOURCE_GROUP, "setsockopt MCAST_JOIN_SOURCE_GROUP")
        };
        sockopt::set_at(socket, level, number, &request).map_err(call(name))?;
    }
    Ok(())
}

/// An address as a `struct sockaddr_storage`.
fn storage(address: IpAddr) -> [u8; STORAGE] {
    let family = match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    };
    let family = u16::try_from(family.raw()).unwrap_or_default().to_ne_bytes();
    let bytes: Vec<u8> = match address {
        // The port is in between; of IPv6, the flow label as well.
        IpAddr::V4(address) => [&family[..], &[0; 2], &address.octets()].concat(),
        IpAddr::V6(address) => [&family[..], &[0; 6], &address.octets()].concat(),
    };
    let mut storage = [0; STORAGE];
    storage.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    storage
}

/// Puts datagrams into a socket's queue, with the addresses that they came from.
fn deliver(
    socket: BorrowedFd<'_>,
    saved: &Inet,
    member: Option<u32>,
    forger: &mut Forger,
) -> Result<(), StepError> {
    if let Some(member) = member {
        choose_member(socket, member)?;
    }
    let device = device(socket)?;
    let mut datagrams = saved.datagrams.iter();
    let put = datagrams.try_for_each(|datagram| put(socket, saved, datagram, device, forger));
    if member.is_some() {
        // Also if that failed: the group may be that of others by now.
        unchoose(socket)?;
    }
    put
}

fn put(
    socket: BorrowedFd<'_>,
    saved: &Inet,
    datagram: &Datagram,
    device: u32,
    forger: &mut Forger,
) -> Result<(), StepError> {
    let Datagram { data, from, to } = datagram;
    let to = within_reach(saved, to.unmapped(), device, forger).map_err(call("getifaddrs"))?;
    let before = memory(socket)?;
    forger
        .send(saved.protocol, device, from.unmapped(), to, data)
        .map_err(call("sendto of a raw socket"))?;
    let since = Instant::now();
    loop {
        let now = memory(socket)?;
        if now > before {
            return Ok(());
        }
        if since.elapsed() > PATIENCE {
            let late = io::Error::from(io::ErrorKind::TimedOut);
            return Err(call("wait for a datagram that was sent over loopback")(late));
        }
        std::thread::yield_now();
    }
}

/// Where to send a datagram so that it comes to this socket: where it was sent to before, if that is an address of
/// this host. What was sent to many (multicast, broadcast) is sent to this socket alone.
fn within_reach(
    saved: &Inet,
    to: Endpoint,
    device: u32,
    forger: &mut Forger,
) -> io::Result<Endpoint> {
    let own = saved.local.map(|local| Endpoint { port: to.port, ..local.unmapped() });
    for wanted in [Some(to), own].into_iter().flatten() {
        if !wanted.address.is_multicast() && forger.is_own(wanted.address, device)? {
            return Ok(wanted);
        }
    }
    let some = forger.any_of(to.address.is_ipv4(), device)?;
    let some = some.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
    Ok(Endpoint::new(some, to.port))
}

/// Lets whatever comes to a group of sockets that share a port come to one of them.
pub(super) fn choose_member(socket: BorrowedFd<'_>, member: u32) -> Result<(), StepError> {
    let program = [(RETURN, 0, 0, member)];
    filter::attach_at(socket.as_fd(), libc::SO_ATTACH_REUSEPORT_CBPF, &program)
        .map_err(call("setsockopt SO_ATTACH_REUSEPORT_CBPF"))
}

/// Lets the kernel choose again.
pub(super) fn unchoose(socket: BorrowedFd<'_>) -> Result<(), StepError> {
    sockopt::set(socket, SO_DETACH_REUSEPORT_BPF, &0_i32.to_ne_bytes())
        .map_err(call("setsockopt SO_DETACH_REUSEPORT_BPF"))
}

/// A program that lets packets with this mark in, and no others.
fn only_marked(mark: u32) -> [filter::Instruction; 4] {
    [(LOAD, 0, 0, MARK), (JUMP_IF_EQUAL, 0, 1, mark), (RETURN, 0, 0, u32::MAX), (RETURN, 0, 0, 0)]
}

/// A program that lets in what is for this host alone: what is for all comes to every socket of a port.
const ONLY_OURS: [filter::Instruction; 4] = [
    (LOAD, 0, 0, PACKET_TYPE),
    (JUMP_IF_EQUAL, 0, 1, 0),
    (RETURN, 0, 0, u32::MAX),
    (RETURN, 0, 0, 0),
];

/// Memory that what waits to be received takes: the first number of what `SO_MEMINFO` tells.
fn memory(socket: BorrowedFd<'_>) -> Result<u32, StepError> {
    let told = sockopt::get(socket, libc::SO_MEMINFO).map_err(call("getsockopt SO_MEMINFO"))?;
    Ok(sockopt::as_int(&told).unwrap_or_default().cast_unsigned())
}
