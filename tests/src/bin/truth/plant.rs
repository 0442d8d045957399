//! Faults planted in the ledger, to see that the test sees them: on the sockets of the bystander,
//! which stand still, and only for as long as a comparison takes.

use anyhow::{Context as _, Result, bail};
use ucr::tracer::store::Store;
use ucr_common::{
    identity::SocketId,
    record::{FLAG_PEER_CLOSED, Record},
};

/// `TCP_LISTEN`.
const LISTENING: u32 = 10;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Plant {
    /// Each of them, one in each check
    All,
    Missing,
    Stale,
    Cookie,
    Inode,
    Type,
    State,
    Name,
    Peer,
    Listener,
    Shutdown,
    Backlog,
    Netns,
}

impl Plant {
    const EACH: [Self; 12] = [
        Self::Missing,
        Self::Stale,
        Self::Cookie,
        Self::Inode,
        Self::Type,
        Self::State,
        Self::Name,
        Self::Peer,
        Self::Listener,
        Self::Shutdown,
        Self::Backlog,
        Self::Netns,
    ];
}

/// Those that are still to be planted, and the one that is.
pub(crate) struct Plants {
    door: Vec<u8>,
    waiting: Vec<Plant>,
    planted: Option<Undo>,
}

/// The record as it was, or the one that was added.
enum Undo {
    Restore(Box<Record>),
    Remove(u64),
}

impl Plants {
    /// On the sockets at this name.
    pub(crate) fn new(plant: Option<Plant>, door: Vec<u8>) -> Self {
        let waiting = match plant {
            None => Vec::new(),
            Some(Plant::All) => Plant::EACH.into(),
            Some(one) => vec![one],
        };
        Self { door, waiting, planted: None }
    }

    /// Whether there are any left.
    pub(crate) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Plants the next one, again if it has been repaired.
    pub(crate) fn falsify(&mut self, store: &mut Store) -> Result<()> {
        let Some(plant) = self.waiting.last().copied() else { return Ok(()) };
        self.clear(store)?;
        let Self { door, planted, .. } = self;
        let records = store.records()?;
        let is_there = |record: &&Record| record.name.as_bytes() == door.as_slice();
        let named: Vec<&Record> = records.iter().filter(is_there).collect();
        let listener = named.iter().find(|record| record.state == LISTENING);
        let embryo = named.iter().find(|record| record.state != LISTENING);
        let (Some(listener), Some(embryo)) = (listener, embryo) else {
            bail!("the ledger does not know the bystander");
        };
        let mut record = match plant {
            Plant::Peer | Plant::Listener => **embryo,
            _ => **listener,
        };
        let before = record;
        match plant {
            Plant::All => {}
            Plant::Missing => {
                store.remove(record.socket.sk)?;
                *planted = Some(Undo::Restore(Box::new(before)));
                return Ok(());
            }
            Plant::Stale => {
                // Where no sock can be.
                record.socket = SocketId { sk: record.socket.sk + 8, cookie: 0, inode: 1 };
                store.put(&record)?;
                *planted = Some(Undo::Remove(record.socket.sk));
                return Ok(());
            }
            Plant::Cookie => record.socket.cookie = u64::MAX,
            Plant::Inode => record.socket.inode += 1,
            Plant::Type => record.socket_type = 2,
            Plant::State => record.state = 1,
            Plant::Name => record.name.bytes.swap(1, 2),
            Plant::Peer => record.flags |= FLAG_PEER_CLOSED,
            Plant::Listener => record.listener = SocketId::NONE,
            Plant::Shutdown => record.shutdown ^= 1,
            Plant::Backlog => record.backlog += 1,
            Plant::Netns => record.netns += 1,
        }
        store.put(&record).context("plant a fault")?;
        *planted = Some(Undo::Restore(Box::new(before)));
        Ok(())
    }

    /// The ledger is as it was.
    pub(crate) fn clear(&mut self, store: &mut Store) -> Result<()> {
        match self.planted.take() {
            None => Ok(()),
            Some(Undo::Restore(record)) => store.put(&record),
            // A reconciliation may have removed it.
            Some(Undo::Remove(sk)) => match store.record(sk)? {
                Some(_) => store.remove(sk),
                None => Ok(()),
            },
        }
        .context("clear a planted fault away")
    }

    /// The next check is for the next fault.
    pub(crate) fn turn(&mut self) {
        self.waiting.pop();
    }
}
