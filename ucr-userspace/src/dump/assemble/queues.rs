//! What waits to be received, from the kernel's form to that of an image.

use foldhash::HashMap;

use super::{Assembly, Reason, Stock, index};
use crate::{
    dump::{
        hidden::{Lost, What},
        holders,
    },
    image::{Connection, ForeignFile, Message, OutOfBand, Passed, Sender, Socket, SocketIndex},
    model::{Pid, SocketType, name::Escaped},
    snapshot::memory::{RawFile, RawMessage},
};

/// Files in flight, by the receiver's sock, the message, and the place in it; `None` if nobody has one.
type Files = HashMap<(u64, usize, usize), Option<ForeignFile>>;

impl Assembly<'_> {
    /// Fills in the queues of all sockets, and refuses what is in flight and cannot be had.
    pub(super) fn queues(
        &mut self,
        sockets: &mut [Socket],
        connections: &[Connection],
        dumped: &[Pid],
    ) {
        let inventory = self.inventory;
        let found = holders::find(&inventory.files, dumped, self.rules.then());
        let files: Files = inventory
            .files
            .iter()
            .map(|file| (file.receiver, file.message, file.position))
            .zip(found)
            .collect();
        // What is kept brings its queue along.
        let kept = connections.iter().filter_map(Connection::kept).map(SocketIndex::get);
        let kept: std::collections::HashSet<usize> = kept.collect();
        for (at, (stock, socket)) in inventory.sockets.iter().zip(sockets).enumerate() {
            if kept.contains(&at) {
                continue;
            }
            let messages = stock.queue.iter().enumerate();
            socket.queue =
                messages.map(|(number, raw)| self.message(stock, number, raw, &files)).collect();
            for file in inventory.files.iter().filter(|file| file.receiver == stock.held.sk) {
                if files.get(&(file.receiver, file.message, file.position)) == Some(&None) {
                    let name = Escaped(&file.name).to_string();
                    self.refuse(stock, Reason::FileInFlight { name });
                }
            }
            let lost = inventory.passed.iter().filter(|lost| lost.receiver == stock.held.sk);
            for Lost { what, .. } in lost {
                self.refuse(
                    stock,
                    match what {
                        What::File(name) => {
                            Reason::FileInFlight { name: Escaped(name).to_string() }
                        }
                        What::Socket => Reason::SocketOutOfReach,
                    },
                );
            }
        }
    }

    fn message(&self, stock: &Stock, number: usize, raw: &RawMessage, found: &Files) -> Message {
        let is_datagram = stock.details.socket_type == SocketType::Dgram;
        let is_stream = stock.details.socket_type == SocketType::Stream;
        let sender = || match self.by_sk.get(&raw.sender) {
            Some(at) => Sender::Socket(index(*at)),
            None => Sender::Gone(raw.sender_name.clone()),
        };
        let passed = |(position, file): (usize, &RawFile)| match file {
            RawFile::Socket(sk) => self.by_sk.get(sk).map(|at| Passed::Socket(index(*at))),
            // What nobody has is refused, one by one.
            RawFile::Other => {
                found.get(&(stock.held.sk, number, position))?.clone().map(Passed::File)
            }
        };
        Message {
            data: raw.data.clone(),
            sender: is_datagram.then(sender),
            credentials: raw.credentials.filter(|who| who.uid != u32::MAX && who.gid != u32::MAX),
            files: raw.files.iter().enumerate().filter_map(passed).collect(),
            out_of_band: match (raw.out_of_band, is_stream && raw.data.is_empty()) {
                (true, _) => OutOfBand::Waiting,
                (false, true) => OutOfBand::Taken,
                (false, false) => OutOfBand::No,
            },
        }
    }
}
