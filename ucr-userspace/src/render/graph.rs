//! A graph of processes as a drawing, for Graphviz and as JSON. Here is what all of them say about a
//! node and an edge.

pub mod dot;
pub mod json;
mod layout;
pub mod svg;

use std::fmt::Write as _;

use crate::{
    model::{
        Count, SocketType,
        name::{Escaped, OneLine},
    },
    query::graph::{Edge, Holder, Kind, Node},
};

/// So many listeners are named in a drawing; the others are counted there, and named in what is shown
/// when one points at the node.
const LISTENERS_SHOWN: usize = 5;

/// What a node is called. Printable.
fn title(node: &Node) -> String {
    match &node.holder {
        Holder::Process { pid, comm, .. } if comm.is_empty() => format!("process {pid}"),
        Holder::Process { comm, .. } => Escaped(comm).to_string(),
        Holder::Nobody => "nobody".to_owned(),
    }
}

/// What else there is to say about a node, in lines, but for its listeners. Printable.
fn details(node: &Node) -> Vec<String> {
    let mut lines = Vec::new();
    match &node.holder {
        Holder::Process { pid, unit, .. } => {
            lines.push(format!("pid {pid}"));
            lines.extend(unit.as_deref().map(|unit| OneLine(unit).to_string()));
        }
        Holder::Nobody => lines.push("in flight, or the kernel's".to_owned()),
    }
    if node.inside > 0 {
        lines.push(format!("{} within", Count(node.inside, "connection")));
    }
    lines
}

/// A node's listeners, in lines. Printable.
fn listeners(node: &Node) -> impl ExactSizeIterator<Item = String> {
    node.listeners.iter().map(|listener| match listener.socket_type {
        SocketType::Stream => listener.name.to_string(),
        other => format!("{} ({other})", listener.name),
    })
}

/// The listeners that a drawing names, and how many others there are, in lines.
fn few_listeners(node: &Node) -> Vec<String> {
    let all = listeners(node);
    let others = all.len().saturating_sub(LISTENERS_SHOWN);
    let mut lines: Vec<String> = all.take(LISTENERS_SHOWN).collect();
    if others > 0 {
        lines.push(format!("and {others} more"));
    }
    lines
}

/// Everything about a node, a line each. Printable.
fn node_text(node: &Node) -> String {
    let lines = details(node).into_iter().chain(listeners(node).map(|name| format!("at {name}")));
    std::iter::once(title(node)).chain(lines).collect::<Vec<_>>().join("\n")
}

/// An edge in a few words: what is not usual about it. Printable.
fn edge_label(edge: &Edge) -> String {
    let mut label = match (edge.link.kind, edge.link.name.is_named()) {
        (_, true) => edge.link.name.to_string(),
        (Kind::Pair, false) => "pair".to_owned(),
        (_, false) => "unnamed".to_owned(),
    };
    if edge.link.socket_type != SocketType::Stream {
        append(&mut label, format_args!(" ({})", edge.link.socket_type));
    }
    if edge.count > 1 {
        append(&mut label, format_args!(" x{}", edge.count));
    }
    if edge.link.kind == Kind::Waiting {
        append(&mut label, format_args!(", waiting"));
    }
    label
}

/// An edge and its ends, on a line. Printable.
fn edge_text(edge: &Edge, from: &Node, to: &Node) -> String {
    let arrow = match edge.link.kind {
        Kind::Pair => "--",
        _ => "->",
    };
    let who = |node: &Node| match node.holder {
        Holder::Process { pid, .. } => format!("{} [{pid}]", title(node)),
        Holder::Nobody => title(node),
    };
    format!("{} {arrow} {}: {}", who(from), who(to), edge_label(edge))
}

fn append(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _: std::fmt::Result = text.write_fmt(arguments);
}

#[cfg(test)]
mod tests;
