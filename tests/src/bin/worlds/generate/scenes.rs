//! What may happen next: a few operations that belong together, of one kind each.

mod settings;
mod traffic;

use fastrand::Rng;

use self::{
    settings::{file, filter, nonblock, option, option_of, owner},
    traffic::{bytes, pass, pass_around, receive, send, send_to},
};
use super::model::{Held, Model, State, Thing};
use crate::op::{Act, Kind, Name, Parcel};

type Scene = fn(&mut Model, &mut Rng) -> Option<()>;

/// Each with how often it is drawn.
const SCENES: &[(u32, Scene)] = &[
    (5, pair),
    (6, listener),
    (9, client),
    (6, accept),
    (5, receiver),
    (6, datagram_connect),
    (2, disconnect),
    (10, send),
    (7, send_to),
    (5, pass),
    (2, pass_around),
    (7, close),
    (3, duplicate),
    (3, shutdown),
    (4, receive),
    (5, option),
    (2, owner),
    (1, filter),
    (1, nonblock),
    (3, file),
    (3, child),
    (2, strangers),
    (1, autobind),
    (2, lost_listener),
];

/// Draws one.
pub(super) fn draw(model: &mut Model, rng: &mut Rng) {
    let sum: u32 = SCENES.iter().map(|(weight, _)| weight).sum();
    let mut drawn = rng.u32(0..sum);
    for (weight, scene) in SCENES {
        if drawn < *weight {
            // Nothing to do it with: then the next one is drawn.
            scene(model, rng).unwrap_or_default();
            return;
        }
        drawn -= weight;
    }
}

fn kind(rng: &mut Rng) -> Kind {
    rng.choice([Kind::Stream, Kind::Stream, Kind::Dgram, Kind::Seqpacket]).unwrap_or(Kind::Stream)
}

fn connecting(rng: &mut Rng) -> Kind {
    rng.choice([Kind::Stream, Kind::Stream, Kind::Seqpacket]).unwrap_or(Kind::Stream)
}

fn flags(rng: &mut Rng) -> &'static str {
    rng.choice(["", "", "", "", "+nonblock", "+cloexec", "+nonblock+cloexec"]).unwrap_or("")
}

fn process(model: &Model, rng: &mut Rng) -> usize {
    rng.usize(0..model.processes)
}

/// A name that most often nobody has.
fn name(model: &Model, who: usize, rng: &mut Rng) -> Name {
    let mut name = Name::Path(0);
    for _ in 0..6 {
        name = match rng.u8(0..8) {
            0..4 => {
                let long = [b'l'; 108];
                let rests: [&[u8]; 6] = [b"a", b"b\0c", b"\xff\xfe\n ", b"", b"a\0", &long];
                Name::Abstract(rng.choice(rests).unwrap_or_default().to_vec())
            }
            4..7 => Name::Path(rng.u8(0..6)),
            _ => Name::Relative(who, rng.u8(0..3)),
        };
        let is_taken = model.things.iter().any(|thing| thing.name.as_ref() == Some(&name));
        if !is_taken && !is_spoiled(model, &name) {
            break;
        }
    }
    name
}

fn is_spoiled(model: &Model, name: &Name) -> bool {
    matches!(name, Name::Path(n) if model.files.contains(n))
}

fn socket(model: &mut Model, who: usize, kind: Kind, rng: &mut Rng) -> Held {
    let (slot, flags) = (model.slots(1), flags(rng));
    let thing = model.thing(kind, State::Fresh);
    model.act(who, Act::Socket { made: slot, kind, flags });
    let close_on_exec = flags.contains("cloexec");
    model.hold(who, slot, thing, close_on_exec);
    Held { who, slot, thing, close_on_exec, pinned: false }
}

fn bind(model: &mut Model, held: Held, name: Name) {
    model.act(held.who, Act::Bind { slot: held.slot, name: name.clone() });
    model.change(held.thing, |thing| thing.name = Some(name));
}

fn pair(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let (who, kind, flags, first) = (process(model, rng), kind(rng), flags(rng), model.slots(2));
    let [a, b] = [(); 2].map(|()| model.thing(kind, State::Connected));
    model.change(a, |end| end.peer = Some(b));
    model.change(b, |end| end.peer = Some(a));
    model.act(who, Act::Pair { made: [first, first + 1], kind, flags });
    for (slot, thing) in [(first, a), (first + 1, b)] {
        model.hold(who, slot, thing, flags.contains("cloexec"));
    }
    if rng.u8(0..6) == 0 {
        let end = model.held.last().copied()?;
        let name = name(model, who, rng);
        bind(model, end, name);
    }
    Some(())
}

fn listener(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let (who, kind) = (process(model, rng), connecting(rng));
    let held = socket(model, who, kind, rng);
    let name = name(model, who, rng);
    bind(model, held, name);
    let backlog = rng.u8(0..6);
    if rng.u8(0..5) == 0 {
        option_of(model, held, rng);
    }
    model.act(who, Act::Listen { slot: held.slot, backlog });
    model.change(held.thing, |thing| {
        thing.state = State::Listening;
        thing.backlog = usize::from(backlog) + 1;
    });
    Some(())
}

fn client(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let has_room =
        |thing: &Thing| thing.state == State::Listening && thing.waiting.len() < thing.backlog;
    let at = model.pick(rng, has_room)?;
    let listener = model.get(at.thing)?.clone();
    let to = listener.name.clone()?;
    let who = process(model, rng);
    let held = socket(model, who, listener.kind, rng);
    if rng.u8(0..4) == 0 {
        let name = name(model, who, rng);
        bind(model, held, name);
    }
    model.act(who, Act::Connect { slot: held.slot, name: to.clone() });
    let embryo = model.thing(listener.kind, State::Connected);
    model.change(embryo, |embryo| {
        embryo.is_embryo = true;
        embryo.peer = Some(held.thing);
        embryo.name = Some(to);
    });
    model.change(held.thing, |client| {
        client.state = State::Connected;
        client.peer = Some(embryo);
    });
    model.change(at.thing, |listener| listener.waiting.push(embryo));
    match rng.u8(0..8) {
        0..3 => accept_at(model, at),
        3 | 4 => {
            let parcel = Parcel { bytes: bytes(model, rng), ..Parcel::default() };
            model.act(who, Act::Send { slot: held.slot, parcel });
            if rng.bool() {
                model.close(held);
            }
            Some(())
        }
        _ => Some(()),
    }
}

fn accept_at(model: &mut Model, at: Held) -> Option<()> {
    let mut first = None;
    model.change(at.thing, |listener| {
        first = (!listener.waiting.is_empty()).then(|| listener.waiting.remove(0));
    });
    let embryo = first?;
    let made = model.slots(1);
    model.act(at.who, Act::Accept { slot: at.slot, made });
    // The name is its listener's.
    model.change(embryo, |end| (end.is_embryo, end.name) = (false, None));
    model.hold(at.who, made, embryo, false);
    Some(())
}

fn accept(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let at = model.pick(rng, |thing| !thing.waiting.is_empty())?;
    accept_at(model, at)
}

fn receiver(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let who = process(model, rng);
    let held = socket(model, who, Kind::Dgram, rng);
    if rng.u8(0..5) > 0 {
        let name = name(model, who, rng);
        bind(model, held, name);
    }
    Some(())
}

fn is_named_datagram(thing: &Thing) -> bool {
    thing.kind == Kind::Dgram && thing.name.is_some()
}

fn datagram_connect(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let to = model.pick(rng, is_named_datagram)?;
    let from = match rng.u8(0..4) {
        0 => to,
        1 => {
            let who = process(model, rng);
            socket(model, who, Kind::Dgram, rng)
        }
        _ => model.pick(rng, |thing| thing.kind == Kind::Dgram)?,
    };
    let name = model.get(to.thing)?.name.clone()?;
    model.act(from.who, Act::Connect { slot: from.slot, name: name.clone() });
    let is_open = model.get(to.thing)?.peer.is_none_or(|peer| peer == from.thing);
    if is_open {
        model.change(from.thing, |thing| thing.peer = Some(to.thing));
        model.may_err();
    }
    if rng.bool() && from.thing != to.thing {
        // And back.
        let back = model.get(from.thing)?.name.clone()?;
        model.act(to.who, Act::Connect { slot: to.slot, name: back });
        model.change(to.thing, |thing| thing.peer = Some(from.thing));
    }
    Some(())
}

fn disconnect(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let held = model.pick(rng, |thing| thing.kind == Kind::Dgram && thing.peer.is_some())?;
    model.act(held.who, Act::Disconnect { slot: held.slot });
    model.change(held.thing, |thing| thing.peer = None);
    model.may_err();
    Some(())
}

fn close(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let held = model.pick(rng, |_| true)?;
    let peer = model.get(held.thing)?.peer;
    // Most often something is left to be read, here or there.
    if peer.is_some() && rng.bool() {
        let parcel = Parcel { bytes: 5, ..Parcel::default() };
        let from = model.held.iter().find(|other| Some(other.thing) == peer).copied();
        let from = from.filter(|_| rng.bool()).unwrap_or(held);
        model.act(from.who, Act::Send { slot: from.slot, parcel });
    }
    model.close(held);
    Some(())
}

fn duplicate(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let held = model.pick(rng, |_| true)?;
    let (made, close_on_exec) = (model.slots(1), rng.bool());
    model.act(held.who, Act::Dup { slot: held.slot, made, close_on_exec });
    model.hold(held.who, made, held.thing, close_on_exec);
    Some(())
}

fn shutdown(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let held = model.pick(rng, |thing| thing.state == State::Connected && thing.peer.is_some())?;
    let how = rng.choice(["read", "write", "write", "both"])?;
    model.act(held.who, Act::Shutdown { slot: held.slot, how });
    Some(())
}

fn child(model: &mut Model, rng: &mut Rng) -> Option<()> {
    if model.processes >= 3 || model.held.is_empty() {
        return None;
    }
    let child = model.processes;
    model.processes += 1;
    model.act(0, Act::Child { child });
    let inherited: Vec<Held> =
        model.held.iter().filter(|held| held.who == 0 && !held.close_on_exec).copied().collect();
    for held in inherited {
        model.held.push(Held { who: child, ..held });
        // Some have it both, some one of them.
        match rng.u8(0..4) {
            0 => model.close(Held { who: child, ..held }),
            1 => model.close(held),
            _ => {}
        }
    }
    Some(())
}

/// Connections of other users.
fn strangers(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let who = process(model, rng);
    model.act(who, Act::Ids { uid: 1234, gid: 5678 });
    match rng.u8(0..3) {
        0 => pair(model, rng),
        1 => listener(model, rng),
        _ => client(model, rng),
    };
    model.act(who, Act::Ids { uid: 0, gid: 0 });
    Some(())
}

fn autobind(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let held = model.pick(rng, |thing| thing.name.is_none() && !thing.is_embryo)?;
    model.act(held.who, Act::Autobind { slot: held.slot });
    Some(())
}

/// A listener goes, its connections stay.
fn lost_listener(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let held = model.pick(rng, |thing| thing.state == State::Listening)?;
    model.close(held);
    Some(())
}
