//! A graph as a drawing (SVG) that needs nothing else: no Graphviz, no fonts, no scripts.
//!
//! It is light or dark as whoever looks at it likes it, and tells more about what one points at.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
};

use super::{
    details, edge_label, edge_text, few_listeners,
    layout::{Bend, Layout, Place, Size, arrange},
    node_text, title,
};
use crate::query::graph::{Edge, Graph, Holder, Kind, Node, NodeId};

/// Around everything.
const MARGIN: i64 = 24;
/// Between a box and its text.
const PADDING: i64 = 8;
/// From a line in a box to the next.
const LINE: i64 = 14;
/// Between two edges that enter a box.
const ENTERING: i64 = 6;
/// Between two edges that leave a box: they have labels.
const LEAVING: i64 = 14;
/// The straight end of an edge, with its arrow.
const ARROW: i64 = 12;
/// A box is at most so wide, in characters.
const WIDEST_LINE: usize = 34;
/// A label is at most so long, in characters.
const LONGEST_LABEL: usize = 30;
/// Below the drawing, for what the lines mean.
const LEGEND: i64 = 40;

/// The kinds of edges, with their names in the style sheet and what they mean.
const KINDS: [(Kind, &str, &str); 4] = [
    (Kind::Connection, "connection", "connection, to its server"),
    (Kind::Pair, "pair", "pair"),
    (Kind::Datagram, "datagram", "datagrams, to their receiver"),
    (Kind::Waiting, "waiting", "connection that waits to be accepted"),
];

/// Light, and dark where that is preferred. The kinds of edges differ in more than their colours.
const STYLE: &str = "
text { font: 11px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #57606a; }
text.title { font-weight: bold; fill: #1f2328; }
text.at { fill: #0550ae; }
.back { fill: #ffffff; }
.box { fill: #f6f8fa; stroke: #8c959f; }
.nobody .box { stroke-dasharray: 4 3; fill: #ffffff; }
.edge text { font-size: 9px; paint-order: stroke; stroke: #ffffff; stroke-width: 3px; }
.edge path { fill: none; stroke-width: 1.2; stroke-opacity: 0.8; }
.edge:hover path { stroke-width: 3; stroke-opacity: 1; }
.node:hover .box { stroke-width: 2; }
.connection { stroke: #0969da; } .head.connection { fill: #0969da; }
.pair { stroke: #1a7f37; }
.datagram { stroke: #8250df; stroke-dasharray: 1 3; stroke-linecap: round; } .head.datagram { fill: #8250df; }
.waiting { stroke: #bc4c00; stroke-dasharray: 6 4; } .head.waiting { fill: #bc4c00; }
.head { stroke: none; }
@media (prefers-color-scheme: dark) {
text { fill: #9198a1; }
text.title { fill: #f0f6fc; }
text.at { fill: #79c0ff; }
.back { fill: #0d1117; }
.box { fill: #151b23; stroke: #656c76; }
.nobody .box { fill: #0d1117; }
.edge text { stroke: #0d1117; }
.connection { stroke: #4493f8; } .head.connection { fill: #4493f8; }
.pair { stroke: #3fb950; }
.datagram { stroke: #ab7df8; } .head.datagram { fill: #ab7df8; }
.waiting { stroke: #db6d28; } .head.waiting { fill: #db6d28; }
}
";

/// Writes the graph as an SVG document.
///
/// # Errors
/// The writer's.
pub fn write(graph: &Graph, out: &mut impl Write) -> io::Result<()> {
    let curves = curves(graph);
    let boxes: Vec<Card<'_>> = graph.nodes.iter().map(Card::of).collect();
    let sizes = sizes(&boxes, &curves);
    let ends: Vec<(usize, usize)> = curves.iter().map(|curve| (curve.from, curve.to)).collect();
    let layout = arrange(&sizes, &ends);
    let kinds = KINDS.iter().filter(|(kind, ..)| curves.iter().any(|curve| curve.kind == *kind));
    let kinds: Vec<_> = kinds.collect();
    let legend = kinds.iter().map(|(_, _, meaning)| 60 + text_width(meaning)).sum();
    let width = layout.width.max(legend).max(200) + 2 * MARGIN;
    let height = layout.height + LEGEND + 2 * MARGIN;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">"
    )?;
    writeln!(out, "<title>Unix sockets between processes</title>")?;
    writeln!(out, "<style>{STYLE}</style>\n<defs>")?;
    for (kind, class, _) in &kinds {
        if *kind != Kind::Pair {
            writeln!(
                out,
                "<marker id=\"ucr-{class}\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" \
                 markerWidth=\"8\" markerHeight=\"8\" markerUnits=\"userSpaceOnUse\" \
                 orient=\"auto\"><path class=\"head {class}\" d=\"M0 0L8 4L0 8z\"/></marker>"
            )?;
        }
    }
    writeln!(out, "</defs>\n<rect class=\"back\" width=\"{width}\" height=\"{height}\"/>")?;
    let ports = ports(&curves, &layout, &sizes);
    for ((curve, (start, end)), bends) in curves.iter().zip(ports).zip(&layout.bends) {
        // Straight below its label; but the room on the left is for those that come.
        let straight = match start.side {
            Side::Right => sizes.get(curve.from).map_or(0, |size| size.margin),
            Side::Left => ARROW,
        };
        let way = way(start, end, straight, bends);
        write_curve(curve, start, &way, out)?;
    }
    for ((shown, place), size) in boxes.iter().zip(&layout.places).zip(&sizes) {
        shown.write(*place, *size, out)?;
    }
    write_legend(&kinds, layout.height + 2 * MARGIN, out)?;
    if graph.nodes.is_empty() {
        writeln!(out, "<text x=\"{MARGIN}\" y=\"{MARGIN}\">no sockets</text>")?;
    }
    writeln!(out, "</svg>")
}

/// A box and what is written in it.
struct Card<'a> {
    node: &'a Node,
    title: String,
    /// Each with its class in the style sheet.
    lines: Vec<(&'static str, String)>,
}

impl<'a> Card<'a> {
    fn of(node: &'a Node) -> Self {
        let line = |class| move |line: String| (class, cut(&line, WIDEST_LINE));
        let listeners = few_listeners(node).into_iter().map(line("at"));
        let lines = details(node).into_iter().map(line("about")).chain(listeners).collect();
        Self { node, title: cut(&title(node), WIDEST_LINE), lines }
    }

    fn write(&self, place: Place, size: Size, out: &mut impl Write) -> io::Result<()> {
        let class = match self.node.holder {
            Holder::Process { .. } => "node",
            Holder::Nobody => "node nobody",
        };
        let (x, mut y) = (place.x + MARGIN, place.y + MARGIN);
        writeln!(out, "<g class=\"{class}\"><title>{}</title>", Xml(&node_text(self.node)))?;
        writeln!(
            out,
            "<rect class=\"box\" x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"6\"/>",
            size.width, size.height
        )?;
        // In the middle, if edges have made the box higher than its text.
        let text = LINE * whole(self.lines.len() + 1);
        y += (size.height - text) / 2 + LINE - 4;
        let x = x + PADDING;
        write!(out, "<text class=\"title\" x=\"{x}\" y=\"{y}\">{}</text>", Xml(&self.title))?;
        for (class, line) in &self.lines {
            y += LINE;
            write!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", Xml(line))?;
        }
        writeln!(out, "</g>")
    }
}

/// All edges of one kind from one box to another: one line in the drawing.
struct Curve {
    from: usize,
    to: usize,
    kind: Kind,
    class: &'static str,
    label: String,
    /// What each of them is, a line each.
    text: String,
}

fn curves(graph: &Graph) -> Vec<Curve> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for edge in &graph.edges {
        groups.entry((edge.from, edge.to, edge.link.kind)).or_default().push(edge);
    }
    let curve = |((from, to, kind), edges): ((NodeId, NodeId, Kind), Vec<&Edge>)| {
        let ends = (graph.nodes.get(from.0)?, graph.nodes.get(to.0)?);
        let texts: Vec<String> = edges.iter().map(|edge| edge_text(edge, ends.0, ends.1)).collect();
        let first = cut(&edge_label(edges.first()?), LONGEST_LABEL);
        let label = match edges.len() - 1 {
            0 => first,
            others => format!("{first} +{others}"),
        };
        let (_, class, _) = KINDS.iter().find(|(known, ..)| *known == kind)?;
        Some(Curve { from: from.0, to: to.0, kind, class, label, text: texts.join("\n") })
    };
    groups.into_iter().filter_map(curve).collect()
}

/// How large the boxes are: for their text, and for the edges at their sides.
fn sizes(boxes: &[Card<'_>], curves: &[Curve]) -> Vec<Size> {
    let mut sizes: Vec<Size> = boxes
        .iter()
        .map(|shown| {
            let longest =
                shown.lines.iter().map(|(_, line)| text_width(line)).max().unwrap_or_default();
            Size {
                width: longest.max(text_width(&shown.title)) + 2 * PADDING,
                height: LINE * whole(shown.lines.len() + 1) + PADDING,
                margin: 0,
            }
        })
        .collect();
    let mut sides = vec![(0, 0); boxes.len()];
    for curve in curves {
        if let Some((leaving, _)) = sides.get_mut(curve.from) {
            *leaving += LEAVING;
        }
        if let Some((_, entering)) = sides.get_mut(curve.to) {
            *entering += ENTERING;
        }
        if let Some(size) = sizes.get_mut(curve.from) {
            size.margin = size.margin.max(label_width(&curve.label));
        }
    }
    for (size, (leaving, entering)) in sizes.iter_mut().zip(sides) {
        size.height = size.height.max(leaving + PADDING).max(entering + PADDING);
    }
    sizes
}

/// Where a curve begins or ends, and in which direction it goes from there.
#[derive(Clone, Copy)]
struct Port {
    x: i64,
    y: i64,
    side: Side,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Left,
    Right,
}

/// Who wants a port at some side of a box: in the order of the fields, from the top.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seat {
    /// How high that is to which the curve goes from here.
    other: i64,
    curve: usize,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Start,
    End,
}

/// Where the curves begin and end: on the sides that face each other, in the order of what is at
/// their other ends.
fn ports(curves: &[Curve], layout: &Layout, sizes: &[Size]) -> Vec<(Port, Port)> {
    let place = |node: usize| layout.places.get(node).copied().unwrap_or_default();
    let size = |node: usize| sizes.get(node).copied().unwrap_or_default();
    let sides = |curve: &Curve| match place(curve.from).x <= place(curve.to).x {
        true => (Side::Right, Side::Left),
        false => (Side::Left, Side::Right),
    };
    let mut at: BTreeMap<(usize, Side), Vec<Seat>> = BTreeMap::new();
    for (curve, one) in curves.iter().enumerate() {
        let middle = |node| place(node).y + size(node).height / 2;
        let (start, end) = sides(one);
        let bends = layout.bends.get(curve).map_or(&[][..], Vec::as_slice);
        let seat = |node, bend: Option<&Bend>, end| Seat {
            other: bend.map_or(middle(node), |bend| bend.y),
            curve,
            end,
        };
        at.entry((one.from, start)).or_default().push(seat(one.to, bends.first(), End::Start));
        at.entry((one.to, end)).or_default().push(seat(one.from, bends.last(), End::End));
    }
    let mut heights: BTreeMap<(usize, End), i64> = BTreeMap::new();
    for ((node, _), mut seats) in at {
        seats.sort_unstable();
        let step = |nth| size(node).height * (2 * whole(nth) + 1) / (2 * whole(seats.len()));
        for (nth, seat) in seats.iter().enumerate() {
            heights.insert((seat.curve, seat.end), place(node).y + step(nth));
        }
    }
    let port = |index, end, node: usize, side| {
        let y = heights.get(&(index, end)).copied().unwrap_or_default();
        let x = match side {
            Side::Left => place(node).x,
            Side::Right => place(node).x + size(node).width,
        };
        Port { x: x + MARGIN, y: y + MARGIN, side }
    };
    let both = |(index, curve): (usize, &Curve)| {
        let (start, end) = sides(curve);
        (port(index, End::Start, curve.from, start), port(index, End::End, curve.to, end))
    };
    curves.iter().enumerate().map(both).collect()
}

impl Port {
    /// So far away from the box.
    fn away(self, distance: i64) -> i64 {
        match self.side {
            Side::Left => self.x - distance,
            Side::Right => self.x + distance,
        }
    }
}

/// A curve as the data of a path: straight from its start, past its label, through the columns that it
/// passes, and straight to its end.
fn way(start: Port, end: Port, straight: i64, bends: &[Bend]) -> String {
    let mut at = (start.away(straight), start.y);
    let mut way = format!("M{} {}H{}", start.x, start.y, at.0);
    let arrival = end.away(ARROW);
    let passes = bends.iter().map(|bend| {
        let (left, right, y) = (bend.left + MARGIN, bend.right + MARGIN, bend.y + MARGIN);
        match start.side {
            Side::Right => (left, y, right),
            Side::Left => (right, y, left),
        }
    });
    for (x, y, beyond) in passes.chain([(arrival, end.y, end.x)]) {
        let swing = ((x - at.0).abs() / 2).max(24);
        let swing = if start.side == Side::Right { swing } else { -swing };
        let curve = format!("C{} {} {} {y} {x} {y}H{beyond}", at.0 + swing, at.1, x - swing);
        way.push_str(&curve);
        at = (beyond, y);
    }
    way
}

fn write_curve(curve: &Curve, start: Port, way: &str, out: &mut impl Write) -> io::Result<()> {
    let class = curve.class;
    write!(out, "<g class=\"edge\"><title>{}</title>", Xml(&curve.text))?;
    write!(out, "<path class=\"{class}\" d=\"{way}\"")?;
    if curve.kind != Kind::Pair {
        write!(out, " marker-end=\"url(#ucr-{class})\"")?;
    }
    let anchor = match start.side {
        Side::Left => "end",
        Side::Right => "start",
    };
    writeln!(
        out,
        "/><text x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text></g>",
        start.away(5),
        start.y - 4,
        Xml(&curve.label)
    )
}

fn write_legend(kinds: &[&(Kind, &str, &str)], y: i64, out: &mut impl Write) -> io::Result<()> {
    let mut x = MARGIN;
    for (kind, class, meaning) in kinds {
        write!(out, "<g class=\"edge\"><path class=\"{class}\" d=\"M{x} {y}h32\"")?;
        if *kind != Kind::Pair {
            write!(out, " marker-end=\"url(#ucr-{class})\"")?;
        }
        writeln!(out, "/></g><text x=\"{}\" y=\"{}\">{meaning}</text>", x + 40, y + 4)?;
        x += 60 + text_width(meaning);
    }
    Ok(())
}

/// A text of at most so many characters; of a longer one the middle is left out, since a path's
/// beginning and end tell most.
fn cut(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let head = most.saturating_sub(1) / 2;
    let tail = most.saturating_sub(1) - head;
    let (head, tail) = (text.chars().take(head), text.chars().skip(count - tail));
    head.chain(['…']).chain(tail).collect()
}

/// Of a text in a box: 0.6 em for a character, in nearly all monospaced fonts.
fn text_width(text: &str) -> i64 {
    whole(text.chars().count()) * 66 / 10 + 1
}

/// Of an edge's label.
fn label_width(text: &str) -> i64 {
    whole(text.chars().count()) * 54 / 10 + 10
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Text in an XML document. It is printable already: XML has no way to write control characters.
struct Xml<'a>(&'a str);

impl fmt::Display for Xml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.0.split_inclusive(['&', '<', '>', '"', '\'']) {
            let plain = piece.trim_end_matches(['&', '<', '>', '"', '\'']);
            f.write_str(plain)?;
            f.write_str(match piece.strip_prefix(plain) {
                Some("&") => "&amp;",
                Some("<") => "&lt;",
                Some(">") => "&gt;",
                Some("\"") => "&quot;",
                Some("'") => "&#39;",
                _ => "",
            })?;
        }
        Ok(())
    }
}
