//! What the generator believes there is.

use std::collections::BTreeSet;

use fastrand::Rng;

use crate::op::{Act, Kind, Name, Op, Slot};

/// A socket.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub(super) kind: Kind,
    pub(super) state: State,
    pub(super) name: Option<Name>,
    pub(super) peer: Option<usize>,
    /// Of a listener: the ends that nobody has accepted.
    pub(super) waiting: Vec<usize>,
    pub(super) backlog: usize,
    /// What may be in flight to it.
    pub(super) carried: Vec<usize>,
    /// It waits to be accepted.
    pub(super) is_embryo: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Fresh,
    Listening,
    Connected,
}

/// A descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) who: usize,
    pub(super) slot: Slot,
    pub(super) thing: usize,
    pub(super) close_on_exec: bool,
    /// It has to stay.
    pub(super) pinned: bool,
}

/// The world so far.
pub(super) struct Model {
    pub(super) ops: Vec<Op>,
    pub(super) things: Vec<Thing>,
    pub(super) held: Vec<Held>,
    pub(super) processes: usize,
    /// Messages without data may be sent: then a descriptor may not be in flight only, since nobody
    /// can peek behind them.
    pub(super) empty_messages: bool,
    pub(super) traced: bool,
    /// Paths that are no socket's any more, or are and have another name.
    pub(super) files: BTreeSet<u8>,
    errors: bool,
    next: Slot,
}

impl Model {
    pub(super) fn new(empty_messages: bool, traced: bool) -> Self {
        Self {
            ops: Vec::new(),
            things: Vec::new(),
            held: Vec::new(),
            processes: 1,
            empty_messages,
            traced,
            files: BTreeSet::new(),
            errors: false,
            next: 0,
        }
    }

    pub(super) fn act(&mut self, who: usize, act: Act) {
        self.ops.push(Op { who, act });
    }

    pub(super) fn slots(&mut self, count: Slot) -> Slot {
        let first = self.next;
        self.next += count;
        first
    }

    pub(super) fn thing(&mut self, kind: Kind, state: State) -> usize {
        self.things.push(Thing {
            kind,
            state,
            name: None,
            peer: None,
            waiting: Vec::new(),
            backlog: 0,
            carried: Vec::new(),
            is_embryo: false,
        });
        self.things.len() - 1
    }

    pub(super) fn hold(&mut self, who: usize, slot: Slot, thing: usize, close_on_exec: bool) {
        self.held.push(Held { who, slot, thing, close_on_exec, pinned: false });
    }

    /// One of the descriptors whose socket is like this.
    pub(super) fn pick(&self, rng: &mut Rng, is_it: impl Fn(&Thing) -> bool) -> Option<Held> {
        let fit: Vec<&Held> = self
            .held
            .iter()
            .filter(|held| self.things.get(held.thing).is_some_and(&is_it))
            .collect();
        rng.choice(fit).copied()
    }

    pub(super) fn get(&self, thing: usize) -> Option<&Thing> {
        self.things.get(thing)
    }

    /// Changes a socket.
    pub(super) fn change(&mut self, thing: usize, change: impl FnOnce(&mut Thing)) {
        if let Some(thing) = self.things.get_mut(thing) {
            change(thing);
        }
    }

    /// Somebody has it.
    pub(super) fn is_held(&self, thing: usize) -> bool {
        self.held.iter().any(|held| held.thing == thing)
    }

    /// Has a descriptor stay where it is.
    pub(super) fn pin(&mut self, slot: Slot) {
        for held in self.held.iter_mut().filter(|held| held.slot == slot) {
            held.pinned = true;
        }
    }

    /// Closes a descriptor, unless it has to stay, or leaves sockets that nobody can ever receive: the
    /// kernel collects those, at some time.
    pub(super) fn close(&mut self, held: Held) {
        let is_it = |other: &Held| (other.who, other.slot) == (held.who, held.slot);
        let is_pinned = self.held.iter().any(|other| is_it(other) && other.pinned);
        if is_pinned || self.is_garbage_without(held) {
            return;
        }
        self.held.retain(|other| !is_it(other));
        self.act(held.who, Act::Close { slot: held.slot });
        let there = self.reachable(None);
        for thing in 0..self.things.len() {
            if !there.contains(&thing) && !self.things.get(thing).is_some_and(|t| t.is_embryo) {
                self.ended(thing);
            }
        }
    }

    /// A socket is gone, and connections that waited at it.
    fn ended(&mut self, gone: usize) {
        let mut gone_too = vec![gone];
        self.change(gone, |thing| {
            gone_too.append(&mut thing.waiting);
            thing.carried.clear();
            thing.name = None;
        });
        for thing in &mut self.things {
            if thing.peer.is_some_and(|peer| gone_too.contains(&peer)) {
                thing.peer = None;
            }
        }
        for gone in gone_too {
            self.change(gone, |thing| {
                thing.is_embryo = false;
                thing.peer = None;
            });
        }
    }

    /// What descriptors lead to, at once or through what is in flight, without one of them.
    fn reachable(&self, without: Option<Held>) -> BTreeSet<usize> {
        let others = self.held.iter().filter(|other| {
            without.is_none_or(|held| (held.who, held.slot) != (other.who, other.slot))
        });
        let mut next: Vec<usize> = others.map(|held| held.thing).collect();
        let mut found = BTreeSet::new();
        while let Some(thing) = next.pop() {
            if found.insert(thing)
                && let Some(thing) = self.things.get(thing)
            {
                next.extend(&thing.carried);
                next.extend(&thing.waiting);
            }
        }
        found
    }

    /// Whether without this descriptor something is in flight to nobody but itself.
    fn is_garbage_without(&self, held: Held) -> bool {
        let there = self.reachable(Some(held));
        let lost = (0..self.things.len()).filter(|thing| !there.contains(thing));
        let lost: Vec<usize> = lost.collect();
        lost.iter().any(|thing| {
            self.things
                .get(*thing)
                .is_some_and(|thing| thing.carried.iter().any(|carried| lost.contains(carried)))
        })
    }

    /// Some datagram socket may have an error that waits.
    pub(super) fn may_err(&mut self) {
        self.errors = true;
    }

    /// Takes the errors of datagram sockets.
    pub(super) fn finish(&mut self) {
        if !self.errors {
            return;
        }
        let datagrams = self.held.iter().filter(|held| {
            self.things.get(held.thing).is_some_and(|thing| thing.kind == Kind::Dgram)
        });
        for Held { who, slot, .. } in datagrams.copied().collect::<Vec<_>>() {
            self.act(who, Act::TakeError { slot });
        }
    }
}
