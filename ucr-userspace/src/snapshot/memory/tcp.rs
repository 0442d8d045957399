//! A TCP connection as the kernel holds it: numbers, queues, windows. Nothing is asked of the socket, which would have
//! to be put into repair mode for it, and would stay so if ucr were killed.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::queue::MOST;
use super::{Block, Memory, MemoryError, long};
use crate::kernel::btf::{Btf, BtfError};
use crate::model::inet::{Endpoint, Family, TcpState};

/// One TCP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTcp {
    /// `sk_state`.
    pub state: TcpState,
    /// What came and was not read.
    pub received: Vec<u8>,
    /// The sequence number behind it.
    pub received_end: u32,
    /// What was written and not acknowledged.
    pub sent: Vec<u8>,
    /// The sequence number behind it.
    pub sent_end: u32,
    /// How many numbers at the end of what was written were never sent, also that of a FIN.
    pub unsent: u32,
    /// `rx_opt.mss_clamp`.
    pub mss: u16,
    /// `snd_wl1`.
    pub send_update: u32,
    /// `snd_wnd`.
    pub send_window: u32,
    /// `max_window`.
    pub most_window: u32,
    /// `rcv_wnd`.
    pub receive_window: u32,
    /// `rcv_wup`.
    pub receive_update: u32,
    /// `urg_data` and `urg_seq`.
    pub urgent: (u16, u32),
    /// `snd_up`, if that is not acknowledged.
    pub sent_urgent: Option<u32>,
    /// `sk_sndbuf` and `sk_rcvbuf`.
    pub buffers: (u32, u32),
    /// Whether the SYN of the other end is kept (`TCP_SAVED_SYN`).
    pub has_syn: bool,
}

/// Offsets, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TcpLayout {
    remote_port: usize,
    remote_four: usize,
    /// Not on kernels without IPv6.
    remote_six: Option<usize>,
    write_queue: usize,
    retransmit_queue: usize,
    send_buffer: usize,
    receive_buffer: usize,
    node: usize,
    node_left: usize,
    node_right: usize,
    sequence: usize,
    /// `tcp_sock`.
    received: usize,
    read: usize,
    written: usize,
    sent: usize,
    acknowledged: usize,
    send_update: usize,
    send_window: usize,
    most_window: usize,
    receive_window: usize,
    receive_update: usize,
    mss: usize,
    urgent: usize,
    urgent_sequence: usize,
    sent_urgent: usize,
    saved_syn: Option<usize>,
    local_port: usize,
    local_four: usize,
    local_six: Option<usize>,
    /// The first connection that waits at a listener; what it is asked for by, and its socket.
    first_waiting: usize,
    request: usize,
    next_waiting: usize,
    waiting_sock: usize,
}

/// A connection that waits to be accepted: it has a `struct sock`, and no file yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawWaiting {
    /// Where it is.
    pub sk: u64,
    /// The listener's end.
    pub local: Endpoint,
    /// Who has connected.
    pub remote: Endpoint,
}

/// Bytes with the sequence number of the first.
struct Segment {
    sequence: u32,
    data: Vec<u8>,
}

impl TcpLayout {
    pub(super) fn resolve(btf: &Btf) -> Result<Self, BtfError> {
        let narrow = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let at = |container: &str, path: &str| btf.offset(container, path).map(narrow);
        let tcp = |member| at("tcp_sock", member);
        Ok(Self {
            remote_port: at("sock", "__sk_common.skc_dport")?,
            remote_four: at("sock", "__sk_common.skc_daddr")?,
            remote_six: at("sock", "__sk_common.skc_v6_daddr").ok(),
            write_queue: at("sock", "sk_write_queue")?,
            retransmit_queue: at("sock", "tcp_rtx_queue.rb_node")?,
            send_buffer: at("sock", "sk_sndbuf")?,
            receive_buffer: at("sock", "sk_rcvbuf")?,
            node: at("sk_buff", "rbnode")?,
            node_left: at("rb_node", "rb_left")?,
            node_right: at("rb_node", "rb_right")?,
            sequence: at("tcp_skb_cb", "seq")?,
            received: tcp("rcv_nxt")?,
            read: tcp("copied_seq")?,
            written: tcp("write_seq")?,
            sent: tcp("snd_nxt")?,
            acknowledged: tcp("snd_una")?,
            send_update: tcp("snd_wl1")?,
            send_window: tcp("snd_wnd")?,
            most_window: tcp("max_window")?,
            receive_window: tcp("rcv_wnd")?,
            receive_update: tcp("rcv_wup")?,
            mss: tcp("rx_opt.mss_clamp")?,
            urgent: tcp("urg_data")?,
            urgent_sequence: tcp("urg_seq")?,
            sent_urgent: tcp("snd_up")?,
            saved_syn: tcp("saved_syn").ok(),
            local_port: at("sock", "__sk_common.skc_num")?,
            local_four: at("sock", "__sk_common.skc_rcv_saddr")?,
            local_six: at("sock", "__sk_common.skc_v6_rcv_saddr").ok(),
            first_waiting: at("inet_connection_sock", "icsk_accept_queue.rskq_accept_head")?,
            request: btf.size_of("request_sock").map(narrow)?,
            next_waiting: at("request_sock", "dl_next")?,
            waiting_sock: at("request_sock", "sk")?,
        })
    }
}

impl Memory {
    /// In which state a TCP socket is, and where it is connected to, which before the connection stands no system
    /// call tells.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
    pub fn tcp_remote(&self, sk: u64, family: Family) -> Result<(TcpState, Endpoint), MemoryError> {
        let block = self.inet_head(sk, false)?;
        Ok((self.tcp_state(&block)?, self.remote(&block, family)?))
    }

    /// The connections that wait to be accepted at a listener, in the order in which they will be. Nobody may accept
    /// any meanwhile; what is added stands behind.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
    pub fn tcp_waiting(&self, sk: u64, family: Family) -> Result<Vec<RawWaiting>, MemoryError> {
        let l = &self.layout.tcp;
        let mut next = self.inet_block(sk, false)?.u64(l.first_waiting)?;
        let mut found = Vec::new();
        while next != 0 {
            if found.len() == MOST {
                return Err(MemoryError::Senseless("a list of waiting connections has no end"));
            }
            let request = self.read("a connection that waits", next, l.request)?;
            next = request.u64(l.next_waiting)?;
            let sk = request.u64(l.waiting_sock)?;
            let block = self.inet_head(sk, false)?;
            let (own, remote) = (self.local(&block, family)?, self.remote(&block, family)?);
            found.push(RawWaiting { sk, local: own, remote });
        }
        Ok(found)
    }

    fn local(&self, block: &Block, family: Family) -> Result<Endpoint, MemoryError> {
        let l = &self.layout.tcp;
        let address = Self::address_of(block, family, (l.local_four, l.local_six))?;
        Ok(Endpoint::new(address, block.u16(l.local_port)?))
    }

    fn remote(&self, block: &Block, family: Family) -> Result<Endpoint, MemoryError> {
        let l = &self.layout.tcp;
        let address = Self::address_of(block, family, (l.remote_four, l.remote_six))?;
        Ok(Endpoint::new(address, u16::from_be(block.u16(l.remote_port)?)))
    }

    fn address_of(
        block: &Block,
        family: Family,
        (four, six): (usize, Option<usize>),
    ) -> Result<IpAddr, MemoryError> {
        let place = if family == Family::V6 { six.unwrap_or(four) } else { four };
        super::inet::address(block, place, family)
    }

    /// A TCP connection. Nothing may be sent or received meanwhile: what moves all the same makes no sense.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
    pub fn tcp(&self, sk: u64) -> Result<RawTcp, MemoryError> {
        let l = &self.layout.tcp;
        let block = self.inet_block(sk, false)?;
        let state = self.tcp_state(&block)?;
        let (has_received, has_sent) = (state.has_received_fin(), state.has_sent_fin());
        let word = |at: usize| block.u32(at);
        let received_end = word(l.received)?.wrapping_sub(u32::from(has_received));
        // Whoever has read the end has read the FIN.
        let read = word(l.read)?;
        let read = if has_received && read == word(l.received)? { received_end } else { read };
        let written = word(l.written)?;
        let sent_end = written.wrapping_sub(u32::from(has_sent));
        // A SYN takes a number, too.
        let has_syn = u32::from(state == TcpState::SynSent);
        let oldest = word(l.acknowledged)?.wrapping_add(has_syn);
        let received = self.segments(self.heads_of(sk, self.layout.queue, &block)?)?;
        let mut sent = self.segments(self.tree(self.unacknowledged(&block)?)?)?;
        sent.extend(self.segments(self.heads_of(sk, l.write_queue, &block)?)?);
        let is_there = |at: Option<usize>| at.map_or(Ok(0), |at| block.u64(at)).map(|at| at != 0);
        // In FIN_WAIT2 even the FIN is acknowledged.
        let oldest = if state == TcpState::FinWait2 { sent_end } else { oldest };
        Ok(RawTcp {
            state,
            received: joined(received, read, received_end)?,
            received_end,
            sent: joined(sent, oldest, sent_end)?,
            sent_end,
            unsent: written.wrapping_sub(word(l.sent)?),
            mss: block.u16(l.mss)?,
            send_update: word(l.send_update)?,
            send_window: word(l.send_window)?,
            most_window: word(l.most_window)?,
            receive_window: word(l.receive_window)?,
            receive_update: word(l.receive_update)?,
            urgent: (block.u16(l.urgent)?, word(l.urgent_sequence)?),
            sent_urgent: Some(word(l.sent_urgent)?).filter(|behind| {
                // Without one it is where the first byte is that is not acknowledged.
                let (ahead, all) = (behind.wrapping_sub(oldest), sent_end.wrapping_sub(oldest));
                (1..=all).contains(&ahead)
            }),
            buffers: (word(l.send_buffer)?, word(l.receive_buffer)?),
            has_syn: is_there(l.saved_syn)?,
        })
    }

    fn tcp_state(&self, block: &Block) -> Result<TcpState, MemoryError> {
        TcpState::from_raw(block.u8(self.layout.sock_state)?)
            .ok_or(MemoryError::Senseless("a TCP socket is in a state that is not known"))
    }

    fn segments(&self, heads: Vec<Block>) -> Result<Vec<Segment>, MemoryError> {
        let own = &self.layout;
        let one = |skb: Block| {
            let sequence = skb.u32(own.skb_cb + own.tcp.sequence)?;
            Ok(Segment { sequence, data: self.data(&skb)? })
        };
        heads.into_iter().map(one).collect()
    }

    /// What hangs in a tree of packets, in its order.
    fn tree(&self, root: u64) -> Result<Vec<Block>, MemoryError> {
        let [left, right] = self.branches();
        let (mut above, mut next, mut found) = (Vec::new(), root, Vec::new());
        loop {
            while next != 0 {
                if found.len() + above.len() == MOST {
                    return Err(MemoryError::Senseless("a tree of packets has no end"));
                }
                let skb = self.read("a packet", self.packet_at(next), self.layout.skb)?;
                next = skb.u64(left)?;
                above.push(skb);
            }
            let Some(skb) = above.pop() else { return Ok(found) };
            next = skb.u64(right)?;
            found.push(skb);
        }
    }

    /// The packet that hangs in a tree by this node.
    pub(super) fn packet_at(&self, node: u64) -> u64 {
        node.wrapping_sub(long(self.layout.tcp.node))
    }

    /// Where the nodes are, in a packet, that are left and right below it.
    pub(super) fn branches(&self) -> [usize; 2] {
        let l = &self.layout.tcp;
        [l.node + l.node_left, l.node + l.node_right]
    }

    /// The root of the tree of what was sent and is not acknowledged.
    pub(super) fn unacknowledged(&self, block: &Block) -> Result<u64, MemoryError> {
        block.u64(self.layout.tcp.retransmit_queue)
    }
}

/// All bytes from one sequence number to another. What was read or acknowledged before may lie there still.
fn joined(segments: Vec<Segment>, first: u32, end: u32) -> Result<Vec<u8>, MemoryError> {
    let mut data = Vec::new();
    let mut next = first;
    for segment in segments {
        let known = next.wrapping_sub(segment.sequence);
        if known.cast_signed() < 0 {
            return Err(MemoryError::Senseless("a part of what was sent or received is missing"));
        }
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        let new = segment.data.get(known..).unwrap_or_default();
        data.extend_from_slice(new);
        next = next.wrapping_add(u32::try_from(new.len()).unwrap_or(u32::MAX));
    }
    if next == end {
        Ok(data)
    } else {
        Err(MemoryError::Senseless("more or less was sent or received than is there"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sequence: u32, data: &[u8]) -> Segment {
        Segment { sequence, data: data.to_vec() }
    }

    #[test]
    fn what_was_read_is_left_out_also_where_numbers_begin_anew() {
        let all = || vec![segment(u32::MAX - 1, b"abc"), segment(0, b"bcd"), segment(4, b"")];
        // `a` has the number before the last, `c` number 0.
        let joined = joined(vec![segment(u32::MAX - 1, b"abc"), segment(1, b"de")], u32::MAX, 3);
        assert_eq!(joined.expect("it"), b"bcde");
        assert!(super::joined(all(), u32::MAX - 2, 3).is_err());
        assert!(super::joined(vec![segment(5, b"x")], 5, 7).is_err());
    }
}
