//! Which sockets are to be taken over as they are (`--external keep`), and from whom.

use super::{Assembly, DumpError, Reason, Stock, owner};
use crate::{
    dump::external::{Policy, Then},
    image::External,
    model::{Pid, SocketState, SocketType, UnixName},
    snapshot::memory::{Memory, RawFile},
};

impl<'a> Assembly<'a> {
    /// Finds them. A socket is kept if somebody outside has to do with it (its peer's process, one that holds
    /// it too, one that sends to it) and a rule says so; and whatever of the image is connected to it, since
    /// nobody can connect to a socket that is somewhere else.
    pub(super) fn choose_kept(&mut self, memory: &Memory) -> Result<(), DumpError> {
        let stocks = &self.inventory.sockets;
        for stock in stocks {
            if self.can_be_kept(stock) && self.is_to_be_kept(stock, memory)? {
                self.kept.insert(stock.held.sk);
            }
        }
        loop {
            let before = self.kept.len();
            for stock in stocks {
                let (own, peer) = (stock.held.sk, stock.sock.peer);
                let is_touched = self.kept.contains(&own) || self.kept.contains(&peer);
                if is_touched && self.by_sk.contains_key(&peer) {
                    self.kept.extend([own, peer]);
                }
            }
            if self.kept.len() == before {
                return Ok(());
            }
        }
    }

    /// Not a listener, with those who wait at it; nor one that waits itself, which goes with its listener.
    fn can_be_kept(&self, stock: &Stock) -> bool {
        let is_embryo = |stock: &Stock| stock.waits_at.is_some();
        let peer = self.by_sk.get(&stock.sock.peer);
        let peer = peer.and_then(|at| self.inventory.sockets.get(*at));
        let is_listener = SocketState::from_raw(stock.sock.state) == Some(SocketState::Listening);
        !is_listener && !is_embryo(stock) && !peer.is_some_and(is_embryo)
    }

    fn is_to_be_kept(&self, stock: &Stock, memory: &Memory) -> Result<bool, DumpError> {
        let own = stock.held.inode;
        let sk = stock.sock.peer;
        let mut peer_name = UnixName::Unnamed;
        let mut is_outside = self.unexplained(stock) > 0;
        if let Some(peer) = self.by_sk.get(&sk).and_then(|at| self.inventory.sockets.get(*at)) {
            peer_name.clone_from(&peer.details.name);
        } else if sk != 0 {
            let peer = memory.sock(sk)?;
            peer_name = memory.name_of(&peer)?;
            is_outside |= !peer.is_dead();
        }
        if is_outside && self.policy(stock, &peer_name) == Policy::Keep {
            return Ok(true);
        }
        let senders = self.senders.get(&own).into_iter().flatten();
        Ok(senders.copied().any(|sender| self.policy_of_sender(sender, own) == Policy::Keep))
    }

    /// What becomes of a datagram socket outside that is connected to one of the image.
    pub(super) fn policy_of_sender(&self, sender: u32, own: u32) -> Policy {
        let unnamed = UnixName::Unnamed;
        let name = self.inventory.view.get(sender).map_or(&unnamed, |seen| &seen.name);
        self.rules.policy(name, &[sender, own])
    }

    /// References to its file that neither descriptors at hand nor messages at hand explain.
    pub(super) fn unexplained(&self, stock: &Stock) -> u64 {
        let in_flight = self.in_flight.get(&stock.held.sk).copied().unwrap_or(0);
        stock.references.saturating_sub(in_flight)
    }

    pub(super) fn is_kept(&self, stock: &Stock) -> bool {
        self.kept.contains(&stock.held.sk)
    }

    /// Who will still have it: a process outside, else the one that is dumped, if it goes on.
    pub(super) fn keep(&mut self, stock: &'a Stock) -> Option<External> {
        let by_sk = |sk| self.inventory.sockets.get(*self.by_sk.get(sk)?);
        let carries_others = stock.queue.iter().flat_map(|message| &message.files).any(|file| {
            matches!(file, RawFile::Socket(sk) if by_sk(sk).is_some_and(|s| s.holders.is_empty()))
        });
        if carries_others {
            self.refuse(stock, Reason::KeptWithSockets);
            return None;
        }
        let inside: Vec<_> = self.inventory.descriptors.iter().map(|d| owner(d).0).collect();
        let inode = stock.held.inode;
        // By its number in our pid namespace, or it is no use to us.
        let link = format!("socket:[{inode}]");
        let is_holder = |pid: Pid, fd: i32| {
            let found = std::fs::read_link(format!("/proc/{pid}/fd/{fd}"));
            !inside.contains(&pid) && found.is_ok_and(|found| found.as_os_str() == link.as_str())
        };
        let others = self.outside.holders(inode).into_iter();
        let mut others = others.map(|party| (party.pid, party.fd.cast_signed()));
        let own = stock.holders.first().and_then(|at| self.inventory.descriptors.get(*at));
        let own = own.map(owner).filter(|_| self.rules.then() == Then::GoOn);
        match others.find(|(pid, fd)| is_holder(*pid, *fd)).or(own) {
            Some((pid, fd)) => Some(External::Keep { pid, fd }),
            None => {
                self.refuse(stock, Reason::NobodyKeeps);
                None
            }
        }
    }

    /// Whether a socket called so listens, or has called `connect`: for a connection that nobody saw being
    /// made.
    pub(super) fn has_listener(&self, name: &UnixName, socket_type: SocketType) -> bool {
        self.inventory.view.sockets.values().any(|seen| {
            seen.state == SocketState::Listening
                && seen.socket_type == socket_type
                && seen.name == *name
        })
    }
}
