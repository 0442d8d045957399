//! Who is connected with whom: processes, and the sockets between them.
//!
//! Whoever knows the sockets tells a [`Builder`] of each connection once, with all processes that
//! hold either end. What is the same between the same two processes becomes one edge with a count,
//! and the graph is the same in whatever order it was told.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{SocketType, UnixName};

/// Processes and what is between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// By pid; last, if there is something that nobody holds, [`Holder::Nobody`].
    pub nodes: Vec<Node>,
    /// Between two different nodes each; no two are alike but for their count.
    pub edges: Vec<Edge>,
}

/// A node's index in [`Graph::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub usize);

/// Somebody who holds sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Who.
    pub holder: Holder,
    /// What they listen on, or receive datagrams at: each name once.
    pub listeners: BTreeSet<Listener>,
    /// Connections of which they hold both ends.
    pub inside: u64,
}

/// Who holds a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holder {
    /// A process.
    Process {
        /// Its id.
        pid: u32,
        /// Its name: any bytes.
        comm: Vec<u8>,
        /// The unit of systemd's that it belongs to.
        unit: Option<String>,
    },
    /// No process: the socket is in flight, or the kernel's own, or its holder could not be seen.
    Nobody,
}

/// A name that can be connected or sent to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Listener {
    /// The socket's type.
    pub socket_type: SocketType,
    /// Its name.
    pub name: UnixName,
}

/// Connections of one kind between two nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The client, or the sender. Of a [`Kind::Pair`] the one with the lower pid.
    pub from: NodeId,
    /// The server, or the receiver.
    pub to: NodeId,
    /// What it is.
    pub link: Link,
    /// How many there are.
    pub count: u64,
}

/// What a connection is, whoever holds its ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link {
    /// How it came about.
    pub kind: Kind,
    /// The sockets' type.
    pub socket_type: SocketType,
    /// The name that was connected to.
    pub name: UnixName,
}

/// How a connection came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Connected and accepted: from the client to the server.
    Connection,
    /// A socketpair, or two ends of which nobody knows which one is the client: no direction.
    Pair,
    /// Datagrams: from whoever sends to whoever receives.
    Datagram,
    /// Connected and not yet accepted: from the client to whoever listens.
    Waiting,
}

/// Puts a [`Graph`] together.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    nodes: BTreeMap<Key, Node>,
    edges: BTreeMap<(Key, Key, Link), u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Process(u32),
    Nobody,
}

impl Builder {
    /// Tells of a process. One that is only mentioned as a holder has no name.
    pub fn process(&mut self, pid: u32, comm: &[u8], unit: Option<&str>) {
        let (comm, unit) = (comm.to_vec(), unit.map(str::to_owned));
        self.node(Key::Process(pid)).holder = Holder::Process { pid, comm, unit };
    }

    /// Tells of a socket that can be connected or sent to, and of the processes that hold it.
    pub fn listener(&mut self, holders: &[u32], socket_type: SocketType, name: &UnixName) {
        for key in keys(holders) {
            let name = name.clone();
            self.node(key).listeners.insert(Listener { socket_type, name });
        }
    }

    /// Tells of a connection, and of the processes that hold either end. An end that no process
    /// holds is nobody's; one that several hold is connected with the other from each of them, and
    /// a process that has both ends has it inside.
    pub fn connection(&mut self, from: &[u32], to: &[u32], link: &Link) {
        let mut ends = BTreeSet::new();
        for from in keys(from) {
            // A pair has no direction: it is one edge also if both have both ends.
            ends.extend(keys(to).map(|to| match link.kind {
                Kind::Pair => (from.min(to), from.max(to)),
                _ => (from, to),
            }));
        }
        for (from, to) in ends {
            if from == to {
                self.node(from).inside += 1;
            } else {
                self.node(from);
                self.node(to);
                *self.edges.entry((from, to, link.clone())).or_default() += 1;
            }
        }
    }

    /// The graph of all that was told.
    #[must_use]
    pub fn finish(self) -> Graph {
        let ids: BTreeMap<Key, NodeId> =
            self.nodes.keys().enumerate().map(|(index, key)| (*key, NodeId(index))).collect();
        let edges = self.edges.into_iter().filter_map(|((from, to, link), count)| {
            // Both are there: `connection` made them.
            Some(Edge { from: *ids.get(&from)?, to: *ids.get(&to)?, link, count })
        });
        Graph { edges: edges.collect(), nodes: self.nodes.into_values().collect() }
    }

    fn node(&mut self, key: Key) -> &mut Node {
        let holder = || match key {
            Key::Process(pid) => Holder::Process { pid, comm: Vec::new(), unit: None },
            Key::Nobody => Holder::Nobody,
        };
        self.nodes.entry(key).or_insert_with(|| Node {
            holder: holder(),
            listeners: BTreeSet::new(),
            inside: 0,
        })
    }
}

/// Those who hold something: nobody, if there is none.
fn keys(holders: &[u32]) -> impl Iterator<Item = Key> {
    let nobody = holders.is_empty().then_some(Key::Nobody);
    holders.iter().copied().map(Key::Process).chain(nobody)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(kind: Kind, name: &[u8]) -> Link {
        let name = UnixName::from_sun_path(name);
        Link { kind, socket_type: SocketType::Stream, name }
    }

    /// Each edge as one text.
    fn told(graph: &Graph) -> Vec<String> {
        let who = |id: NodeId| match &graph.nodes[id.0].holder {
            Holder::Process { pid, .. } => pid.to_string(),
            Holder::Nobody => "nobody".to_owned(),
        };
        graph
            .edges
            .iter()
            .map(|Edge { from, to, link, count }| {
                format!("{} {} {:?} {} {count}", who(*from), who(*to), link.kind, link.name)
            })
            .collect()
    }

    #[test]
    fn what_is_the_same_is_counted() {
        let mut builder = Builder::default();
        let bus = link(Kind::Connection, b"/bus");
        builder.connection(&[7], &[1], &bus);
        builder.connection(&[7], &[1], &bus);
        builder.connection(&[7], &[1], &link(Kind::Waiting, b"/bus"));
        builder.connection(&[7], &[1], &link(Kind::Connection, b"/log"));
        builder.connection(&[1], &[7], &bus);
        let graph = builder.finish();
        assert_eq!(
            told(&graph),
            [
                "1 7 Connection /bus 1",
                "7 1 Connection /bus 2",
                "7 1 Connection /log 1",
                "7 1 Waiting /bus 1"
            ]
        );
    }

    #[test]
    fn a_pair_has_no_direction_and_within_a_process_it_is_no_edge() {
        let mut builder = Builder::default();
        let pair = link(Kind::Pair, b"");
        builder.connection(&[9], &[3], &pair);
        builder.connection(&[3], &[9], &pair);
        builder.connection(&[3], &[3], &pair);
        let graph = builder.finish();
        assert_eq!(told(&graph), ["3 9 Pair - 2"]);
        assert_eq!(graph.nodes.iter().map(|node| node.inside).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn a_pair_that_was_shared_by_fork_is_one_edge() {
        let mut builder = Builder::default();
        builder.connection(&[3, 9], &[3, 9], &link(Kind::Pair, b""));
        let graph = builder.finish();
        assert_eq!(told(&graph), ["3 9 Pair - 1"]);
        assert_eq!(graph.nodes.iter().map(|node| node.inside).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn an_end_that_nobody_holds_is_nobodys_and_a_shared_one_everybodys() {
        let mut builder = Builder::default();
        builder.connection(&[], &[5, 4], &link(Kind::Connection, b"/x"));
        builder.connection(&[], &[], &link(Kind::Pair, b""));
        let graph = builder.finish();
        assert_eq!(told(&graph), ["nobody 4 Connection /x 1", "nobody 5 Connection /x 1"]);
        assert_eq!(graph.nodes[2].holder, Holder::Nobody);
        assert_eq!(graph.nodes[2].inside, 1);
    }

    #[test]
    fn processes_and_listeners_are_told_in_any_order() {
        let name = UnixName::Abstract(b"x".to_vec());
        let tell: [fn(&mut Builder, &UnixName); 4] = [
            |builder, _| builder.process(4, b"server", Some("a.service")),
            |builder, name| builder.listener(&[4, 5], SocketType::Stream, name),
            |builder, name| builder.listener(&[4], SocketType::Stream, name),
            |builder, name| {
                let link = Link {
                    kind: Kind::Datagram,
                    socket_type: SocketType::Dgram,
                    name: name.clone(),
                };
                builder.connection(&[6], &[4], &link);
            },
        ];
        let (mut one, mut other) = (Builder::default(), Builder::default());
        tell.iter().for_each(|tell| tell(&mut one, &name));
        tell.iter().rev().for_each(|tell| tell(&mut other, &name));
        let graph = one.finish();
        assert_eq!(graph, other.finish());
        assert_eq!(graph.nodes.len(), 3);
        assert_eq!(graph.nodes[0].listeners.len(), 1);
        let unit = Some("a.service".to_owned());
        let holder = Holder::Process { pid: 4, comm: b"server".to_vec(), unit };
        assert_eq!(graph.nodes[0].holder, holder);
        let bytes = postcard::to_stdvec(&graph).expect("bytes");
        assert_eq!(postcard::from_bytes(&bytes), Ok(graph));
    }
}
