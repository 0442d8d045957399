//! What no descriptor leads to: connections that were not accepted yet, and what is in flight in messages.

use foldhash::HashMap;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use ucr_common::descriptor::SocketDescriptor;

use super::{DumpError, inventory::Stock, reader::StateReader};
use crate::{
    crosscheck::Held,
    model::{Pid, SocketState, SocketType},
    process::{peek, state::SocketDetails},
    snapshot::{
        descriptors::Lister,
        memory::{Memory, RawFile, TOGETHER},
    },
};

/// Something in flight that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Address of the socket that is to receive it.
    pub receiver: u64,
    /// Which of the messages.
    pub message: usize,
    /// What it is.
    pub what: What,
}

/// What is in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// An open file that is no unix socket, by what `/proc` calls it.
    File(Vec<u8>),
    /// A socket that waits where nobody can get at it: on a connection that was not accepted yet.
    Socket,
}

/// An open file in flight that is no unix socket, and that we have a duplicate of.
#[derive(Debug)]
pub struct Passing {
    /// Address of the socket that is to receive it.
    pub receiver: u64,
    /// Which of the messages.
    pub message: usize,
    /// Which of its descriptors.
    pub position: usize,
    /// What `/proc` calls it.
    pub name: Vec<u8>,
    /// The duplicate.
    pub descriptor: OwnedFd,
}

/// What is in flight and no socket of the image.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) lost: Vec<Lost>,
    pub(super) files: Vec<Passing>,
}

/// Reads what the kernel holds for each socket, and finds those that no descriptor leads to.
pub(super) fn find(
    descriptors: &[SocketDescriptor],
    sockets: &mut Vec<Stock>,
    reader: &mut StateReader<'_>,
    lister: &mut Lister,
    memory: &Memory,
) -> Result<Found, DumpError> {
    let mut search = Search {
        descriptors,
        known: sockets.iter().enumerate().map(|(at, stock)| (stock.held.sk, at)).collect(),
        sockets,
        reader,
        lister,
        memory,
        held: HashMap::default(),
        found: Found { lost: Vec::new(), files: Vec::new() },
    };
    search.run()?;
    Ok(search.found)
}

struct Search<'a, 'm> {
    descriptors: &'a [SocketDescriptor],
    sockets: &'a mut Vec<Stock>,
    /// Where each socket is, by the address of its sock.
    known: HashMap<u64, usize>,
    reader: &'a mut StateReader<'m>,
    lister: &'a mut Lister,
    memory: &'a Memory,
    /// Our own descriptors of those in flight.
    held: HashMap<u64, OwnedFd>,
    found: Found,
}

impl Search<'_, '_> {
    fn run(&mut self) -> Result<(), DumpError> {
        let (mut at, mut embryos) = (0, Vec::new());
        loop {
            while at < self.sockets.len() {
                if at.is_multiple_of(TOGETHER) {
                    let together = self.sockets.iter().skip(at).take(TOGETHER);
                    let waiting = together.filter(|stock| stock.sock.waiting > 0);
                    let waiting: Vec<u64> = waiting.map(|stock| stock.held.sk).collect();
                    self.memory.read_ahead(&waiting);
                }
                self.look(at, &mut embryos)?;
                at += 1;
            }
            if embryos.is_empty() {
                return Ok(());
            }
            self.sockets.append(&mut embryos);
        }
    }

    fn look(&mut self, at: usize, embryos: &mut Vec<Stock>) -> Result<(), DumpError> {
        let Some(stock) = self.sockets.get_mut(at) else { return Ok(()) };
        let sk = stock.held.sk;
        let sock = stock.sock;
        if sock.waiting == 0 {
            return Ok(());
        }
        if SocketState::from_raw(sock.state) == Some(SocketState::Listening) {
            let netns = stock.netns;
            for embryo in self.memory.embryos(sk)? {
                embryos.push(self.embryo(embryo, at, netns)?);
            }
            return Ok(());
        }
        stock.queue = self.memory.queue(sk)?;
        for number in 0..stock.queue.len() {
            self.look_into(at, number)?;
        }
        Ok(())
    }

    /// What is in flight in one message.
    fn look_into(&mut self, at: usize, number: usize) -> Result<(), DumpError> {
        let Some(stock) = self.sockets.get(at) else { return Ok(()) };
        let Some(message) = stock.queue.get(number) else { return Ok(()) };
        let is_known = |file: &RawFile| match file {
            RawFile::Socket(sk) => self.known.contains_key(sk),
            RawFile::Other => false,
        };
        let unknown: Vec<RawFile> =
            message.files.iter().copied().filter(|file| !is_known(file)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let files = message.files.clone();
        let receiver = stock.held.sk;
        // Which socket one is can be seen afterwards; which file cannot, so the place must be certain.
        let is_certain = !unknown.contains(&RawFile::Other) || has_certain_place(stock, number);
        let found = if is_certain { self.fetch(at, number)? } else { None };
        let Some(found) = found else {
            self.found.lost.extend(unknown.iter().map(|file| Lost {
                receiver,
                message: number,
                what: match file {
                    RawFile::Socket(_) => What::Socket,
                    RawFile::Other => What::File(b"a file".to_vec()),
                },
            }));
            return Ok(());
        };
        let own = Pid(nix::unistd::getpid().as_raw());
        let listed = self.lister.sockets_of(own)?;
        for (position, (file, descriptor)) in files.into_iter().zip(found).enumerate() {
            match file {
                RawFile::Socket(sk) if self.known.contains_key(&sk) => {}
                RawFile::Socket(sk) => self.add(sk, descriptor, own, &listed)?,
                RawFile::Other => {
                    let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
                    let name = std::fs::read_link(link).map(std::path::PathBuf::into_os_string);
                    let name = name.unwrap_or_default().into_encoded_bytes();
                    let message = number;
                    let file = Passing { receiver, message, position, name, descriptor };
                    self.found.files.push(file);
                }
            }
        }
        Ok(())
    }

    /// Duplicates of all descriptors in one message, if its receiver can be got at.
    fn fetch(&mut self, at: usize, number: usize) -> Result<Option<Vec<OwnedFd>>, DumpError> {
        let Some(stock) = self.sockets.get(at) else { return Ok(None) };
        // Receiving takes a pending error away, even if it only peeks; a stream's is told later.
        if stock.sock.error != 0 && stock.details.socket_type != SocketType::Stream {
            return Ok(None);
        }
        let first = stock.holders.first().and_then(|at| self.descriptors.get(*at));
        let duplicate;
        let receiver = match (first, self.held.get(&stock.held.sk)) {
            (Some(first), _) => {
                duplicate = self.reader.duplicate(first)?;
                duplicate.as_fd()
            }
            (None, Some(held)) => held.as_fd(),
            (None, None) => return Ok(None),
        };
        let before = stock.queue.iter().take(number).map(|message| message.data.len()).sum();
        let wanted = stock.queue.get(number).map_or(0, |message| message.files.len());
        let found = peek::passed(receiver, before)
            .map_err(|source| DumpError::InFlight { inode: stock.held.inode, source })?;
        // Behind messages without data an offset does not lead to the right one.
        Ok((found.len() == wanted).then_some(found))
    }

    /// A socket that was got out of a message.
    fn add(
        &mut self,
        sk: u64,
        descriptor: OwnedFd,
        own: Pid,
        listed: &[SocketDescriptor],
    ) -> Result<(), DumpError> {
        let fd = descriptor.as_raw_fd().cast_unsigned();
        // More than one, where a message carries it more than once.
        let ours = listed.iter().filter(|d| d.socket.sk == sk && d.tid == d.pid).count();
        let found = listed.iter().find(|d| d.fd == fd && d.tid == d.pid);
        let Some(listed) = found.filter(|found| found.socket.sk == sk) else {
            return Err(DumpError::OtherSocket { pid: own, fd: descriptor.as_raw_fd() });
        };
        let sock = self.memory.sock(sk)?;
        let (details, file) = self.reader.read_own(listed, &sock, &descriptor)?;
        self.known.insert(sk, self.sockets.len());
        self.sockets.push(Stock {
            held: Held { sk, inode: details.inode, cookie: details.cookie },
            netns: listed.netns,
            holders: Vec::new(),
            details,
            file,
            sock,
            queue: Vec::new(),
            waits_at: None,
            references: listed.references.saturating_sub(u64::try_from(ours).unwrap_or(u64::MAX)),
        });
        self.held.insert(sk, descriptor);
        Ok(())
    }

    fn embryo(&self, sk: u64, listener: usize, netns: u32) -> Result<Stock, DumpError> {
        let sock = self.memory.sock(sk)?;
        let credentials = self.memory.peer_credentials(&sock)?;
        let details = SocketDetails {
            inode: 0,
            cookie: sock.cookie,
            socket_type: SocketType::from_raw(sock.socket_type.into())
                .unwrap_or(SocketType::Stream),
            name: self.memory.name_of(&sock)?,
            credentials: credentials.map(|(credentials, _)| credentials),
            ..SocketDetails::default()
        };
        Ok(Stock {
            held: Held { sk, inode: 0, cookie: sock.cookie },
            netns,
            holders: Vec::new(),
            details,
            file: None,
            sock,
            queue: Vec::new(),
            waits_at: Some(listener),
            references: 0,
        })
    }
}

/// Whether the offset of a message leads to it without a doubt: messages without data have none of their own,
/// and an out-of-band byte may be passed over.
fn has_certain_place(stock: &Stock, number: usize) -> bool {
    let mut until = stock.queue.iter().take(number + 1);
    until.all(|message| !message.data.is_empty() && !message.out_of_band)
}
