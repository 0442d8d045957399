//! `ucr graph`: who talks with whom?

use serde_json::{Value, json};
use ucr_tests::{Need, Victim, needs};

use super::{ODD, Scene, bytes, in_every_way, is_safe, odd_victim};

/// The process's node.
fn node(graph: &Value, victim: &Victim) -> Value {
    let nodes = graph["nodes"].as_array().expect("nodes");
    let node = nodes.iter().find(|node| node["pid"] == victim.pid());
    node.unwrap_or_else(|| panic!("no node: {graph:#}")).clone()
}

/// Edges from one to another: kind, type, name and count.
fn edges(graph: &Value, from: &Victim, to: &Victim) -> Vec<Value> {
    let (from, to) = (&node(graph, from)["id"], &node(graph, to)["id"]);
    let edges = graph["edges"].as_array().expect("edges").iter();
    let between = edges.filter(|edge| (&edge["from"], &edge["to"]) == (from, to));
    between
        .map(|edge| json!([edge["kind"], edge["type"], edge["name"]["hex"], edge["count"]]))
        .collect()
}

/// Looks whether all that is opened in XML is closed, and all that has to be escaped is.
fn is_well_formed(xml: &str) -> bool {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = xml;
    while let Some(at) = rest.find('<') {
        let (text, tag) = rest.split_at(at);
        // A `>` alone is allowed in text; `&` begins a character.
        if text.split('&').skip(1).any(|part| !is_reference(part)) {
            return false;
        }
        let Some((tag, after)) = tag[1..].split_once('>') else { return false };
        rest = after;
        let name = tag.split([' ', '/', '\n']).find(|name| !name.is_empty()).unwrap_or_default();
        if tag.starts_with('?') || tag.starts_with('!') || tag.ends_with('/') {
            continue;
        }
        if tag.starts_with('/') {
            if open.pop() != Some(name) {
                return false;
            }
        } else {
            open.push(name);
        }
    }
    open.is_empty() && rest.trim().is_empty() && is_safe(xml)
}

fn is_reference(text: &str) -> bool {
    let Some((name, _)) = text.split_once(';') else { return false };
    matches!(name, "amp" | "lt" | "gt" | "quot" | "apos") || name.starts_with('#')
}

/// Looks whether quotes and brackets of dot are in pairs.
fn is_balanced(dot: &str) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_i32, false, false);
    for c in dot.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return false;
        }
    }
    depth == 0 && !quoted && is_safe(dot)
}

#[test]
fn what_is_broken_is_noticed() {
    assert!(is_well_formed("<?xml?><a b='c'><d/>x &lt; &amp;</a>\n"));
    for broken in ["<a>", "<a></b>", "<a>&</a>", "<a>\u{1b}</a>", "<a></a>x", "<a"] {
        assert!(!is_well_formed(broken), "{broken}");
    }
    assert!(is_balanced("digraph {a [label=\"}\\\"]\"];}"));
    for broken in ["{", "}{", "{[\"]}", "{\"\u{1b}\"}"] {
        assert!(!is_balanced(broken), "{broken}");
    }
}

#[test]
fn processes_and_their_connections_are_drawn() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    in_every_way(|scene| {
        let (mut server, mut one, mut other) =
            (odd_victim(scene.world), scene.world.victim(), scene.world.victim());
        let path = scene.world.path_name("<&\"'\\\n>]]>");
        let hidden = scene.world.abstract_name(b"\0--><svg>\xff");
        let listener = server.listener("stream", &path, 4);
        let receiver = server.socket("dgram");
        server.bind(receiver, &hidden);
        for client in [&mut one, &mut other] {
            client.client("stream", &path);
            server.accept(listener);
        }
        one.client("stream", &path);
        server.accept(listener);
        other.client("stream", &path);
        one.client("dgram", &hidden);
        one.pair("seqpacket");

        let pids = [&server, &one, &other].map(|victim| victim.pid().to_string());
        let only = ["--pid", &pids[0], "--pid", &pids[1], "--pid", &pids[2]];
        let drawn = |format: &str| {
            scene.ask(&[&["graph", "--format", format], only.as_slice()].concat()).done().stdout
        };
        let graph: Value = serde_json::from_str(&drawn("json")).expect("JSON");
        assert_eq!(bytes(&node(&graph, &server)["comm"]), ODD.as_bytes());
        let listeners = &node(&graph, &server)["listeners"];
        let names: Vec<_> = listeners.as_array().expect("a list").iter().collect();
        assert_eq!(names.len(), 2, "{listeners:#}");
        assert_eq!(node(&graph, &one)["inside"], 1, "{graph:#}");
        let hex = |name: &[u8]| ucr_tests::world::hex(name);
        let (path_hex, hidden_hex) = (hex(&path), hex(&hidden[1..]));
        let mut of_one = edges(&graph, &one, &server);
        of_one.sort_by_key(Value::to_string);
        assert_eq!(
            of_one,
            [
                json!(["connection", "stream", path_hex, 2]),
                json!(["datagram", "dgram", hidden_hex, 1])
            ]
        );
        let mut of_other = edges(&graph, &other, &server);
        of_other.sort_by_key(Value::to_string);
        assert_eq!(
            of_other,
            [
                json!(["connection", "stream", path_hex, 1]),
                json!(["waiting", "stream", path_hex, 1])
            ]
        );
        assert_eq!(
            edges(&graph, &server, &one),
            Vec::<Value>::new(),
            "from the client to the server"
        );

        let dot = drawn("dot");
        assert!(is_balanced(&dot), "{dot}");
        let edge = |victim: &Victim| {
            format!("n{} -> n{} [", node(&graph, victim)["id"], node(&graph, &server)["id"])
        };
        assert_eq!(dot.matches(&edge(&one)).count(), 2, "{dot}");
        assert_eq!(dot.matches(&edge(&other)).count(), 2, "{dot}");
        let svg = drawn("svg");
        assert!(is_well_formed(&svg) && svg.starts_with("<"), "{svg}");
        for pid in &pids {
            assert!(dot.contains(pid.as_str()) && svg.contains(pid.as_str()), "{pid}: {dot} {svg}");
        }
        assert!(svg.contains("o\\x1b\\x0a&quot;&lt;&amp;\\\\"), "{svg}");
        let all = drawn_all(scene);
        assert!(is_well_formed(&all[0]) && is_balanced(&all[1]), "of everybody, too");

        // Less of it.
        let typed = super::typed(&hidden);
        let less = scene.ask(&["graph", "--format", "json", "--name", &typed]).done().json();
        assert_eq!(less["nodes"].as_array().map(Vec::len), Some(1), "the receiver's: {less:#}");
        let less = scene.ask(&["graph", "--format", "json", "-Q", "peer.name", "--pid", &pids[1]]);
        assert_eq!(edges(&less.done().json(), &one, &server).len(), 2);
    });
}

/// Of all sockets that there are.
fn drawn_all(scene: &Scene<'_>) -> [String; 2] {
    ["svg", "dot"].map(|format| scene.ask(&["graph", "--format", format]).done().stdout)
}
