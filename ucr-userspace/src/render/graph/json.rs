//! A graph as JSON, with exact names.

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    model::{
        SocketType,
        name::{Bytes, Exact},
    },
    query::graph::{Edge, Graph, Holder, Kind, Node, NodeId},
};

/// Writes the graph as one JSON document: `nodes`, and `edges` between them by `id`.
///
/// # Errors
/// The writer's.
pub fn write(graph: &Graph, out: &mut impl Write) -> io::Result<()> {
    let document = Document {
        nodes: (0..).zip(&graph.nodes).map(|(id, node)| NodeObject::of(id, node)).collect(),
        edges: graph.edges.iter().map(EdgeObject::of).collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

#[derive(Serialize)]
struct Document<'a> {
    nodes: Vec<NodeObject<'a>>,
    edges: Vec<EdgeObject<'a>>,
}

#[derive(Serialize)]
struct NodeObject<'a> {
    id: NodeId,
    #[serde(flatten)]
    holder: HolderObject<'a>,
    listeners: Vec<ListenerObject<'a>>,
    inside: u64,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum HolderObject<'a> {
    Process { pid: u32, comm: Bytes<'a>, unit: Option<&'a str> },
    Nobody,
}

#[derive(Serialize)]
struct ListenerObject<'a> {
    r#type: SocketType,
    name: Exact<'a>,
}

#[derive(Serialize)]
struct EdgeObject<'a> {
    from: NodeId,
    to: NodeId,
    kind: Kind,
    r#type: SocketType,
    name: Exact<'a>,
    count: u64,
}

impl<'a> NodeObject<'a> {
    fn of(id: usize, node: &'a Node) -> Self {
        let holder = match &node.holder {
            Holder::Process { pid, comm, unit } => {
                HolderObject::Process { pid: *pid, comm: Bytes(comm), unit: unit.as_deref() }
            }
            Holder::Nobody => HolderObject::Nobody,
        };
        let listeners = node.listeners.iter().map(|listener| ListenerObject {
            r#type: listener.socket_type,
            name: Exact(&listener.name),
        });
        Self { id: NodeId(id), holder, listeners: listeners.collect(), inside: node.inside }
    }
}

impl<'a> EdgeObject<'a> {
    fn of(edge: &'a Edge) -> Self {
        let &Edge { from, to, ref link, count } = edge;
        Self { from, to, kind: link.kind, r#type: link.socket_type, name: Exact(&link.name), count }
    }
}
