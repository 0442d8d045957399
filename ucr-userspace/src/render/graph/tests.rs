//! Graphs with hostile names, in all forms.

use std::io;

use super::*;
use crate::{
    model::UnixName,
    query::graph::{Builder, Graph, Link},
};

const HOSTILE: &[u8] = b"\0\"'<b>&amp;\\N\n]]>\x1b\xff";

fn link(kind: Kind, socket_type: SocketType, name: &[u8]) -> Link {
    Link { kind, socket_type, name: UnixName::from_sun_path(name) }
}

fn hostile() -> Graph {
    let mut builder = Builder::default();
    builder.process(7, b"a\"<\n", Some("u\"&\n.service"));
    builder.listener(&[7], SocketType::Stream, &UnixName::from_sun_path(HOSTILE));
    builder.connection(&[9], &[7], &link(Kind::Connection, SocketType::Stream, HOSTILE));
    builder.connection(&[9], &[7], &link(Kind::Waiting, SocketType::Seqpacket, HOSTILE));
    builder.connection(&[], &[9], &link(Kind::Pair, SocketType::Dgram, b""));
    builder.connection(&[9], &[9], &link(Kind::Pair, SocketType::Stream, b""));
    builder.finish()
}

fn written<E>(write: impl Fn(&Graph, &mut Vec<u8>) -> Result<(), E>, graph: &Graph) -> String
where
    E: std::fmt::Debug,
{
    let mut out = Vec::new();
    write(graph, &mut out).expect("written");
    String::from_utf8(out).expect("text")
}

/// What stands between quotes, and what is left of the text without it.
fn quoted(text: &str) -> (Vec<String>, String) {
    let (mut strings, mut rest) = (Vec::new(), String::new());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '"' {
            rest.push(c);
            continue;
        }
        let mut string = String::new();
        loop {
            match chars.next().expect("a quote that ends") {
                '"' => break,
                '\\' => string.extend(['\\', chars.next().expect("an escape")]),
                c => string.push(c),
            }
        }
        strings.push(string);
    }
    (strings, rest)
}

#[test]
fn no_name_gets_out_of_its_quotes_in_dot() {
    let text = written(dot::write, &hostile());
    let (strings, rest) = quoted(&text);
    // Only our own escapes: no `\N` of Graphviz's.
    for string in &strings {
        let mut chars = string.chars();
        while let Some(c) = chars.next() {
            assert!(c != '\\' || chars.next().is_some_and(|c| "\"\\nl".contains(c)), "{string}");
        }
        assert!(!string.replace("&amp;", "").contains('&'), "{string}");
    }
    assert!(!rest.contains(['<', '&', '\'', '\\']), "{rest}");
    assert_eq!(rest.matches("->").count(), 3);
    assert!(rest.contains("n1 -> n0") && rest.contains("n1 -> n2"));
}

#[test]
fn dot_says_what_is_in_the_graph() {
    let mut builder = Builder::default();
    builder.process(7, b"server", Some("a.service"));
    builder.listener(&[7], SocketType::Stream, &UnixName::from_sun_path(b"/run/x"));
    for _ in 0..2 {
        builder.connection(&[9], &[7], &link(Kind::Connection, SocketType::Stream, b"/run/x"));
    }
    let lines = [
        "digraph \"unix sockets\" {",
        "  graph [rankdir=LR, charset=\"UTF-8\"];",
        "  node [shape=box, style=rounded, fontname=\"monospace\", fontsize=10];",
        "  edge [fontname=\"monospace\", fontsize=9];",
        r#"  n0 [label="server\npid 7\na.service\n/run/x\l", tooltip="server\npid 7\na.service\nat /run/x"];"#,
        r#"  n1 [label="process 9\npid 9", tooltip="process 9\npid 9"];"#,
        r#"  n1 -> n0 [label="/run/x x2", tooltip="process 9 [9] -> server [7]: /run/x x2", labeltooltip="process 9 [9] -> server [7]: /run/x x2"];"#,
        "}",
    ];
    assert_eq!(written(dot::write, &builder.finish()).lines().collect::<Vec<_>>(), lines);
}

/// Checks that a document is well-formed, as far as ours need it: tags in pairs, quotes around
/// attributes, known entities. Returns all text, without the tags.
fn text_of(xml: &str) -> String {
    let mut open = Vec::new();
    let mut text = String::new();
    let mut rest = xml;
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        let (tag, behind) = tag.split_once('>').expect("a tag that ends");
        rest = behind;
        let (attributes, name) = quoted(tag);
        assert!(attributes.iter().all(|value| !value.contains(['<', '&'])), "{tag}");
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop().as_deref(), Some(name), "{tag}"),
            None if name.ends_with('/') => {}
            None => open.push(name.split(' ').next().unwrap_or_default().to_owned()),
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty());
    for entity in text.split('&').skip(1) {
        let name = entity.split_once(';').expect("an entity that ends").0;
        assert!(["amp", "lt", "gt", "quot", "#39"].contains(&name), "{name}");
    }
    assert!(text.chars().all(|c| !c.is_control() || c == '\n'));
    text
}

#[test]
fn no_name_gets_out_of_its_element_in_svg() {
    let text = text_of(&written(svg::write, &hostile()));
    let label = r"@&quot;&#39;&lt;b&gt;&amp;amp;\\N\x0a]]&gt;\x1b\xff (seqpacket), waiting";
    assert!(text.contains(label), "{text}");
    assert!(text.contains("1 connection within"));
    assert!(text.contains("nobody"));
}

#[test]
fn a_drawing_of_nothing_is_a_drawing() {
    assert!(text_of(&written(svg::write, &Graph::default())).contains("no sockets"));
}

#[test]
fn the_same_graph_is_always_drawn_alike() {
    assert_eq!(written(svg::write, &hostile()), written(svg::write, &hostile()));
}

#[test]
fn many_listeners_are_named_only_where_one_points() {
    let mut builder = Builder::default();
    for nth in 0..9 {
        let name = UnixName::Pathname(format!("/run/{nth}").into());
        builder.listener(&[7], SocketType::Stream, &name);
    }
    let text = text_of(&written(svg::write, &builder.finish()));
    assert!(text.contains("and 4 more"));
    assert_eq!(text.matches("/run/4").count(), 2);
    assert_eq!(text.matches("/run/5").count(), 1);
}

#[test]
fn json_is_exact() {
    let write = |graph: &Graph, out: &mut Vec<u8>| -> io::Result<()> { json::write(graph, out) };
    let text = written(write, &hostile());
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let hex: String = HOSTILE.iter().skip(1).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(value["nodes"][0]["comm"]["hex"], "61223c0a");
    assert_eq!(value["nodes"][0]["listeners"][0]["name"]["hex"], hex);
    assert_eq!(value["nodes"][1]["inside"], 1);
    assert_eq!(value["nodes"][2]["kind"], "nobody");
    let edges = value["edges"].as_array().expect("edges");
    let kinds: Vec<_> = edges.iter().map(|edge| edge["kind"].as_str()).collect();
    assert_eq!(kinds, [Some("connection"), Some("waiting"), Some("pair")]);
    assert_eq!(edges[0]["from"], value["nodes"][1]["id"]);
    assert_eq!(edges[0]["name"]["kind"], "abstract");
}

#[test]
fn an_edge_that_leads_nowhere_is_not_drawn() {
    let mut graph = hostile();
    graph.nodes.truncate(1);
    text_of(&written(svg::write, &graph));
    assert!(!written(dot::write, &graph).contains("->"));
}
