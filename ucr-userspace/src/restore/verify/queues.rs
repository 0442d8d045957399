//! What waits at the sockets that were made, held against the image: read from the kernel's memory.

use std::collections::HashSet;

use foldhash::HashMap;

use super::{Difference, Field, Insight};
use crate::image::{
    Connection, Image, Message, OutOfBand, Passed, Role, Sender, Socket, SocketIndex,
};
use crate::model::{Credentials, SocketType, UnixName};
use crate::snapshot::memory::{Memory, MemoryError, RawFile, RawMessage};

/// Whether there is anything in an image that only the kernel's memory tells.
pub(super) fn is_needed(image: &Image) -> bool {
    let peeks = |socket: &Socket| socket.options.iter().any(|o| o.name == libc::SO_PEEK_OFF);
    let has_more = image.sockets.iter().any(|socket| {
        socket.inet.is_some()
            || !socket.queue.is_empty()
            || socket.error != 0
            || !socket.shutdown.is_none() && peeks(socket)
    });
    has_more || image.connections.iter().any(|c| matches!(c, Connection::Waiting { .. }))
}

/// Compares what no descriptor tells. `Ok(None)`: there is nothing of the kind.
///
/// # Errors
///
/// If the kernel's memory cannot be read.
pub fn look_deeper(
    image: &Image,
    insight: Option<&Insight>,
) -> Result<Option<Vec<Difference>>, MemoryError> {
    let Some(insight) = insight.filter(|_| is_needed(image)) else { return Ok(None) };
    let socks = insight.socks.clone();
    let mut check =
        Check { image, insight, memory: &insight.memory, socks, differences: Vec::new() };
    check.waiting()?;
    check.sockets()?;
    Ok(Some(check.differences))
}

struct Check<'a> {
    image: &'a Image,
    insight: &'a Insight,
    memory: &'a Memory,
    socks: HashMap<SocketIndex, u64>,
    differences: Vec<Difference>,
}

impl Check<'_> {
    fn differs(&mut self, socket: SocketIndex, field: Field, wanted: String, found: String) {
        self.differences.push(Difference { socket, field, wanted, found });
    }

    /// Finds the connections that wait, so that they can be looked at like all others.
    fn waiting(&mut self) -> Result<(), MemoryError> {
        let mut wanted: HashMap<SocketIndex, Vec<(u32, SocketIndex)>> = HashMap::default();
        for connection in &self.image.connections {
            if let Connection::Waiting { embryo, listener, order, .. } = *connection {
                wanted.entry(listener).or_default().push((order, embryo));
            }
        }
        for (number, socket) in (0..).zip(&self.image.sockets) {
            let index = SocketIndex(number);
            let (Role::Listening { .. }, None, Some(sk)) =
                (socket.role, &socket.inet, self.socks.get(&index))
            else {
                continue;
            };
            let found = self.memory.embryos(*sk)?;
            let mut wanted = wanted.remove(&index).unwrap_or_default();
            wanted.sort_unstable();
            // Behind them may be others who have found the way by now.
            if wanted.len() > found.len() {
                let (wanted, found) = (wanted.len().to_string(), found.len().to_string());
                self.differs(index, Field::Waiting, wanted, found);
                continue;
            }
            self.socks.extend(wanted.iter().map(|(_, embryo)| *embryo).zip(found));
        }
        Ok(())
    }

    fn sockets(&mut self) -> Result<(), MemoryError> {
        let kept: HashSet<_> = self.image.connections.iter().filter_map(Connection::kept).collect();
        for (number, socket) in (0..).zip(&self.image.sockets) {
            let index = SocketIndex(number);
            let is_listener = matches!(socket.role, Role::Listening { .. });
            self.insight.read_ahead(index);
            let Some(&sk) = self.socks.get(&index) else { continue };
            if is_listener || kept.contains(&index) || !socket.is_unix() {
                continue;
            }
            let sock = self.memory.sock(sk)?;
            if sock.error != socket.error {
                let (wanted, found) = (socket.error.to_string(), sock.error.to_string());
                self.differs(index, Field::Error, wanted, found);
            }
            if socket.role == Role::Embryo {
                let wanted = (socket.shutdown.0, self.ids(socket.peer_credentials));
                let seen = self.memory.peer_credentials(&sock)?.map(|(credentials, _)| credentials);
                let found = (sock.shutdown, self.ids(seen));
                let known = socket.peer_credentials.is_some();
                if wanted.0 != found.0 || (known && wanted.1 != found.1) {
                    let shown =
                        |(shutdown, ids): (u8, String)| format!("shut down {shutdown}, {ids}");
                    self.differs(index, Field::PeerCredentials, shown(wanted), shown(found));
                }
            }
            self.queue(index, sk)?;
        }
        Ok(())
    }

    fn ids(&self, credentials: Option<Credentials>) -> String {
        credentials.map_or_else(|| "none".to_owned(), |c| format!("uid {} gid {}", c.uid, c.gid))
    }

    fn queue(&mut self, index: SocketIndex, sk: u64) -> Result<(), MemoryError> {
        let found = self.memory.queue(sk)?;
        let Some(socket) = self.image.sockets.get(index.get()) else { return Ok(()) };
        if socket.queue.len() != found.len() {
            let messages = |count| format!("{count} messages");
            let (wanted, found) = (messages(socket.queue.len()), messages(found.len()));
            self.differs(index, Field::Queue, wanted, found);
            return Ok(());
        }
        for (number, (wanted, found)) in socket.queue.iter().zip(found).enumerate() {
            let wanted = self.wanted(wanted);
            let found = self.found(socket.socket_type, &found);
            if wanted != found {
                let (wanted, found) = (wanted.shown(), found.shown());
                self.differs(index, Field::Message(number), wanted, found);
            }
        }
        Ok(())
    }

    fn wanted(&self, message: &Message) -> Seen {
        let sender = message.sender.as_ref().map(|sender| match sender {
            Sender::Socket(index) => {
                let socket = self.image.sockets.get(index.get());
                let bound = socket.and_then(|socket| socket.name.as_ref());
                bound.map(|bound| bound.name.clone()).unwrap_or_default()
            }
            Sender::Gone(name) => name.clone(),
        });
        let files = message.files.iter().map(|file| match file {
            Passed::Socket(index) => self.socks.get(index).copied(),
            Passed::File(_) => None,
        });
        Seen {
            data: message.data.clone(),
            sender,
            ids: message.credentials.map(|who| (who.uid, who.gid)),
            files: files.collect(),
            out_of_band: message.out_of_band,
        }
    }

    fn found(&self, socket_type: SocketType, raw: &RawMessage) -> Seen {
        let is_taken = socket_type == SocketType::Stream && raw.data.is_empty();
        let files = raw.files.iter().map(|file| match file {
            RawFile::Socket(sk) => Some(*sk),
            RawFile::Other => None,
        });
        Seen {
            data: raw.data.clone(),
            sender: (socket_type == SocketType::Dgram).then(|| raw.sender_name.clone()),
            ids: raw.credentials.map(|who| (who.uid, who.gid)),
            files: files.collect(),
            out_of_band: match (raw.out_of_band, is_taken) {
                (true, _) => OutOfBand::Waiting,
                (false, true) => OutOfBand::Taken,
                (false, false) => OutOfBand::No,
            },
        }
    }
}

/// A message as it is compared: without pids, which cannot always be had again.
#[derive(PartialEq, Eq)]
struct Seen {
    data: Vec<u8>,
    sender: Option<UnixName>,
    ids: Option<(u32, u32)>,
    files: Vec<Option<u64>>,
    out_of_band: OutOfBand,
}

impl Seen {
    /// Without the data, which may be anything.
    fn shown(&self) -> String {
        let sender = self.sender.as_ref().map_or_else(String::new, |name| format!(" from {name}"));
        let (sum, length) = (crc32fast::hash(&self.data), self.data.len());
        let (files, oob) = (self.files.len(), self.out_of_band);
        let ids = self.ids;
        format!("{length} bytes (CRC {sum:08x}){sender}, ids {ids:?}, {files} files, oob {oob:?}")
    }
}
