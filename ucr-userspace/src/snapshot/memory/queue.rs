//! The receive queue of a socket: messages, or for a listener embryos.

use ucr_common::memory::PIECE;

use super::{Block, Memory, MemoryError, long};
use crate::model::{Credentials, UnixName};

/// More than this in one queue is a list that goes in circles.
pub(super) const MOST: usize = 1 << 22;

/// One message as the kernel holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawMessage {
    /// What has not been received of it.
    pub data: Vec<u8>,
    /// Address of the socket that sent it. It may be dead.
    pub sender: u64,
    /// The sender's name.
    pub sender_name: UnixName,
    /// Credentials, if the kernel keeps some with it.
    pub credentials: Option<Credentials>,
    /// Open files in it.
    pub files: Vec<RawFile>,
    /// Whether it is the out-of-band byte that waits.
    pub out_of_band: bool,
}

/// An open file in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawFile {
    /// A socket, by the address of its sock.
    Socket(u64),
    /// Something else.
    Other,
}

/// A message's head, and where its data lies.
struct Head {
    skb: Block,
    address: u64,
}

impl Memory {
    /// The embryos in a listener's queue, in the order in which they will be accepted.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
    pub fn embryos(&self, listener: u64) -> Result<Vec<u64>, MemoryError> {
        self.heads(listener, &self.sock_block(listener)?)?
            .iter()
            .map(|head| head.skb.u64(self.layout.skb_sk))
            .collect()
    }

    /// What waits to be received by the socket at this address, in order.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
    pub fn queue(&self, sk: u64) -> Result<Vec<RawMessage>, MemoryError> {
        let sock = self.sock_block(sk)?;
        if sock.u32(self.layout.queue_length)? == 0 {
            return Ok(Vec::new());
        }
        let out_of_band = match self.layout.unix_oob {
            Some(at) => sock.u64(at)?,
            None => 0,
        };
        let heads = self.heads(sk, &sock)?;
        heads.iter().map(|head| self.message(head, out_of_band)).collect()
    }

    fn heads(&self, sk: u64, sock: &Block) -> Result<Vec<Head>, MemoryError> {
        self.heads_in(sk, self.layout.queue, sock)
    }

    /// The heads of what lies in the queue at this offset of a socket.
    pub(super) fn heads_of(
        &self,
        sk: u64,
        queue: usize,
        sock: &Block,
    ) -> Result<Vec<Block>, MemoryError> {
        let heads = self.heads_in(sk, queue, sock)?;
        Ok(heads.into_iter().map(|head| head.skb).collect())
    }

    fn heads_in(&self, sk: u64, queue: usize, sock: &Block) -> Result<Vec<Head>, MemoryError> {
        let end = sk + long(queue);
        // `sk_buff_head` begins with the same pointers as `sk_buff`.
        let mut next = sock.u64(queue + self.layout.skb_next)?;
        let mut heads = Vec::new();
        while next != end {
            if heads.len() == MOST {
                return Err(MemoryError::Senseless("a queue has no end"));
            }
            let skb = self.read("a message", next, self.layout.skb)?;
            let address = next;
            next = skb.u64(self.layout.skb_next)?;
            heads.push(Head { skb, address });
        }
        Ok(heads)
    }

    fn message(&self, head: &Head, out_of_band: u64) -> Result<RawMessage, MemoryError> {
        let l = &self.layout;
        let skb = &head.skb;
        let cb = |at: usize| l.skb_cb + at;
        let mut data = self.data(skb)?;
        let consumed = usize::try_from(skb.u32(cb(l.cb_consumed))?).unwrap_or(usize::MAX);
        data.drain(..consumed.min(data.len()));
        let sender = skb.u64(l.skb_sk)?;
        let sender_name = match sender {
            0 => UnixName::Unnamed,
            sk => self.name_at(sk)?,
        };
        let pid = skb.u64(cb(l.cb_pid))?;
        let credentials = match pid {
            0 => None,
            pid => Some(Credentials {
                pid: self.pid(pid)?,
                uid: skb.u32(cb(l.cb_uid))?,
                gid: skb.u32(cb(l.cb_gid))?,
            }),
        };
        Ok(RawMessage {
            data,
            sender,
            sender_name,
            credentials,
            files: self.files(skb.u64(cb(l.cb_fp))?)?,
            out_of_band: head.address == out_of_band,
        })
    }

    /// All bytes of a message, also those that have been received.
    pub(super) fn data(&self, skb: &Block) -> Result<Vec<u8>, MemoryError> {
        let l = &self.layout;
        let size = |at| skb.u32(at).map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        let (length, paged) = (size(l.skb_len)?, size(l.skb_data_len)?);
        let linear = length.checked_sub(paged);
        let linear = linear.ok_or(MemoryError::Senseless("a message is shorter than its end"))?;
        let mut data = Vec::new();
        self.append("data", skb.u64(l.skb_data)?, linear, &mut data)?;
        if paged > 0 {
            self.paged(skb, &mut data)?;
        }
        if data.len() == length {
            Ok(data)
        } else {
            Err(MemoryError::Senseless("a message's parts are not as long as the whole"))
        }
    }

    fn append(
        &self,
        what: &'static str,
        mut address: u64,
        mut length: usize,
        to: &mut Vec<u8>,
    ) -> Result<(), MemoryError> {
        while length > 0 {
            let now = length.min(PIECE);
            to.extend_from_slice(self.read(what, address, now)?.bytes());
            address += long(now);
            length -= now;
        }
        Ok(())
    }

    fn paged(&self, skb: &Block, data: &mut Vec<u8>) -> Result<(), MemoryError> {
        let pages = self.pages.ok_or(MemoryError::Senseless("where its pages lie is not known"))?;
        for (page, offset, length) in self.fragments(skb)? {
            self.append("a page", pages.address(page).wrapping_add(offset), length, data)?;
        }
        // A datagram that came in fragments, or several that came as one, are messages behind a message.
        let mut next = self.list_of(skb)?;
        let mut behind = 0;
        while next != 0 {
            if behind == MOST {
                return Err(MemoryError::Senseless("a message has no end"));
            }
            behind += 1;
            let part = self.read("a part of a message", next, self.layout.skb)?;
            next = part.u64(self.layout.skb_next)?;
            data.extend(self.data(&part)?);
        }
        Ok(())
    }

    /// Page, offset and length of each part of a message behind its first.
    pub(super) fn fragments_of(&self, sk: u64) -> Result<Vec<(u64, u64, usize)>, MemoryError> {
        let heads = self.heads(sk, &self.sock_block(sk)?)?;
        let all: Result<Vec<_>, _> = heads.iter().map(|head| self.fragments(&head.skb)).collect();
        all.map(|all| all.into_iter().flatten().collect())
    }

    /// Some address in the map of all memory: where a queue's first message lies.
    pub(super) fn somewhere(&self, sk: u64) -> Result<u64, MemoryError> {
        let heads = self.heads(sk, &self.sock_block(sk)?)?;
        let first = heads.first().ok_or(MemoryError::Senseless("our own message is not there"))?;
        first.skb.u64(self.layout.skb_head)
    }

    /// The first of the messages that a message is made of, besides itself; 0 if there are none.
    fn list_of(&self, skb: &Block) -> Result<u64, MemoryError> {
        self.shared_of(skb)?.u64(self.layout.shared_list)
    }

    pub(super) fn shared_of(&self, skb: &Block) -> Result<Block, MemoryError> {
        self.read("a message's parts", self.parts_of(skb)?, self.layout.shared)
    }

    /// Where the list of its parts is.
    pub(super) fn parts_of(&self, skb: &Block) -> Result<u64, MemoryError> {
        let l = &self.layout;
        // `sk_buff_data_t` is an offset on machines of 64 bits.
        Ok(skb.u64(l.skb_head)?.wrapping_add(u64::from(skb.u32(l.skb_end)?)))
    }

    fn fragments(&self, skb: &Block) -> Result<Vec<(u64, u64, usize)>, MemoryError> {
        self.fragments_in(&self.shared_of(skb)?)
    }

    pub(super) fn fragments_in(
        &self,
        shared: &Block,
    ) -> Result<Vec<(u64, u64, usize)>, MemoryError> {
        let l = &self.layout;
        (0..usize::from(shared.u8(l.shared_count)?))
            .map(|number| {
                let at = l.shared_fragments + number * l.fragment;
                let page = shared.u64(at + l.fragment_page)?;
                // The lowest bit marks memory of a device.
                if page & 1 != 0 {
                    return Err(MemoryError::Senseless("a message lies in memory of a device"));
                }
                let offset = shared.u32(at + l.fragment_offset)?;
                let length = shared.u32(at + l.fragment_len)?;
                Ok((page, offset.into(), usize::try_from(length).unwrap_or(usize::MAX)))
            })
            .collect()
    }

    fn files(&self, list: u64) -> Result<Vec<RawFile>, MemoryError> {
        if list == 0 {
            return Ok(Vec::new());
        }
        let l = &self.layout;
        let count = self.read("a number of files", list + long(l.passed_count), 2)?.u16(0)?;
        let pointers = list + long(l.passed_files);
        let pointers = self.read("files in flight", pointers, usize::from(count) * 8)?;
        (0..usize::from(count)).map(|number| self.file(pointers.u64(number * 8)?)).collect()
    }

    fn file(&self, address: u64) -> Result<RawFile, MemoryError> {
        let l = &self.layout;
        let file = self.read("a file in flight", address, l.file)?;
        if file.u64(l.file_operations)? != self.socket_operations {
            return Ok(RawFile::Other);
        }
        let socket = self.read("a socket in flight", file.u64(l.file_private)?, l.socket)?;
        let sk = socket.u64(l.socket_sk)?;
        let family = self.read("a socket in flight", sk + long(l.sock_family), 2)?.u16(0)?;
        let is_unix = i32::from(family) == libc::AF_UNIX;
        Ok(if is_unix { RawFile::Socket(sk) } else { RawFile::Other })
    }
}
