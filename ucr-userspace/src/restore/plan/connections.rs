//! Connections through listeners that are accepted: who connects when, and as whom the listener listens then.

use std::collections::BTreeSet;

use super::Planner;
use super::binders::{Binder, Link};
use super::step::{Holder, Identity, Step};

/// Clients of one listener that connect before the first of them is accepted, at most: whoever calls
/// `connect` for another process can be told of all of them at once. It is the backlog of temporary
/// listeners too.
pub(super) const AT_ONCE: u32 = 16;

impl Planner<'_> {
    pub(super) fn listen(&mut self, made: Holder, identity: Option<Identity>) {
        let listens = self.binder_of(made).and_then(|binder| binder.listens.as_ref());
        if let Some(&(backlog, _)) = listens {
            // A backlog may have been lowered since so many came.
            let backlog = backlog.max(self.crowds.get(&made).copied().unwrap_or(0));
            self.steps.push(Step::Listen { made, backlog, identity: identity.clone() });
            self.listening_as.insert(made, identity);
        }
    }

    /// Makes connections (places in `links`) in this order. Neighbours through one listener connect one after
    /// another, then they are accepted one after another: the queue keeps their order.
    fn connect(&mut self, numbers: impl IntoIterator<Item = usize>) {
        let mut row: Vec<Link> = Vec::new();
        for number in numbers {
            let Some(&link) = self.links.get(number) else { continue };
            let Some(binder) = self.binder_of(link.listener) else { continue };
            let (socket_type, room) = (binder.socket_type, self.room(link.listener));
            let is_like = row.first().is_none_or(|first| first.listener == link.listener);
            // Those of the row would see whoever listens anew.
            if !is_like || row.len() >= room || self.listens_as_other(link.client, link.listener) {
                self.finish_row(&mut row);
            }
            self.prepare_client(link.client, link.server, link.listener, socket_type);
            row.push(link);
        }
        self.finish_row(&mut row);
    }

    /// How many clients may wait at a listener. (The kernel lets one more wait than the backlog says.)
    fn room(&self, listener: Holder) -> usize {
        let listens = self.binder_of(listener).and_then(|binder| binder.listens.as_ref());
        let room = listens.map_or(1, |(backlog, _)| (*backlog).clamp(1, AT_ONCE));
        usize::try_from(room).unwrap_or(1)
    }

    /// Clients that are prepared connect, and are accepted.
    fn finish_row(&mut self, row: &mut Vec<Link>) {
        for &Link { client, server, listener, .. } in row.iter() {
            let Some(place) = self.binder_of(listener).map(|binder| binder.place.clone()) else {
                continue;
            };
            let identity = self.seen_by_holder(server);
            self.steps.push(Step::Connect { client, listener, place, identity });
        }
        for Link { server, listener, .. } in row.drain(..) {
            self.steps.push(Step::Accept { server, listener });
            self.made.insert(server);
        }
    }

    /// The end of a listener's part: the credentials that its next clients will see, or, for a
    /// temporary one, its close.
    pub(super) fn release(&mut self, number: usize) {
        let Some(binder) = self.binders.get(number) else {
            return;
        };
        let made = binder.made;
        let Some((backlog, finally)) = binder.listens.clone() else { return };
        let is_crowded = self.crowds.get(&made).is_some_and(|crowd| *crowd > backlog);
        let is_wrong = finally.is_some() && self.listening_as.get(&made) != Some(&finally);
        if matches!(made, Holder::Temporary(_)) {
            self.steps.push(Step::Close { made });
        } else if is_crowded || is_wrong {
            self.steps.push(Step::Listen { made, backlog, identity: finally });
        }
    }

    pub(super) fn give_up_names_first(&mut self) {
        for number in self.select(Self::is_early) {
            self.bind(number);
            if let Some(made) = self.binders.get(number).map(|binder| binder.made) {
                let links = self.through.get(&made).cloned().unwrap_or_default();
                self.connect(links);
            }
            self.release(number);
        }
    }

    pub(super) fn is_early(binder: &Binder) -> bool {
        binder.contested && !binder.stays
    }

    pub(super) fn listeners(&mut self) {
        for number in self.select(|b| b.listens.is_some() && !Self::is_early(b)) {
            self.bind(number);
        }
    }

    pub(super) fn connections(&mut self) {
        let early = self.select(Self::is_early);
        let early: BTreeSet<_> =
            early.into_iter().filter_map(|n| self.binders.get(n)).map(|b| b.made).collect();
        let links = self.links.iter().enumerate();
        let late = links.filter(|(_, link)| !early.contains(&link.listener));
        let late: Vec<_> = late.map(|(number, _)| number).collect();
        self.connect(late);
    }
}
