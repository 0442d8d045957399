//! What waits in a UDP socket: to be received, and to be sent.

use core::net::IpAddr;

use super::inet::{TargetLayout, address};
use super::{Block, Memory, MemoryError};
use crate::model::inet::{Endpoint, Family};

/// Length of the header of UDP.
const HEADER: usize = 8;

/// A datagram as the kernel holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawDatagram {
    /// What is in it.
    pub data: Vec<u8>,
    /// Where it came from.
    pub from: Endpoint,
    /// Where it was sent to.
    pub to: Endpoint,
}

/// A datagram that is not finished: the socket is corked, or was told that more is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawHeldBack {
    /// What there is of it.
    pub data: Vec<u8>,
    /// Where it is to be sent.
    pub to: Endpoint,
}

impl Memory {
    /// What waits to be received by a UDP socket, in order.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
    pub fn datagrams(&self, sk: u64) -> Result<Vec<RawDatagram>, MemoryError> {
        let block = self.inet_block(sk, true)?;
        // What a reader has begun to take away comes first (`__skb_recv_udp`).
        let queues = [self.layout.inet.reader_queue, self.layout.queue];
        let mut found = Vec::new();
        for queue in queues {
            for skb in self.heads_of(sk, queue, &block)? {
                found.extend(self.datagrams_in(&skb)?);
            }
        }
        Ok(found)
    }

    /// What a UDP socket holds back (`UDP_CORK`, `MSG_MORE`).
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
    pub fn held_back(&self, sk: u64) -> Result<Option<RawHeldBack>, MemoryError> {
        let l = &self.layout.inet;
        let block = self.inet_block(sk, true)?;
        let pending = block.u32(l.pending)?.cast_signed();
        let Some(family) = Family::from_raw(pending) else { return Ok(None) };
        let target = match family {
            Family::V4 => Some(l.four),
            Family::V6 => l.six_target,
        };
        let target = target.ok_or(MemoryError::Senseless("IPv6 without IPv6"))?;
        let TargetLayout { address: at, port: port_at } = target;
        let to = Endpoint::new(address(&block, at, family)?, port(&block, port_at)?);
        let mut data = Vec::new();
        for (number, skb) in self.heads_of(sk, l.write_queue, &block)?.iter().enumerate() {
            // Before it there is room for the header of IP; the first one has that of UDP as well.
            let whole = self.data(skb)?;
            let start = skb.u64(self.layout.skb_head)? + u64::from(skb.u16(l.skb_transport)?);
            let before = start.checked_sub(skb.u64(self.layout.skb_data)?);
            let before = before.and_then(|before| usize::try_from(before).ok());
            let before = before.map(|before| before + if number == 0 { HEADER } else { 0 });
            let own = before.and_then(|before| whole.get(before..));
            let own = own.ok_or(MemoryError::Senseless("what UDP holds back is no datagram"))?;
            data.extend_from_slice(own);
        }
        let length = usize::from(block.u16(l.length)?);
        if length.checked_sub(HEADER) != Some(data.len()) {
            return Err(MemoryError::Senseless("what UDP holds back is not as long as it says"));
        }
        Ok(Some(RawHeldBack { data, to }))
    }

    /// One datagram, or several of one size that came as one (`UDP_GRO`).
    fn datagrams_in(&self, skb: &Block) -> Result<Vec<RawDatagram>, MemoryError> {
        let whole = self.datagram(skb)?;
        let size = usize::from(self.shared_of(skb)?.u16(self.layout.inet.segment)?);
        if size == 0 || whole.data.len() <= size {
            return Ok(vec![whole]);
        }
        let one = |data: &[u8]| RawDatagram { data: data.to_vec(), ..whole.clone() };
        Ok(whole.data.chunks(size).map(one).collect())
    }

    fn datagram(&self, skb: &Block) -> Result<RawDatagram, MemoryError> {
        let (l, own) = (&self.layout.inet, &self.layout);
        let head = skb.u64(own.skb_head)?;
        let (transport, network) = (skb.u16(l.skb_transport)?, skb.u16(l.skb_network)?);
        let ports = self.read("a header of UDP", head + u64::from(transport), 8)?;
        let (source, target) = (port(&ports, 0)?, port(&ports, 2)?);
        let version = self.read("a header of IP", head + u64::from(network), 1)?.u8(0)? >> 4;
        let (family, from, to, length) = match version {
            4 => (Family::V4, 12, 16, 20),
            6 => (Family::V6, 8, 24, 40),
            _ => return Err(MemoryError::Senseless("a datagram is of no version of IP")),
        };
        let header = self.read("a header of IP", head + u64::from(network), length)?;
        let (from, to) = (address(&header, from, family)?, address(&header, to, family)?);
        let scope = skb.u32(l.skb_interface)?;
        let end = |address: IpAddr, port| {
            let is_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            Endpoint { scope: if is_local { scope } else { 0 }, ..Endpoint::new(address, port) }
        };
        Ok(RawDatagram { data: self.data(skb)?, from: end(from, source), to: end(to, target) })
    }
}

/// In the order of the network.
fn port(block: &Block, at: usize) -> Result<u16, MemoryError> {
    block.u16(at).map(u16::from_be)
}
