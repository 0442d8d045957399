//! Internet sockets, from what was found to the image.

use core::net::IpAddr;

use foldhash::HashMap;

use super::{Assembly, Common, LeftOut, actor, known_from, owner};
use crate::{
    dump::{
        DumpError,
        external::{Policy, Then},
        inet::InetStock,
        obstacle::Reason,
    },
    image::{Fact, Inet, Process, Role, Socket, SocketIndex, Source, Tcp, Waiting},
    model::{
        Pid, SocketType,
        inet::{Endpoint, Family, TcpState},
    },
    process::tcp,
    snapshot::memory::{Memory, RawWaiting},
};

/// Ends of a connection, as one of them has it: network namespace, local, remote. Which interface an address of a link
/// belongs to, the kernel's memory does not say beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends(u32, (IpAddr, u16), (IpAddr, u16));

impl Ends {
    fn of(netns: u32, local: Endpoint, remote: Endpoint) -> Self {
        let place = |end: Endpoint| {
            let end = end.unmapped();
            (end.address, end.port)
        };
        Self(netns, place(local), place(remote))
    }
}

impl Assembly<'_> {
    /// Puts the internet sockets behind the others.
    pub(super) fn inet(
        &mut self,
        sockets: &mut Vec<Socket>,
        processes: &[Process],
        own_netns: u32,
        memory: &Memory,
    ) -> Result<(), DumpError> {
        let before = u32::try_from(sockets.len()).unwrap_or(u32::MAX);
        let clients: HashMap<_, _> = self
            .inventory
            .inet
            .iter()
            .zip(before..)
            .filter_map(|(stock, index)| {
                let (inet, netns) = (&stock.details.inet, stock.netns);
                let tcp = inet.tcp.as_deref()?;
                let ends = Ends::of(netns, inet.local?, inet.remote?);
                Some((ends, (SocketIndex(index), tcp)))
            })
            .collect();
        for stock in &self.inventory.inet {
            self.refuse_inet(stock, processes, own_netns);
            let waiting = self.inet_waiting(stock, &clients, memory)?;
            sockets.push(self.inet_socket(stock, waiting));
        }
        Ok(())
    }

    /// Of a listener, the connections that it has not accepted and whose other ends are in the image. What becomes of
    /// others the user decides.
    fn inet_waiting(
        &mut self,
        stock: &InetStock,
        clients: &HashMap<Ends, (SocketIndex, &Tcp)>,
        memory: &Memory,
    ) -> Result<Vec<Waiting>, DumpError> {
        let mut found = Vec::new();
        for raw in &stock.details.waiting {
            let RawWaiting { sk, local, remote } = *raw;
            let reason = match clients.get(&Ends::of(stock.netns, remote, local)) {
                Some((client, sent)) => {
                    let (state, waiting) = tcp::waiting(sk, *client, memory)?;
                    let is_open = matches!(state, TcpState::Established | TcpState::CloseWait);
                    if is_open && waiting.with(&sent.sent).is_some() {
                        found.push(waiting);
                        continue;
                    }
                    Reason::WaitingIn { remote, state }
                }
                None => match self.rules.policy_of(&remote.to_string(), &[stock.held.inode]) {
                    Policy::Dangling => {
                        self.left_out.push(LeftOut { local, remote });
                        continue;
                    }
                    Policy::Refuse | Policy::Reconnect | Policy::Keep => {
                        Reason::RemoteWaiting { remote }
                    }
                },
            };
            self.refuse_at(&stock.holders, stock.held.inode, reason);
        }
        Ok(found)
    }

    fn inet_socket(&self, stock: &InetStock, waiting: Vec<Waiting>) -> Socket {
        let details = &stock.details;
        let tracked = self.inventory.ledger.as_ref().and_then(|ledger| ledger.get(stock.held.sk));
        let role = match details.backlog {
            Some(backlog) => Role::Listening { backlog },
            None if details.inet.remote.is_some() => Role::Connected,
            None => Role::Unconnected,
        };
        let is_datagram = details.inet.protocol.is_datagram();
        Socket {
            cookie: stock.held.cookie,
            inode: stock.held.inode,
            socket_type: if is_datagram { SocketType::Dgram } else { SocketType::Stream },
            role,
            name: None,
            status_flags: details.status_flags,
            shutdown: details.shutdown,
            peer_credentials: None,
            listener_credentials: None,
            groups: None,
            options: details.options.clone(),
            filter: details.filter.clone(),
            notification: details.notification,
            error: 0,
            queue: Vec::new(),
            known_from: known_from(tracked),
            created_at: tracked.and_then(|t| t.created_at),
            creator: tracked.and_then(|t| t.creator.as_ref()).map(actor),
            sources: sources(stock),
            inet: Some(Box::new(Inet { waiting, ..details.inet.clone() })),
            netlink: None,
        }
    }

    fn refuse_inet(&mut self, stock: &InetStock, processes: &[Process], own_netns: u32) {
        let details = &stock.details;
        let what = Common {
            netns: stock.netns,
            lost: &details.not_restorable,
            notification: details.notification,
        };
        let mut reasons = what.refused(processes, own_netns);
        if self.rules.then() == Then::End
            && let Some(why) = &self.inventory.answered
            && stock.connection.is_some()
            && let (Some(local), Some(remote)) = (details.inet.local, details.inet.remote)
            && remote.unmapped().family() == Family::V6
        {
            let (state, why) = (details.state, why.clone());
            reasons.push(Reason::Connection { local, remote, state, why });
        }
        let own = self.rules.own_references(stock.held.inode);
        let references = stock.references.saturating_sub(own);
        reasons.extend(self.sharing_of(&stock.holders, stock.held.inode, references));
        reasons
            .into_iter()
            .for_each(|reason| self.refuse_at(&stock.holders, stock.held.inode, reason));
    }

    /// Whose descriptors these are.
    pub(super) fn holders_of(&self, holders: &[usize]) -> impl Iterator<Item = (Pid, i32)> {
        holders.iter().filter_map(|at| self.inventory.descriptors.get(*at)).map(owner)
    }
}

fn sources(stock: &InetStock) -> Vec<(Fact, Source)> {
    let inet = &stock.details.inet;
    let facts = [
        (inet.local.is_some(), Fact::Name, Source::Asked),
        (inet.remote.is_some(), Fact::Peer, Source::Asked),
        (
            !inet.options.is_empty() || !stock.details.options.is_empty(),
            Fact::Options,
            Source::Asked,
        ),
        (!inet.memberships.is_empty(), Fact::Groups, Source::Memory),
        (!inet.datagrams.is_empty() || inet.tcp.is_some(), Fact::Queue, Source::Memory),
    ];
    facts.into_iter().filter(|(is, ..)| *is).map(|(_, fact, source)| (fact, source)).collect()
}
