//! Where the boxes of a graph stand: clients on the left, servers on the right; and how edges get from
//! one to the other.
//!
//! Each connected part is laid out by itself, in columns (Sugiyama's method, made simple), and the
//! parts are put on shelves. All numbers are whole pixels, nothing is random, nothing recursive: the
//! same graph always gives the same drawing.

mod net;

use std::{cmp::Reverse, collections::BTreeMap};

use net::Net;

/// A box before it has a place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    pub(super) width: i64,
    pub(super) height: i64,
    /// Room for labels of edges on its right side.
    pub(super) margin: i64,
}

/// A box's left upper corner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) x: i64,
    pub(super) y: i64,
}

/// Where an edge passes a column: straight, from one side of it to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bend {
    pub(super) left: i64,
    pub(super) right: i64,
    pub(super) y: i64,
}

/// Where everything is.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// For each box.
    pub(super) places: Vec<Place>,
    /// For each edge: the columns that it passes, from its one end to the other.
    pub(super) bends: Vec<Vec<Bend>>,
    /// Of all boxes together.
    pub(super) width: i64,
    pub(super) height: i64,
}

/// Around a box, above and below.
const GAP: i64 = 16;
/// Around an edge that passes between boxes.
const WIRE: i64 = 5;
/// Between two columns, for the curves of edges; their labels have the boxes' margins.
const SWING: i64 = 70;
/// Between two parts that nothing connects.
const BETWEEN: i64 = 28;
/// How often what is next to each other is put in order.
const SWEEPS: usize = 12;
/// A column has at least so many boxes before it is made two.
const FEW: usize = 10;

/// Finds places for boxes of these sizes, with edges between them (by index, from and to).
pub(super) fn arrange(sizes: &[Size], edges: &[(usize, usize)]) -> Layout {
    let net = Net::of(sizes.len(), edges);
    let layers = net.layers();
    let parts = net.parts();
    let mut part_of = vec![0; sizes.len()];
    for (index, member) in
        parts.iter().enumerate().flat_map(|(n, all)| all.iter().map(move |m| (n, m)))
    {
        if let Some(part) = part_of.get_mut(*member) {
            *part = index;
        }
    }
    let mut inner = vec![Vec::new(); parts.len()];
    for (index, &(from, to)) in edges.iter().enumerate() {
        let part = part_of.get(from).filter(|_| to < sizes.len());
        if let Some(list) = part.and_then(|part| inner.get_mut(*part)) {
            list.push((index, from, to));
        }
    }
    let drawn = parts.iter().zip(&inner).map(|(members, edges)| {
        let columns = columns(members, &layers, &net);
        Part::draw(&columns, edges, sizes)
    });
    shelve(drawn.collect(), sizes.len(), edges.len())
}

/// The columns of a part, from left to right: a layer each, or several where it would be too high.
fn columns(members: &[usize], layers: &[usize], net: &Net) -> Vec<Vec<usize>> {
    let layer = |node: &usize| layers.get(*node).copied().unwrap_or_default();
    let deepest = members.iter().map(layer).max().unwrap_or_default();
    let mut columns: Vec<Vec<usize>> = vec![Vec::new(); deepest + 1];
    for node in members {
        if let Some(column) = columns.get_mut(deepest - layer(node)) {
            column.push(*node);
        }
    }
    sort(&mut columns, net, layers.len());
    // As many rows as make it about as high as wide, boxes being some six times wider than high with
    // all that is between them.
    let rows = (members.len() * 6).isqrt().max(FEW);
    let split = |column: Vec<usize>| {
        // Columns of the same height, not full ones and a rest.
        let parts = column.len().div_ceil(rows).max(1);
        let chunks = column.chunks(column.len().div_ceil(parts).max(1));
        chunks.map(<[usize]>::to_vec).collect::<Vec<_>>()
    };
    columns.into_iter().flat_map(split).collect()
}

/// A connected part, laid out by itself.
struct Part {
    places: Vec<(usize, Place)>,
    /// By edge.
    bends: Vec<(usize, Vec<Bend>)>,
    width: i64,
    height: i64,
}

/// What stands in a column: a box, or an edge that passes it.
#[derive(Clone, Copy)]
struct Item {
    /// The box.
    node: Option<usize>,
    size: Size,
    gap: i64,
    column: usize,
}

/// An edge that passes columns, as the items in which it does.
struct Wire {
    edge: usize,
    items: Vec<usize>,
}

impl Part {
    fn draw(columns: &[Vec<usize>], edges: &[(usize, usize, usize)], sizes: &[Size]) -> Self {
        let mut items = Vec::new();
        let mut item_of = BTreeMap::new();
        for (column, nodes) in columns.iter().enumerate() {
            for &node in nodes {
                item_of.insert(node, items.len());
                let size = sizes.get(node).copied().unwrap_or_default();
                items.push(Item { node: Some(node), size, gap: GAP, column });
            }
        }
        let (mut links, mut wires) = (Vec::new(), Vec::new());
        for &(edge, from, to) in edges {
            let (Some(&from), Some(&to)) = (item_of.get(&from), item_of.get(&to)) else {
                continue;
            };
            let wire = passing(from, to, &mut items);
            let stops = [from].into_iter().chain(wire.iter().copied()).chain([to]);
            links.extend(stops.clone().zip(stops.skip(1)));
            wires.push(Wire { edge, items: wire });
        }
        let net = Net::of(items.len(), &links);
        let mut order = vec![Vec::new(); columns.len()];
        for (index, item) in items.iter().enumerate() {
            if let Some(column) = order.get_mut(item.column) {
                column.push(index);
            }
        }
        sort(&mut order, &net, items.len());
        let centres = heights(&order, &items, &net);
        Self::measure(&order, &items, &centres, &wires)
    }

    fn measure(columns: &[Vec<usize>], items: &[Item], centres: &[i64], wires: &[Wire]) -> Self {
        let size = |index: &usize| items.get(*index).map_or(Size::default(), |item| item.size);
        let top = (0..items.len()).map(|i| value(centres, i) - size(&i).height / 2).min();
        let top = top.unwrap_or_default();
        let mut part = Self { places: Vec::new(), bends: Vec::new(), width: 0, height: 0 };
        let mut bends = vec![None; items.len()];
        let mut left = 0;
        for column in columns {
            let widest =
                |of: fn(Size) -> i64| column.iter().map(|i| of(size(i))).max().unwrap_or(0);
            part.width = left + widest(|size| size.width);
            let right = part.width + widest(|size| size.margin);
            for &index in column {
                let centre = value(centres, index) - top;
                let height = size(&index).height;
                part.height = part.height.max(centre - height / 2 + height);
                match items.get(index).and_then(|item| item.node) {
                    Some(node) => {
                        part.places.push((node, Place { x: left, y: centre - height / 2 }));
                    }
                    None => {
                        if let Some(bend) = bends.get_mut(index) {
                            *bend = Some(Bend { left, right, y: centre });
                        }
                    }
                }
            }
            left = right + SWING;
        }
        for Wire { edge, items } in wires {
            let passed = items.iter().filter_map(|index| *bends.get(*index)?).collect();
            part.bends.push((*edge, passed));
        }
        part
    }
}

/// Makes an item in each column between two others; in the order from the one to the other.
fn passing(from: usize, to: usize, items: &mut Vec<Item>) -> Vec<usize> {
    let column = |index: usize| items.get(index).map_or(0, |item| item.column);
    let (from, to) = (column(from), column(to));
    let mut between: Vec<usize> = (from.min(to) + 1..from.max(to)).collect();
    if from > to {
        between.reverse();
    }
    let first = items.len();
    let item = |column| Item { node: None, size: Size::default(), gap: WIRE, column };
    items.extend(between.into_iter().map(item));
    (first..items.len()).collect()
}

/// Puts the boxes of each column in an order in which few edges cross: each as far down as what it is
/// connected with, on average.
fn sort(columns: &mut [Vec<usize>], net: &Net, count: usize) {
    /// From the top of a column to its bottom.
    const SCALE: i64 = 1_000_000;
    let mut ranks = vec![0; count];
    let rank = |column: &[usize], ranks: &mut Vec<i64>| {
        for (nth, node) in column.iter().enumerate() {
            if let Some(rank) = ranks.get_mut(*node) {
                *rank = (2 * whole(nth) + 1) * SCALE / (2 * whole(column.len()));
            }
        }
    };
    columns.iter().for_each(|column| rank(column, &mut ranks));
    for sweep in 0..SWEEPS {
        let mut one = |column: &mut Vec<usize>| {
            column.sort_by_key(|node| mean(net, *node, &ranks).unwrap_or(value(&ranks, *node)));
            rank(column, &mut ranks);
        };
        match sweep % 2 {
            0 => columns.iter_mut().for_each(&mut one),
            _ => columns.iter_mut().rev().for_each(&mut one),
        }
    }
}

/// The middle of each item: as near to what it is connected with as the others in its column let it.
fn heights(columns: &[Vec<usize>], items: &[Item], net: &Net) -> Vec<i64> {
    let mut centres = vec![0; items.len()];
    let settle = |column: &Vec<usize>, centres: &mut Vec<i64>| {
        let known = |index: &usize| items.get(*index).map(|item| (*index, item));
        let column: Vec<(usize, &Item)> = column.iter().filter_map(known).collect();
        let wanted = |index| mean(net, index, centres).unwrap_or(value(centres, index));
        let wanted: Vec<i64> = column.iter().map(|(index, _)| wanted(*index)).collect();
        // How far the middle of each is from that of the first, if there is nothing between them.
        let mut offset = 0;
        let mut above: Option<&Item> = None;
        let offsets: Vec<i64> = column
            .iter()
            .map(|(_, item)| {
                if let Some(above) = above.replace(item) {
                    offset += (above.size.height + item.size.height + above.gap + item.gap) / 2 + 1;
                }
                offset
            })
            .collect();
        // Once downwards, once upwards; in between, they are as far apart as in both.
        let free: Vec<i64> = wanted.iter().zip(&offsets).map(|(at, offset)| at - offset).collect();
        let down = free.iter().scan(i64::MIN, |lowest, at| {
            *lowest = (*lowest).max(*at);
            Some(*lowest)
        });
        let up = free.iter().rev().scan(i64::MAX, |highest, at| {
            *highest = (*highest).min(*at);
            Some(*highest)
        });
        let up: Vec<i64> = up.collect();
        for (((index, _), offset), (down, up)) in
            column.iter().zip(offsets).zip(down.zip(up.into_iter().rev()))
        {
            if let Some(centre) = centres.get_mut(*index) {
                *centre = (down + up).div_euclid(2) + offset;
            }
        }
    };
    for sweep in 0..=SWEEPS {
        match sweep % 2 {
            0 => columns.iter().for_each(|column| settle(column, &mut centres)),
            _ => columns.iter().rev().for_each(|column| settle(column, &mut centres)),
        }
    }
    centres
}

/// Puts the parts beside and below each other, the highest ones first.
fn shelve(mut parts: Vec<Part>, boxes: usize, edges: usize) -> Layout {
    parts.sort_by_key(|part| Reverse(part.height));
    let area: i64 = parts.iter().map(|p| (p.width + BETWEEN) * (p.height + BETWEEN)).sum();
    let widest = parts.iter().map(|part| part.width).max().unwrap_or_default();
    // Screens are wider than high.
    let room = (area.max(0) * 8 / 5).isqrt().max(widest);
    let (places, bends) = (vec![Place::default(); boxes], vec![Vec::new(); edges]);
    let mut layout = Layout { places, bends, width: 0, height: 0 };
    let (mut x, mut y, mut shelf) = (0, 0, 0);
    for part in parts {
        // Small ones beside a high one would leave the place below them empty.
        if x > 0 && (x + part.width > room || part.height * 3 < shelf) {
            (x, y) = (0, y + shelf + BETWEEN);
            shelf = 0;
        }
        for (node, place) in part.places {
            if let Some(slot) = layout.places.get_mut(node) {
                *slot = Place { x: x + place.x, y: y + place.y };
            }
        }
        for (edge, bends) in part.bends {
            let moved =
                |bend: Bend| Bend { left: bend.left + x, right: bend.right + x, y: bend.y + y };
            if let Some(slot) = layout.bends.get_mut(edge) {
                *slot = bends.into_iter().map(moved).collect();
            }
        }
        layout.width = layout.width.max(x + part.width);
        layout.height = layout.height.max(y + part.height);
        shelf = shelf.max(part.height);
        x += part.width + BETWEEN;
    }
    layout
}

/// The mean of what the neighbours of a node have.
fn mean(net: &Net, node: usize, values: &[i64]) -> Option<i64> {
    let (sum, count) =
        net.next_to(node).fold((0, 0), |(sum, n), next| (sum + value(values, next), n + 1));
    (count > 0).then(|| sum / count)
}

fn value(values: &[i64], at: usize) -> i64 {
    values.get(at).copied().unwrap_or_default()
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
