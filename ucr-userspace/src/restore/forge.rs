//! Datagrams made by hand: sent with a source address of somebody else, as only raw sockets can.

use core::net::IpAddr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};

use crate::model::inet::{Endpoint, Protocol};
use crate::model::option_table::SO_BINDTOIFINDEX;
use crate::sys::sockopt;

/// Sends datagrams with any source address to sockets of this host. Nothing ever leaves the host: an address is
/// sent to only if it is one of an interface.
#[derive(Debug)]
pub(super) struct Forger {
    /// `SO_MARK` of what it sends.
    mark: u32,
    four: Option<OwnedFd>,
    six: Option<OwnedFd>,
    /// Addresses of this host, once they are known.
    own: Option<Vec<(u32, IpAddr)>>,
}

/// A segment of TCP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    /// Who seems to send it.
    pub(super) from: Endpoint,
    /// To whom.
    pub(super) to: Endpoint,
    /// Its sequence number.
    pub(super) sequence: u32,
    /// Up to where all has arrived.
    pub(super) acknowledged: u32,
    /// Whether it is the last one.
    pub(super) fin: bool,
    /// How far from its number an urgent byte is, counted from 1; 0 if there is none.
    pub(super) urgent: u16,
    /// What is in it.
    pub(super) data: &'a [u8],
    /// The sender's window, as it is written.
    pub(super) window: u16,
    /// The interface that it seems to come by; 0: whichever.
    pub(super) interface: u32,
}

/// Length of the header of UDP.
const UDP_HEADER: usize = 8;

/// Length of the header of TCP without options, and its number.
const TCP_HEADER: usize = 20;
const TCP: u8 = 6;

impl Forger {
    /// Marks what it sends.
    pub(super) fn new(mark: u32) -> Self {
        Self { mark, four: None, six: None, own: None }
    }

    /// Whether it is an address of this network namespace, of that interface (0: whichever).
    ///
    /// # Errors
    /// The interfaces cannot be listed.
    pub(super) fn is_own(&mut self, address: IpAddr, interface: u32) -> io::Result<bool> {
        let own = match &mut self.own {
            Some(known) => known,
            unknown => unknown.insert(addresses()?),
        };
        // All of 127.0.0.0/8 belongs to who has one of it.
        let is_loopback = |found: &IpAddr| {
            address.is_loopback() && address.is_ipv4() && found.is_loopback() && found.is_ipv4()
        };
        let fits = |(of, found): &(u32, IpAddr)| {
            (interface == 0 || *of == interface) && (*found == address || is_loopback(found))
        };
        Ok(own.iter().any(fits))
    }

    /// Some address of a family, of that interface (0: whichever).
    ///
    /// # Errors
    /// The interfaces cannot be listed.
    pub(super) fn any_of(&mut self, is_ipv4: bool, interface: u32) -> io::Result<Option<IpAddr>> {
        let own = match &mut self.own {
            Some(known) => known,
            unknown => unknown.insert(addresses()?),
        };
        // Loopback first: what goes there has nothing to do with anybody else.
        own.sort_by_key(|(_, address)| !address.is_loopback());
        let fits = |(of, found): &&(u32, IpAddr)| {
            (interface == 0 || *of == interface) && found.is_ipv4() == is_ipv4
        };
        Ok(own.iter().find(fits).map(|(_, address)| *address))
    }

    /// Sends one datagram of UDP or UDP-Lite, as if it came in by an interface (0: whichever).
    ///
    /// # Errors
    /// The kernel's: without `CAP_NET_RAW`, or if the packet is longer than loopback takes; `AddrNotAvailable` if the
    /// target is not of this host.
    pub(super) fn send(
        &mut self,
        protocol: Protocol,
        interface: u32,
        from: Endpoint,
        to: Endpoint,
        data: &[u8],
    ) -> io::Result<()> {
        if !self.is_own(to.address, interface)? {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let protocol = u8::try_from(protocol.raw()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let length = u16::try_from(UDP_HEADER + data.len());
        let length = length.map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
        let mut segment = Vec::with_capacity(usize::from(length));
        segment.extend(from.port.to_be_bytes());
        segment.extend(to.port.to_be_bytes());
        // UDP-Lite says here how much the checksum covers: 0 is everything.
        let is_lite = i32::from(protocol) == libc::IPPROTO_UDPLITE;
        segment.extend(if is_lite { [0; 2] } else { length.to_be_bytes() });
        segment.extend([0; 2]);
        segment.extend_from_slice(data);
        let sum = match checksum(from.address, to.address, protocol, length, &segment) {
            // 0 would mean that there is none.
            0 => u16::MAX,
            sum => sum,
        };
        if let Some(place) = segment.get_mut(6..8) {
            place.copy_from_slice(&sum.to_be_bytes());
        }
        self.send_packet(protocol, interface, [from.address, to.address], &segment)
    }

    /// Sends one segment of TCP.
    ///
    /// # Errors
    /// As of [`send`](Self::send).
    pub(super) fn send_segment(&mut self, segment: &Segment<'_>) -> io::Result<()> {
        let Segment { from, to, sequence, acknowledged, fin, urgent, data, .. } = *segment;
        if !self.is_own(to.address, segment.interface)? {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        // FIN, ACK and URG, behind the length of the header in words.
        let (words, flags) = (5 << 4, u8::from(fin) | 0x10 | (u8::from(urgent > 0) << 5));
        let mut bytes = Vec::with_capacity(TCP_HEADER + data.len());
        bytes.extend(from.port.to_be_bytes());
        bytes.extend(to.port.to_be_bytes());
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(acknowledged.to_be_bytes());
        bytes.extend([words, flags]);
        bytes.extend(segment.window.to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(urgent.to_be_bytes());
        bytes.extend_from_slice(data);
        let length = u16::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let sum = checksum(from.address, to.address, TCP, length, &bytes);
        if let Some(place) = bytes.get_mut(16..18) {
            place.copy_from_slice(&sum.to_be_bytes());
        }
        self.send_packet(TCP, segment.interface, [from.address, to.address], &bytes)
    }

    fn send_packet(
        &mut self,
        protocol: u8,
        interface: u32,
        [from, to]: [IpAddr; 2],
        segment: &[u8],
    ) -> io::Result<()> {
        let length = u16::try_from(segment.len());
        let length = length.map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
        let (socket, header) = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let whole = u16::try_from(20 + segment.len());
                let whole = whole.map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
                // Version, length, and no service; number, flags; lifetime, protocol. The kernel fills in the
                // length, the number and the checksum.
                let mut header = vec![0x45, 0];
                header.extend(whole.to_be_bytes());
                header.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
                header.extend(from.octets());
                header.extend(to.octets());
                (opened(&mut self.four, AddressFamily::INET)?, header)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(length.to_be_bytes());
                header.extend([protocol, 64]);
                header.extend(from.octets());
                header.extend(to.octets());
                (opened(&mut self.six, AddressFamily::INET6)?, header)
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        sockopt::set(socket.as_fd(), libc::SO_MARK, &self.mark.to_ne_bytes())?;
        let device = interface.to_ne_bytes();
        sockopt::set(socket.as_fd(), SO_BINDTOIFINDEX, &device)?;
        // Of a raw socket the port means nothing.
        let target = core::net::SocketAddr::from(Endpoint::new(to, 0));
        let packet = [header.as_slice(), segment].concat();
        let sent = sendto(socket, &packet, SendFlags::empty(), &target)?;
        if sent == packet.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

/// Addresses of interfaces that are up, with the interface's index: of one that is down the kernel sends elsewhere.
fn addresses() -> io::Result<Vec<(u32, IpAddr)>> {
    let mut own = Vec::new();
    for interface in getifaddrs()? {
        if !interface.flags.contains(InterfaceFlags::IFF_UP) {
            continue;
        }
        let Some(found) = interface.address else { continue };
        let four = found.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let six = || found.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        if let Some(address) = four.or_else(six) {
            own.push((if_nametoindex(interface.interface_name.as_str())?, address));
        }
    }
    Ok(own)
}

fn opened(place: &mut Option<OwnedFd>, family: AddressFamily) -> io::Result<&OwnedFd> {
    match place {
        Some(open) => Ok(open),
        None => {
            let raw = Some(ipproto::RAW);
            let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, raw)?;
            if family == AddressFamily::INET6 {
                let on = 1_i32.to_ne_bytes();
                sockopt::set_at(socket.as_fd(), libc::SOL_IPV6, libc::IPV6_HDRINCL, &on)?;
            }
            Ok(place.insert(socket))
        }
    }
}

/// The internet checksum of a segment with its pseudo-header (RFC 768, RFC 8200).
fn checksum(from: IpAddr, to: IpAddr, protocol: u8, length: u16, segment: &[u8]) -> u16 {
    let mut sum = Sum(0);
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => sum.add(&address.octets()),
            IpAddr::V6(address) => sum.add(&address.octets()),
        }
    }
    sum.add(&[0, protocol]);
    sum.add(&length.to_be_bytes());
    sum.add(segment);
    sum.folded()
}

struct Sum(u64);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let (pairs, rest) = bytes.as_chunks::<2>();
        self.0 += pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum::<u64>();
        self.0 += rest.first().map_or(0, |last| u64::from(*last) << 8);
    }

    fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_sent_but_to_this_host_and_by_the_interface_that_has_the_address() {
        let mut forger = Forger::new(1);
        let lo = if_nametoindex("lo").expect("loopback");
        let own = IpAddr::from([127, 0, 0, 1]);
        let is_own = |forger: &mut Forger, address, interface| {
            forger.is_own(address, interface).expect("a list of interfaces")
        };
        assert!(is_own(&mut forger, own, 0) && is_own(&mut forger, own, lo));
        assert!(is_own(&mut forger, IpAddr::from([127, 9, 9, 9]), lo));
        assert!(!is_own(&mut forger, own, lo + 1), "another interface would send it elsewhere");
        let abroad = IpAddr::from([192, 0, 2, 1]);
        assert!(!is_own(&mut forger, abroad, 0));
        let (from, to) = (Endpoint::new(own, 1), Endpoint::new(abroad, 2));
        let refused = forger.send(Protocol::Udp, 0, from, to, b"x").expect_err("not ours");
        assert_eq!(refused.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn a_checksum_with_itself_in_place_is_nothing() {
        let (from, to) = ("10.0.0.1".parse().expect("it"), "10.0.0.2".parse().expect("it"));
        let mut segment = [&[0x12, 0x34, 0, 53, 0, 11, 0, 0], b"abc".as_slice()].concat();
        let sum = checksum(from, to, 17, 11, &segment);
        segment[6..8].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(from, to, 17, 11, &segment), 0);
    }
}
