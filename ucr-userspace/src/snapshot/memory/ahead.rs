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
                let size = |at| block.u32(at).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
                let (length, paged) = (size(l.skb_len)?, size(l.skb_data_len)?);
                if let Some(linear) = length.checked_sub(paged).filter(|linear| *linear > 0) {
                    more.push(((block.u64(l.skb_data)?, linear), What::Plain));
                }
                if paged > 0 {
                    let shared =
                        block.u64(l.skb_head)?.wrapping_add(u64::from(block.u32(l.skb_end)?));
                    more.push(((shared, l.shared), What::Plain));
                }
            }
            What::Plain => {}
        }
        Ok(())
    }

    fn name_ahead(&self, address: u64) -> Option<((u64, usize), What)> {
        let length = address + long(self.layout.addr_len);
        (address != 0).then_some(((length, 4), What::Length { address }))
    }
}
