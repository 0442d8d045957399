//! A graph for Graphviz (`dot -Tsvg`).

use std::io::{self, Write};

use super::{details, edge_label, edge_text, few_listeners, node_text, title};
use crate::query::graph::{Edge, Graph, Holder, Kind, Node};

/// Writes the graph in the DOT language.
///
/// # Errors
/// The writer's.
pub fn write(graph: &Graph, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "digraph \"unix sockets\" {{")?;
    writeln!(out, "  graph [rankdir=LR, charset=\"UTF-8\"];")?;
    writeln!(out, "  node [shape=box, style=rounded, fontname=\"monospace\", fontsize=10];")?;
    writeln!(out, "  edge [fontname=\"monospace\", fontsize=9];")?;
    for (index, node) in graph.nodes.iter().enumerate() {
        write_node(index, node, out)?;
    }
    for edge in &graph.edges {
        let ends = (graph.nodes.get(edge.from.0), graph.nodes.get(edge.to.0));
        if let (Some(from), Some(to)) = ends {
            write_edge(edge, from, to, out)?;
        }
    }
    writeln!(out, "}}")
}

fn write_node(index: usize, node: &Node, out: &mut impl Write) -> io::Result<()> {
    write!(out, "  n{index} [label=\"{}", escaped(&title(node)))?;
    for line in details(node) {
        write!(out, "\\n{}", escaped(&line))?;
    }
    // Those are left-justified.
    for (nth, line) in few_listeners(node).iter().enumerate() {
        write!(out, "{}{}\\l", if nth == 0 { "\\n" } else { "" }, escaped(line))?;
    }
    write!(out, "\", tooltip=\"{}\"", escaped(&node_text(node)))?;
    match node.holder {
        Holder::Process { .. } => writeln!(out, "];"),
        Holder::Nobody => writeln!(out, ", style=\"rounded,dashed\"];"),
    }
}

fn write_edge(edge: &Edge, from: &Node, to: &Node, out: &mut impl Write) -> io::Result<()> {
    let look = match edge.link.kind {
        Kind::Connection => "",
        Kind::Pair => ", dir=none",
        Kind::Datagram => ", style=dotted",
        Kind::Waiting => ", style=dashed",
    };
    let (label, text) = (edge_label(edge), edge_text(edge, from, to));
    let (label, text) = (escaped(&label), escaped(&text));
    writeln!(
        out,
        "  n{} -> n{} [label=\"{label}\", tooltip=\"{text}\", labeltooltip=\"{text}\"{look}];",
        edge.from.0, edge.to.0
    )
}

/// A text between quotes. A backslash would begin an escape, also one of Graphviz's own (`\N` is the
/// node's name), and `&` one of HTML's characters, which Graphviz takes everywhere.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '&' => escaped.push_str("&amp;"),
            _ => escaped.push(c),
        }
    }
    escaped
}
