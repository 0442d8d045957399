//! What is sent and received.

use fastrand::Rng;

use super::{
    super::model::{Held, Model, State},
    bind, is_named_datagram, pair, process, socket,
};
use crate::op::{ARRIVING, Act, Kind, Parcel, Slot};

/// How long a message is.
pub(super) fn bytes(model: &Model, rng: &mut Rng) -> usize {
    match rng.u8(0..10) {
        0 if model.empty_messages => 0,
        0..6 => rng.usize(1..40),
        6..8 => rng.usize(1000..9000),
        8 => rng.usize(9000..50_000),
        _ => 1,
    }
}

pub(super) fn send(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let held = model.pick(rng, |thing| thing.peer.is_some())?;
    let is_stream = model.get(held.thing)?.kind == Kind::Stream;
    for _ in 0..rng.u8(1..4) {
        let mut parcel = Parcel { bytes: bytes(model, rng), ..Parcel::default() };
        if is_stream && rng.u8(0..5) == 0 {
            parcel = Parcel { bytes: 1, oob: true, ..Parcel::default() };
        } else if rng.u8(0..5) == 0 {
            parcel.credentials = Some((rng.u32(0..3) * 1000, rng.u32(0..3) * 1000));
        }
        model.act(held.who, Act::Send { slot: held.slot, parcel });
    }
    Some(())
}

pub(super) fn send_to(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let to = model.pick(rng, is_named_datagram)?;
    let name = model.get(to.thing)?.name.clone()?;
    let from = match rng.u8(0..4) {
        0 => {
            let who = process(model, rng);
            let held = socket(model, who, Kind::Dgram, rng);
            if rng.bool() {
                let own = super::name(model, who, rng);
                bind(model, held, own);
            }
            held
        }
        _ => model.pick(rng, |thing| thing.kind == Kind::Dgram)?,
    };
    for _ in 0..rng.u8(1..3) {
        let parcel =
            Parcel { bytes: bytes(model, rng), to: Some(name.clone()), ..Parcel::default() };
        model.act(from.who, Act::Send { slot: from.slot, parcel });
    }
    if rng.u8(0..4) == 0 {
        model.close(from);
    }
    Some(())
}

/// Whether what is sent there can be had: by somebody's descriptor.
fn is_in_reach(model: &Model, thing: usize) -> bool {
    let peer = model.get(thing).and_then(|thing| thing.peer);
    peer.is_some_and(|peer| model.is_held(peer))
}

pub(super) fn pass(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let over = model.pick(rng, |thing| thing.peer.is_some())?;
    let own: Vec<Held> = model.held.iter().filter(|held| held.who == over.who).copied().collect();
    let count = rng.usize(1..4);
    let passed: Vec<Held> = (0..count).filter_map(|_| rng.choice(&own).copied()).collect();
    let files: Vec<Slot> = passed.iter().map(|held| held.slot).collect();
    let parcel = Parcel { bytes: rng.usize(1..20), files, ..Parcel::default() };
    model.act(over.who, Act::Send { slot: over.slot, parcel });
    carried(model, over.thing, passed.iter().map(|held| held.thing));
    for held in passed {
        if model.empty_messages || !is_in_reach(model, over.thing) {
            model.pin(held.slot);
        } else if rng.bool() {
            model.close(held);
        }
    }
    Some(())
}

/// Notes what is in flight to the peer of a socket.
fn carried(model: &mut Model, over: usize, passed: impl Iterator<Item = usize>) {
    if let Some(peer) = model.get(over).and_then(|thing| thing.peer) {
        model.change(peer, |peer| peer.carried.extend(passed));
    }
}

/// Ends that are queued in themselves or in each other.
pub(super) fn pass_around(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let before = model.held.len();
    pair(model, rng)?;
    let ends: Vec<Held> = model.held.iter().skip(before).copied().collect();
    let &[a, b] = ends.as_slice() else { return None };
    for (over, to) in [(a, b), (b, a)] {
        let files = match rng.u8(0..4) {
            0 => vec![a.slot],
            1 => vec![b.slot],
            2 => vec![a.slot, b.slot],
            _ => continue,
        };
        let ends = [a, b].into_iter().filter(|end| files.contains(&end.slot));
        model.change(to.thing, |to| to.carried.extend(ends.map(|end| end.thing)));
        let parcel = Parcel { bytes: 3, files, ..Parcel::default() };
        model.act(over.who, Act::Send { slot: over.slot, parcel });
    }
    if rng.bool() && !model.empty_messages {
        model.close(b);
    }
    Some(())
}

pub(super) fn receive(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let held = model.pick(rng, |thing| thing.state == State::Connected)?;
    let size = rng.choice([1, 3, 10, 5000])?;
    let how = rng.choice(["", "", "", "peek", "oob"])?;
    // A message without data that is left of an out-of-band byte is like any other.
    if how == "oob" {
        for thing in 0..model.things.len() {
            if model.get(thing).is_some_and(|other| other.peer == Some(held.thing)) {
                pin_all(model);
            }
        }
    }
    let made = model.slots(ARRIVING);
    model.act(held.who, Act::Receive { slot: held.slot, size, how, made });
    Some(())
}

fn pin_all(model: &mut Model) {
    for slot in model.held.iter().map(|held| held.slot).collect::<Vec<_>>() {
        model.pin(slot);
    }
}
