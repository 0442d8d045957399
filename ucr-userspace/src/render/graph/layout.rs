//! Where the boxes of a graph stand: clients on the left, servers on the right.
//!
//! Each connected part is laid out by itself, in columns (Sugiyama's method, made simple: no bends
//! where an edge passes a column), and the parts are put on shelves. All numbers are whole pixels,
//! nothing is random, nothing recursive: the same graph always gives the same drawing.

use std::{cmp::Reverse, collections::BTreeSet};

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

/// Where everything is.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// For each box.
    pub(super) places: Vec<Place>,
    /// Of all boxes together.
    pub(super) width: i64,
    pub(super) height: i64,
}

/// Between two boxes of a column.
const GAP: i64 = 16;
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
    let drawn = parts.iter().map(|members| Part::draw(members, &layers, sizes, &net));
    shelve(drawn.collect(), sizes.len())
}

/// Who is next to whom.
struct Net {
    to: Vec<Vec<usize>>,
    from: Vec<Vec<usize>>,
}

impl Net {
    fn of(count: usize, edges: &[(usize, usize)]) -> Self {
        let mut net = Self { to: vec![Vec::new(); count], from: vec![Vec::new(); count] };
        for &(from, to) in edges {
            if let Some(list) = net.to.get_mut(from).filter(|_| to < count) {
                list.push(to);
            }
            if let Some(list) = net.from.get_mut(to).filter(|_| from < count) {
                list.push(from);
            }
        }
        net
    }

    fn next_to(&self, node: usize) -> impl Iterator<Item = usize> {
        let lists = self.to.get(node).into_iter().chain(self.from.get(node));
        lists.flatten().copied()
    }

    /// The connected parts, each with its members in order.
    fn parts(&self) -> Vec<Vec<usize>> {
        let mut seen = BTreeSet::new();
        let mut parts = Vec::new();
        for start in 0..self.to.len() {
            if !seen.insert(start) {
                continue;
            }
            let mut members = vec![start];
            let mut at = 0;
            while let Some(&node) = members.get(at) {
                at += 1;
                members.extend(self.next_to(node).filter(|next| seen.insert(*next)));
            }
            members.sort_unstable();
            parts.push(members);
        }
        parts
    }

    /// How far each box is from the right: 0 for servers that are nobody's client. In a circle, the
    /// one that is a server most and a client least is taken for such a one.
    fn layers(&self) -> Vec<usize> {
        let count = self.to.len();
        let mut layers: Vec<Option<usize>> = vec![None; count];
        let mut clients: Vec<i64> = self.from.iter().map(|list| whole(list.len())).collect();
        let mut servers: Vec<i64> = self.to.iter().map(|list| whole(list.len())).collect();
        // Who comes next: with no servers left, or else with few of them and many clients.
        let urgency = |servers: i64, clients: i64| match servers {
            0 => i64::MIN,
            _ => servers - clients,
        };
        let mut waiting: BTreeSet<(i64, usize)> = servers
            .iter()
            .zip(&clients)
            .enumerate()
            .map(|(node, (servers, clients))| (urgency(*servers, *clients), node))
            .collect();
        while let Some((_, node)) = waiting.pop_first() {
            let of = |nodes: &[usize], layers: &[Option<usize>]| {
                let placed = nodes.iter().filter_map(|next| *layers.get(*next)?);
                placed.max().map_or(0, |layer| layer + 1)
            };
            let (to, from) = (list(&self.to, node), list(&self.from, node));
            let layer = of(to, &layers);
            if let Some(slot) = layers.get_mut(node) {
                *slot = Some(layer);
            }
            let fewer = |others: &[usize], left: &mut Vec<i64>| {
                for other in others {
                    if let Some(left) = left.get_mut(*other) {
                        *left -= 1;
                    }
                }
            };
            let mut change: BTreeSet<usize> = from.iter().chain(to).copied().collect();
            change.retain(|other| layers.get(*other).is_some_and(Option::is_none));
            let key = |other: usize, servers: &[i64], clients: &[i64]| {
                (urgency(value(servers, other), value(clients, other)), other)
            };
            for other in &change {
                waiting.remove(&key(*other, &servers, &clients));
            }
            fewer(from, &mut servers);
            fewer(to, &mut clients);
            waiting.extend(change.into_iter().map(|other| key(other, &servers, &clients)));
        }
        layers.into_iter().map(Option::unwrap_or_default).collect()
    }
}

/// A connected part, laid out by itself.
struct Part {
    places: Vec<(usize, Place)>,
    width: i64,
    height: i64,
}

impl Part {
    fn draw(members: &[usize], layers: &[usize], sizes: &[Size], net: &Net) -> Self {
        let layer = |node: &usize| layers.get(*node).copied().unwrap_or_default();
        let deepest = members.iter().map(layer).max().unwrap_or_default();
        let mut columns: Vec<Vec<usize>> = vec![Vec::new(); deepest + 1];
        for node in members {
            if let Some(column) = columns.get_mut(deepest - layer(node)) {
                column.push(*node);
            }
        }
        sort(&mut columns, net, sizes.len());
        // As many rows as make it about as high as wide, boxes being some six times wider than high
        // with all that is between them.
        let rows = (members.len() * 6).isqrt().max(FEW);
        let columns: Vec<&[usize]> = columns
            .iter()
            .flat_map(|column| {
                // Columns of the same height, not full ones and a rest.
                let parts = column.len().div_ceil(rows).max(1);
                column.chunks(column.len().div_ceil(parts).max(1))
            })
            .collect();
        let centres = heights(&columns, sizes, net);
        let size = |node: usize| sizes.get(node).copied().unwrap_or_default();
        let mut places = Vec::with_capacity(members.len());
        let (mut x, mut width) = (0, 0);
        for column in columns {
            for &node in column {
                let y = value(&centres, node) - size(node).height / 2;
                places.push((node, Place { x, y }));
            }
            let of = |what: fn(Size) -> i64| column.iter().map(|node| what(size(*node))).max();
            width = x + of(|size| size.width).unwrap_or_default();
            x = width + of(|size| size.margin).unwrap_or_default() + SWING;
        }
        let top = places.iter().map(|(_, place)| place.y).min().unwrap_or_default();
        places.iter_mut().for_each(|(_, place)| place.y -= top);
        let bottom = |(node, place): &(usize, Place)| place.y + size(*node).height;
        let height = places.iter().map(bottom).max().unwrap_or_default();
        Self { places, width, height }
    }
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

/// The middle of each box: as near to what it is connected with as the others in its column let it.
fn heights(columns: &[&[usize]], sizes: &[Size], net: &Net) -> Vec<i64> {
    let mut centres = vec![0; sizes.len()];
    let height = |node: &usize| sizes.get(*node).map_or(0, |size| size.height);
    let settle = |column: &[usize], centres: &mut Vec<i64>| {
        let wanted = |node: &usize| mean(net, *node, centres).unwrap_or(value(centres, *node));
        let wanted: Vec<i64> = column.iter().map(wanted).collect();
        // Once downwards, once upwards; in between, boxes are as far apart as in both.
        let mut free = i64::MIN;
        let down = column.iter().zip(&wanted).map(|(node, wanted)| {
            let top = (wanted - height(node) / 2).max(free);
            free = top + height(node) + GAP;
            top + height(node) / 2
        });
        let down: Vec<i64> = down.collect();
        let mut free = i64::MAX;
        let up = column.iter().zip(&wanted).rev().map(|(node, wanted)| {
            let bottom = (wanted - height(node) / 2 + height(node)).min(free);
            free = bottom - height(node) - GAP;
            bottom - height(node) + height(node) / 2
        });
        let up: Vec<i64> = up.collect();
        for ((node, down), up) in column.iter().zip(down).zip(up.into_iter().rev()) {
            if let Some(centre) = centres.get_mut(*node) {
                *centre = (down + up).div_euclid(2);
            }
        }
    };
    columns.iter().for_each(|column| settle(column, &mut centres));
    for sweep in 0..SWEEPS {
        match sweep % 2 {
            0 => columns.iter().for_each(|column| settle(column, &mut centres)),
            _ => columns.iter().rev().for_each(|column| settle(column, &mut centres)),
        }
    }
    centres
}

/// Puts the parts beside and below each other, the highest ones first.
fn shelve(mut parts: Vec<Part>, count: usize) -> Layout {
    parts.sort_by_key(|part| Reverse(part.height));
    let area: i64 = parts.iter().map(|p| (p.width + BETWEEN) * (p.height + BETWEEN)).sum();
    let widest = parts.iter().map(|part| part.width).max().unwrap_or_default();
    // Screens are wider than high.
    let room = (area.max(0) * 8 / 5).isqrt().max(widest);
    let mut layout = Layout { places: vec![Place::default(); count], width: 0, height: 0 };
    let (mut x, mut y, mut shelf) = (0, 0, 0);
    for part in parts {
        if x > 0 && x + part.width > room {
            (x, y) = (0, y + shelf + BETWEEN);
            shelf = 0;
        }
        for (node, place) in part.places {
            if let Some(slot) = layout.places.get_mut(node) {
                *slot = Place { x: x + place.x, y: y + place.y };
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

fn list(lists: &[Vec<usize>], at: usize) -> &[usize] {
    lists.get(at).map_or(&[], Vec::as_slice)
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: Size = Size { width: 100, height: 40, margin: 20 };

    fn columns(layout: &Layout) -> Vec<i64> {
        let all: BTreeSet<i64> = layout.places.iter().map(|place| place.x).collect();
        let column = |place: &Place| all.iter().position(|x| *x == place.x).map_or(-1, whole);
        layout.places.iter().map(column).collect()
    }

    #[test]
    fn servers_stand_on_the_right_of_their_clients() {
        let layout = arrange(&[SIZE; 4], &[(0, 1), (1, 2), (3, 2)]);
        assert_eq!(columns(&layout), [0, 1, 2, 1]);
    }

    #[test]
    fn in_a_circle_somebody_is_the_last() {
        let layout = arrange(&[SIZE; 3], &[(0, 1), (1, 2), (2, 0)]);
        assert_eq!(columns(&layout), [2, 0, 1]);
        // The one that has most clients.
        let layout = arrange(&[SIZE; 4], &[(0, 1), (1, 0), (2, 1), (3, 1)]);
        assert_eq!(columns(&layout), [0, 1, 0, 0]);
    }

    #[test]
    fn a_server_stands_in_the_middle_of_its_clients() {
        let layout = arrange(&[SIZE; 4], &[(1, 0), (2, 0), (3, 0)]);
        assert_eq!(layout.places[0].y, layout.places[2].y);
    }

    #[test]
    fn edges_do_not_cross_without_need() {
        let layout = arrange(&[SIZE; 4], &[(0, 3), (1, 2)]);
        assert_eq!(layout.places[0].y, layout.places[3].y);
        let layout = arrange(&[SIZE; 5], &[(0, 3), (1, 2), (0, 4), (1, 4)]);
        let y = |node: usize| layout.places[node].y;
        assert_eq!(y(0) < y(1), y(3) < y(2));
    }

    #[test]
    fn many_clients_are_put_in_several_columns() {
        let edges: Vec<_> = (1..300).map(|client| (client, 0)).collect();
        let layout = arrange(&[SIZE; 300], &edges);
        assert!(layout.width < 4 * layout.height && layout.height < 4 * layout.width, "{layout:?}");
    }

    proptest! {
        #[test]
        fn no_box_stands_on_another_one(
            heights in prop::collection::vec(20_i64..200, 1..40),
            edges in prop::collection::vec((0_usize..42, 0_usize..42), 0..80),
        ) {
            let sizes: Vec<Size> =
                heights.iter().map(|&height| Size { height, ..SIZE }).collect();
            let layout = arrange(&sizes, &edges);
            for (index, (one, size)) in layout.places.iter().zip(&sizes).enumerate() {
                prop_assert!(one.x >= 0 && one.x + size.width <= layout.width);
                prop_assert!(one.y >= 0 && one.y + size.height <= layout.height);
                for (other, its) in layout.places.iter().zip(&sizes).skip(index + 1) {
                    let beside = one.x + size.width <= other.x || other.x + its.width <= one.x;
                    let below = one.y + size.height <= other.y || other.y + its.height <= one.y;
                    prop_assert!(beside || below, "{one:?} {other:?}");
                }
            }
        }
    }
}
