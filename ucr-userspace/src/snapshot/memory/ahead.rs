//! What will be asked of sockets is read ahead, many at once: to ask for each piece by itself takes longer than
//! anything else.

use super::{Memory, long, reader::Block};
use crate::model::{SocketState, name::SUN_PATH_MAX};

/// How many sockets are read ahead at once.
pub const TOGETHER: usize = 512;

/// What a piece is.
#[derive(Clone, Copy)]
enum What {
    /// A `struct unix_sock`.
    Sock { sk: u64 },
    /// The pointer to a socket's name.
    Address,
    /// The length of the name that is kept there.
    Length { address: u64 },
    /// A message, or a connection that waits, in the queue with this end.
    Message { end: u64, is_embryo: bool },
    /// A `struct tcp_sock` or a `struct udp_sock`.
    Inet { sk: u64, is_datagram: bool },
    /// A packet in the queue with this end.
    Packet { end: u64 },
    /// A packet in a tree.
    Branch,
    /// The list of a packet's parts.
    Parts,
    /// Something that leads nowhere.
    Plain,
}

type Wanted = Vec<((u64, usize), What)>;

impl Memory {
    /// Reads ahead what [`sock`](Self::sock), [`queue`](Self::queue) and the others will ask of these sockets, and
    /// forgets what was read ahead before. What changes afterwards is not seen.
    pub fn read_ahead(&self, sks: &[u64]) {
        self.reader.forget();
        let size = self.layout.unix_sock;
        let socks = sks.iter().map(|sk| ((*sk, size), What::Sock { sk: *sk }));
        self.reader.read_ahead(socks, |block, what, more| {
            // What makes no sense is complained of when it is asked for.
            drop(self.follow(block, what, more));
        });
    }

    /// The same of internet sockets, which are datagram sockets or not.
    pub fn read_inet_ahead(&self, sks: impl IntoIterator<Item = (u64, bool)>) {
        self.reader.forget();
        let socks = sks.into_iter().map(|(sk, is_datagram)| {
            ((sk, self.inet_size(is_datagram)), What::Inet { sk, is_datagram })
        });
        self.reader.read_ahead(socks, |block, what, more| {
            drop(self.follow(block, what, more));
        });
    }

    /// Reads ahead what [`tcp_remote`](Self::tcp_remote) will ask of internet sockets, and nothing else.
    pub fn read_ends_ahead(&self, sks: impl IntoIterator<Item = u64>) {
        self.reader.forget();
        let head = self.layout.inet.head;
        let socks = sks.into_iter().map(|sk| ((sk, head), ()));
        self.reader.read_ahead(socks, |_, (), _| {});
    }

    /// Forgets what was read ahead: from here on everything is read when it is asked for.
    pub fn look_anew(&self) {
        self.reader.forget();
    }

    /// What the next questions will be.
    fn follow(
        &self,
        block: &Block,
        what: What,
        more: &mut Wanted,
    ) -> Result<(), super::MemoryError> {
        let l = &self.layout;
        match what {
            What::Sock { sk } => {
                more.extend(self.name_ahead(block.u64(l.unix_addr)?));
                match block.u64(l.sock_socket)? {
                    0 => {}
                    socket => more.push(((socket + long(l.socket_flags), 8), What::Plain)),
                }
                match block.u64(l.unix_peer)? {
                    0 => {}
                    peer => more.push(((peer + long(l.unix_addr), 8), What::Address)),
                }
                if block.u32(l.queue_length)? > 0 {
                    let is_listener = SocketState::from_raw(block.u8(l.sock_state)?)
                        == Some(SocketState::Listening);
                    let what = What::Message { end: sk + long(l.queue), is_embryo: is_listener };
                    more.push(((block.u64(l.queue + l.skb_next)?, l.skb), what));
                }
            }
            What::Address => more.extend(self.name_ahead(block.u64(0)?)),
            What::Length { address } => {
                let length = usize::try_from(block.u32(0)?).unwrap_or(usize::MAX);
                let length = length.checked_sub(l.sun_path).filter(|n| *n <= SUN_PATH_MAX + 1);
                let path = address + long(l.addr_name + l.sun_path);
                more.extend(length.map(|length| ((path, length), What::Plain)));
            }
            What::Message { end, is_embryo } => {
                let next = block.u64(l.skb_next)?;
                if next != end {
                    more.push(((next, l.skb), What::Message { end, is_embryo }));
                }
                let sender = block.u64(l.skb_sk)?;
                if is_embryo {
                    more.push(((sender, l.unix_sock), What::Sock { sk: sender }));
                    return Ok(());
                }
                if sender != 0 {
                    more.push(((sender + long(l.unix_addr), 8), What::Address));
                }
                self.data_ahead(block, more)?;
            }
            What::Inet { sk, is_datagram } => self.inet_ahead(block, sk, is_datagram, more)?,
            What::Packet { end } => {
                let next = block.u64(l.skb_next)?;
                if next != end {
                    more.push(((next, l.skb), What::Packet { end }));
                }
                self.data_ahead(block, more)?;
            }
            What::Branch => {
                for at in self.branches() {
                    more.extend(self.branch_ahead(block.u64(at)?));
                }
                self.data_ahead(block, more)?;
            }
            What::Parts => {
                let Some(pages) = self.pages else { return Ok(()) };
                for (page, offset, length) in self.fragments_in(block)? {
                    more.push(((pages.address(page).wrapping_add(offset), length), What::Plain));
                }
            }
            What::Plain => {}
        }
        Ok(())
    }

    fn inet_ahead(
        &self,
        block: &Block,
        sk: u64,
        is_datagram: bool,
        more: &mut Wanted,
    ) -> Result<(), super::MemoryError> {
        let l = &self.layout;
        match block.u64(l.sock_socket)? {
            0 => {}
            socket => more.push(((socket + long(l.socket_flags), 8), What::Plain)),
        }
        let is_six = i32::from(block.u16(l.sock_family)?) == libc::AF_INET6;
        if let Some(six) = l.inet.six.as_ref().filter(|_| is_six) {
            more.push(((block.u64(six.pinet6)?, six.whole), What::Plain));
        }
        // What UDP holds back is rare.
        let another = if is_datagram { l.inet.reader_queue } else { l.inet.write_queue };
        for queue in [l.queue, another] {
            let (first, end) = (block.u64(queue + l.skb_next)?, sk + long(queue));
            if first != end {
                more.push(((first, l.skb), What::Packet { end }));
            }
        }
        if !is_datagram {
            more.extend(self.branch_ahead(self.unacknowledged(block)?));
        }
        Ok(())
    }

    fn branch_ahead(&self, node: u64) -> Option<((u64, usize), What)> {
        (node != 0).then(|| ((self.packet_at(node), self.layout.skb), What::Branch))
    }

    /// Where the bytes of a message lie.
    fn data_ahead(&self, skb: &Block, more: &mut Wanted) -> Result<(), super::MemoryError> {
        let l = &self.layout;
        let size = |at| skb.u32(at).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let (length, paged) = (size(l.skb_len)?, size(l.skb_data_len)?);
        if let Some(linear) = length.checked_sub(paged).filter(|linear| *linear > 0) {
            more.push(((skb.u64(l.skb_data)?, linear), What::Plain));
        }
        if paged > 0 {
            more.push(((self.parts_of(skb)?, l.shared), What::Parts));
        }
        Ok(())
    }

    fn name_ahead(&self, address: u64) -> Option<((u64, usize), What)> {
        let length = address + long(self.layout.addr_len);
        (address != 0).then_some(((length, 4), What::Length { address }))
    }
}
