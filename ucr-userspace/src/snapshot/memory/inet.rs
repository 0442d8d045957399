//! What the kernel holds for an internet socket and no system call tells.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::likeness::InetCompared;
use super::{Block, Memory, MemoryError, long};
use crate::kernel::btf::{Btf, BtfError};
use crate::model::inet::Family;

/// More groups than this are a list that goes in circles (`net.ipv4.igmp_max_memberships` is 20 by default).
const MOST_GROUPS: usize = 65_536;

/// More sources than this in one group are none (`net.ipv4.igmp_max_msf` is 10 by default).
const MOST_SOURCES: u32 = 65_536;

/// `MCAST_EXCLUDE`.
const EXCLUDE: u32 = 0;

/// What the kernel holds for one internet socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InetSock {
    /// Where it is.
    pub sk: u64,
    /// `sk_state`.
    pub state: u8,
    /// `sk_err`.
    pub error: i32,
    /// `sk_shutdown`.
    pub shutdown: u8,
    /// `sk_max_ack_backlog`.
    pub backlog: u32,
    /// What lies in its error queue: errors, time stamps, completions of zero-copy sends.
    pub told: u32,
    /// Of `IP_MULTICAST_IF`: the interface, which `getsockopt` does not tell.
    pub multicast_interface: u32,
    /// Its place among those that share its port (`SO_REUSEPORT`).
    pub turn: Option<u32>,
    /// Whether it is the only one by now.
    pub is_alone: bool,
    /// Whether a program decides which of these gets what comes.
    pub is_chosen: bool,
    /// Whether an upper-layer protocol, as TLS, has taken it over.
    pub has_upper_layer: bool,
    /// Whether segments are signed (`TCP_MD5SIG`, `TCP_AO_ADD_KEY`).
    pub is_signed: bool,
    /// `rcv_urg`, `urg_data`: a byte of urgent data waits, or its mark does.
    pub has_urgent: bool,
    /// Of a listener: how many connections are being made, of which its program does not know yet.
    pub half_made: u32,
    /// TCP: how many packets lie in its receive queue.
    pub queued: u32,
    /// `TCP_MAXSEG` as it was set; 0 if it was not.
    pub user_mss: u16,
    /// `inet_num`: the port that is its own. `getsockname` still tells of that of a connection that has ended.
    pub port: u16,
    /// Whether a datagram that it holds back is to go out in pieces (`UDP_SEGMENT`).
    pub is_cut: bool,
}

/// A multicast group of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawMembership {
    /// Its address.
    pub group: IpAddr,
    /// The interface.
    pub interface: u32,
    /// Whether sources are those that are not wanted.
    pub excludes: bool,
    /// Sources.
    pub sources: Vec<IpAddr>,
}

/// Offsets and sizes, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InetLayout {
    /// Sizes of a `struct sock`, and of the `struct udp_sock` or `struct tcp_sock` that it is the beginning of.
    pub(super) head: usize,
    udp: usize,
    tcp: usize,
    errors: usize,
    reuse: usize,
    reuse_count: usize,
    reuse_program: usize,
    reuse_socks: usize,
    /// `udp_sock`.
    pub(super) pending: usize,
    pub(super) length: usize,
    pub(super) reader_queue: usize,
    /// What UDP holds back, in a `struct sock`.
    pub(super) write_queue: usize,
    /// Where it is to be sent, in an `inet_sock`.
    pub(super) four: TargetLayout,
    pub(super) six_target: Option<TargetLayout>,
    /// `inet_sock`.
    mc_index: usize,
    mc_list: usize,
    /// Not on kernels without IPv6.
    pub(super) six: Option<SixLayout>,
    groups: Groups,
    /// `inet_connection_sock`.
    upper_layer: usize,
    half_made: usize,
    /// `tcp_sock`.
    urgent: usize,
    user_mss: usize,
    port: usize,
    /// Size of the pieces of what UDP holds back, in an `inet_sock`.
    cut: usize,
    /// Not on kernels without.
    signature: Option<usize>,
    authentication: Option<usize>,
    /// Size of the datagrams that a message is made of, in its `skb_shared_info`.
    pub(super) segment: usize,
    pub(super) skb_transport: usize,
    pub(super) skb_network: usize,
    pub(super) skb_interface: usize,
    /// `skc_net`.
    pub(super) net: usize,
    pub(super) compared: InetCompared,
}

/// Where an address and a port are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetLayout {
    pub(super) address: usize,
    pub(super) port: usize,
}

/// What IPv6 adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SixLayout {
    pub(super) pinet6: usize,
    /// Size of a `struct ipv6_pinfo`.
    pub(super) whole: usize,
    mc_list: usize,
    groups: Groups,
}

/// Where things are in a list of multicast groups: each version of IP has its own kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Groups {
    whole: usize,
    next: usize,
    group: usize,
    interface: usize,
    mode: usize,
    sources: usize,
    count: usize,
    list: usize,
}

impl Family {
    /// Bytes of an address.
    fn width(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }
}

impl InetLayout {
    pub(super) fn resolve(btf: &Btf) -> Result<Self, BtfError> {
        let narrow = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let at = |container: &str, path: &str| btf.offset(container, path).map(narrow);
        let size = |container: &str| btf.size_of(container).map(narrow);
        let groups = |list: &str, sources: &str, [next, group, interface]: [&str; 3]| {
            Ok::<_, BtfError>(Groups {
                whole: size(list)?,
                next: at(list, next)?,
                group: at(list, group)?,
                interface: at(list, interface)?,
                mode: at(list, "sfmode")?,
                sources: at(list, "sflist")?,
                count: at(sources, "sl_count")?,
                list: at(sources, "sl_addr")?,
            })
        };
        let six = || -> Result<SixLayout, BtfError> {
            Ok(SixLayout {
                pinet6: at("inet_sock", "pinet6")?,
                whole: size("ipv6_pinfo")?,
                mc_list: at("ipv6_pinfo", "ipv6_mc_list")?,
                groups: groups("ipv6_mc_socklist", "ip6_sf_socklist", ["next", "addr", "ifindex"])?,
            })
        };
        let target = |version: &str| -> Result<TargetLayout, BtfError> {
            let member = |name: &str| at("inet_sock", &format!("cork.fl.u.{version}.{name}"));
            Ok(TargetLayout { address: member("daddr")?, port: member("uli.ports.dport")? })
        };
        Ok(Self {
            head: size("sock")?,
            udp: size("udp_sock")?,
            tcp: size("tcp_sock")?,
            errors: at("sock", "sk_error_queue.qlen")?,
            reuse: at("sock", "sk_reuseport_cb")?,
            reuse_count: at("sock_reuseport", "num_socks")?,
            reuse_program: at("sock_reuseport", "prog")?,
            reuse_socks: at("sock_reuseport", "socks")?,
            pending: at("udp_sock", "pending")?,
            length: at("udp_sock", "len")?,
            write_queue: at("sock", "sk_write_queue")?,
            four: target("ip4")?,
            six_target: target("ip6").ok(),
            reader_queue: at("udp_sock", "reader_queue")?,
            mc_index: at("inet_sock", "mc_index")?,
            mc_list: at("inet_sock", "mc_list")?,
            six: six().ok(),
            groups: groups(
                "ip_mc_socklist",
                "ip_sf_socklist",
                ["next_rcu", "multi.imr_multiaddr", "multi.imr_ifindex"],
            )?,
            upper_layer: at("inet_connection_sock", "icsk_ulp_ops")?,
            half_made: at("inet_connection_sock", "icsk_accept_queue.qlen")?,
            urgent: at("tcp_sock", "urg_data")?,
            user_mss: at("tcp_sock", "rx_opt.user_mss")?,
            port: at("sock", "__sk_common.skc_num")?,
            cut: at("inet_sock", "cork.base.gso_size")?,
            signature: at("tcp_sock", "md5sig_info").ok(),
            authentication: at("tcp_sock", "ao_info").ok(),
            segment: at("skb_shared_info", "gso_size")?,
            skb_transport: at("sk_buff", "transport_header")?,
            skb_network: at("sk_buff", "network_header")?,
            skb_interface: at("sk_buff", "skb_iif")?,
            net: at("sock", "__sk_common.skc_net")?,
            compared: InetCompared::resolve(btf)?,
        })
    }
}

impl Memory {
    /// What the kernel holds for the UDP or TCP socket at this address. It must not be freed meanwhile.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
    pub fn inet_sock(&self, sk: u64, is_datagram: bool) -> Result<InetSock, MemoryError> {
        let (l, own) = (&self.layout.inet, &self.layout);
        let block = self.inet_block(sk, is_datagram)?;
        let is_there = |at: Option<usize>| at.map_or(Ok(0), |at| block.u64(at)).map(|at| at != 0);
        // Others join and leave a group, and it is another one then: nothing that was read ahead counts.
        let group = match block.u64(l.reuse)? {
            0 => 0,
            _ => self.reader.read_now("a socket's group", sk + long(l.reuse), 8)?.u64(0)?,
        };
        let (turn, is_alone, is_chosen) = self.turn(sk, group)?;
        Ok(InetSock {
            sk,
            state: block.u8(own.sock_state)?,
            error: block.u32(own.sock_error)?.cast_signed(),
            shutdown: block.u8(own.sock_shutdown)?,
            backlog: block.u32(own.sock_backlog)?,
            told: block.u32(l.errors)?,
            multicast_interface: block.u32(l.mc_index)?,
            turn,
            is_alone,
            is_chosen,
            is_signed: !is_datagram && (is_there(l.signature)? || is_there(l.authentication)?),
            has_upper_layer: !is_datagram && block.u64(l.upper_layer)? != 0,
            has_urgent: !is_datagram && block.u16(l.urgent)? != 0,
            half_made: if is_datagram { 0 } else { block.u32(l.half_made)? },
            queued: if is_datagram { 0 } else { block.u32(own.queue_length)? },
            user_mss: if is_datagram { 0 } else { block.u16(l.user_mss)? },
            port: block.u16(l.port)?,
            is_cut: is_datagram && block.u32(l.pending)? != 0 && block.u16(l.cut)? != 0,
        })
    }

    /// The multicast groups of a socket, in the order in which they were joined.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
    pub fn memberships(
        &self,
        sk: u64,
        family: Family,
        is_datagram: bool,
    ) -> Result<Vec<RawMembership>, MemoryError> {
        let l = &self.layout.inet;
        let block = self.inet_block(sk, is_datagram)?;
        let mut found = self.groups_in(block.u64(l.mc_list)?, &l.groups, Family::V4)?;
        if let (Family::V6, Some(six)) = (family, &l.six) {
            let first = self.six_block(&block)?.u64(six.mc_list)?;
            found.extend(self.groups_in(first, &six.groups, Family::V6)?);
        }
        Ok(found)
    }

    /// What IPv6 has of a socket.
    pub(super) fn six_block(&self, block: &Block) -> Result<Block, MemoryError> {
        let six = self.layout.inet.six.as_ref();
        let six = six.ok_or(MemoryError::Senseless("IPv6 without IPv6"))?;
        self.read("a socket of IPv6", block.u64(six.pinet6)?, six.whole)
    }

    /// Size of an internet socket.
    pub(super) fn inet_size(&self, is_datagram: bool) -> usize {
        let own = &self.layout.inet;
        if is_datagram { own.udp } else { own.tcp }
    }

    pub(super) fn inet_block(&self, sk: u64, is_datagram: bool) -> Result<Block, MemoryError> {
        self.inet_block_of(sk, self.inet_size(is_datagram), is_datagram)
    }

    /// What all sockets have.
    pub(super) fn inet_head(&self, sk: u64, is_datagram: bool) -> Result<Block, MemoryError> {
        self.inet_block_of(sk, self.layout.inet.head, is_datagram)
    }

    fn inet_block_of(&self, sk: u64, size: usize, is_datagram: bool) -> Result<Block, MemoryError> {
        let own = &self.layout;
        let block = self.read("an internet socket", sk, size)?;
        let (family, kind) =
            (i32::from(block.u16(own.sock_family)?), i32::from(block.u16(own.sock_type)?));
        let wanted = if is_datagram { libc::SOCK_DGRAM } else { libc::SOCK_STREAM };
        if Family::from_raw(family).is_none() || kind != wanted {
            return Err(MemoryError::Senseless("an internet socket is of another family or type"));
        }
        Ok(block)
    }

    fn turn(&self, sk: u64, group: u64) -> Result<(Option<u32>, bool, bool), MemoryError> {
        if group == 0 {
            return Ok((None, true, false));
        }
        let l = &self.layout.inet;
        let head = self.read("a group of sockets with one port", group, l.reuse_socks)?;
        let count = usize::from(head.u16(l.reuse_count)?);
        let mut place = None;
        for number in 0..count {
            let at = group + long(l.reuse_socks + number * 8);
            if self.read("a socket of a group", at, 8)?.u64(0)? == sk {
                place = u32::try_from(number).ok();
                break;
            }
        }
        Ok((place, count == 1, head.u64(l.reuse_program)? != 0))
    }

    fn groups_in(
        &self,
        first: u64,
        of: &Groups,
        family: Family,
    ) -> Result<Vec<RawMembership>, MemoryError> {
        let (mut next, mut found) = (first, Vec::new());
        while next != 0 {
            if found.len() == MOST_GROUPS {
                return Err(MemoryError::Senseless("a list of multicast groups has no end"));
            }
            let block = self.read("a multicast group", next, of.whole)?;
            next = block.u64(of.next)?;
            let sources = self.sources_in(block.u64(of.sources)?, of, family)?;
            found.push(RawMembership {
                group: address(&block, of.group, family)?,
                interface: block.u32(of.interface)?,
                excludes: block.u32(of.mode)? == EXCLUDE,
                sources,
            });
        }
        // The kernel puts new ones in front.
        found.reverse();
        Ok(found)
    }

    fn sources_in(
        &self,
        list: u64,
        of: &Groups,
        family: Family,
    ) -> Result<Vec<IpAddr>, MemoryError> {
        if list == 0 {
            return Ok(Vec::new());
        }
        let count = self.read("a number of sources", list + long(of.count), 4)?.u32(0)?;
        if count > MOST_SOURCES {
            return Err(MemoryError::Senseless("a multicast group has more sources than any"));
        }
        let width = family.width();
        let one = |number: u32| {
            let at = long(of.list) + u64::from(number) * long(width);
            address(&self.read("a source", list + at, width)?, 0, family)
        };
        (0..count).map(one).collect()
    }
}

pub(super) fn address(block: &Block, at: usize, family: Family) -> Result<IpAddr, MemoryError> {
    let short = MemoryError::Senseless("an address is cut off");
    let bytes = block.bytes().get(at..).ok_or(MemoryError::Senseless("an address is cut off"))?;
    Ok(match family {
        Family::V4 => {
            let octets: [u8; 4] = *bytes.first_chunk().ok_or(short)?;
            IpAddr::V4(Ipv4Addr::from(octets))
        }
        Family::V6 => {
            let octets: [u8; 16] = *bytes.first_chunk().ok_or(short)?;
            IpAddr::V6(Ipv6Addr::from(octets))
        }
    })
}
