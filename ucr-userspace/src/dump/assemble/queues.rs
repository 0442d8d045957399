//! What waits to be received, from the kernel's form to that of an image.

use super::{Assembly, Reason, Stock, index};
use crate::{
    dump::hidden::{Lost, What},
    image::{Connection, Message, OutOfBand, Passed, Sender, Socket, SocketIndex},
    model::{SocketType, name::Escaped},
    snapshot::memory::{RawFile, RawMessage},
};

impl Assembly<'_> {
    /// Fills in the queues of all sockets, and refuses what is in flight and cannot be had.
    pub(super) fn queues(&mut self, sockets: &mut [Socket], connections: &[Connection]) {
        let inventory = self.inventory;
        // What is kept brings its queue along.
        let kept = connections.iter().filter_map(Connection::kept).map(SocketIndex::get);
        let kept: std::collections::HashSet<usize> = kept.collect();
        for (at, (stock, socket)) in inventory.sockets.iter().zip(sockets).enumerate() {
            if kept.contains(&at) {
                continue;
            }
            socket.queue = stock.queue.iter().map(|raw| self.message(stock, raw)).collect();
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

    fn message(&self, stock: &Stock, raw: &RawMessage) -> Message {
        let is_datagram = stock.details.socket_type == SocketType::Dgram;
        let is_stream = stock.details.socket_type == SocketType::Stream;
        let sender = || match self.by_sk.get(&raw.sender) {
            Some(at) => Sender::Socket(index(*at)),
            None => Sender::Gone(raw.sender_name.clone()),
        };
        let passed = |file: &RawFile| match file {
            RawFile::Socket(sk) => self.by_sk.get(sk).map(|at| Passed::Socket(index(*at))),
            // Refused, one by one.
            RawFile::Other => None,
        };
        Message {
            data: raw.data.clone(),
            sender: is_datagram.then(sender),
            credentials: raw.credentials.filter(|who| who.uid != u32::MAX && who.gid != u32::MAX),
            files: raw.files.iter().filter_map(passed).collect(),
            out_of_band: match (raw.out_of_band, is_stream && raw.data.is_empty()) {
                (true, _) => OutOfBand::Waiting,
                (false, true) => OutOfBand::Taken,
                (false, false) => OutOfBand::No,
            },
        }
    }
}
