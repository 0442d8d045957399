//! Boxes and the edges between them: what is connected, and in how many steps.

use std::collections::BTreeSet;

use super::{value, whole};

/// Who is next to whom.
pub(super) struct Net {
    /// The servers of each box.
    to: Vec<Vec<usize>>,
    /// The clients of each box.
    from: Vec<Vec<usize>>,
}

impl Net {
    pub(super) fn of(count: usize, edges: &[(usize, usize)]) -> Self {
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

    /// What a box has an edge with, each as often as it has one.
    pub(super) fn next_to(&self, node: usize) -> impl Iterator<Item = usize> {
        let lists = self.to.get(node).into_iter().chain(self.from.get(node));
        lists.flatten().copied()
    }

    /// The connected parts, each with its members in order.
    pub(super) fn parts(&self) -> Vec<Vec<usize>> {
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
    pub(super) fn layers(&self) -> Vec<usize> {
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
            let (to, from) = (list(&self.to, node), list(&self.from, node));
            let placed = to.iter().filter_map(|server| *layers.get(*server)?);
            let layer = placed.max().map_or(0, |layer| layer + 1);
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

fn list(lists: &[Vec<usize>], at: usize) -> &[usize] {
    lists.get(at).map_or(&[], Vec::as_slice)
}
