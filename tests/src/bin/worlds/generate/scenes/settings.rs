//! What is set on a socket, and what becomes of its file.

use fastrand::Rng;

use super::{
    super::model::{Held, Model, State, Thing},
    bind, connecting, process, socket,
};
use crate::op::{Act, Name};

pub(super) fn option_of(model: &mut Model, held: Held, rng: &mut Rng) {
    let number = |value: i32| value.to_ne_bytes().to_vec();
    let pair = |a: i64, b: i64| [a.to_ne_bytes(), b.to_ne_bytes()].concat();
    let linger = [number(1), number(7)].concat();
    let options = [
        (libc::SO_PASSCRED, number(1)),
        (libc::SO_PASSCRED, number(1)),
        (libc::SO_KEEPALIVE, number(1)),
        (libc::SO_OOBINLINE, number(1)),
        (libc::SO_PRIORITY, number(3)),
        (libc::SO_LINGER, linger),
        (libc::SO_RCVLOWAT, number(9)),
        (libc::SO_RCVTIMEO, pair(2, 500_000)),
        (libc::SO_TIMESTAMP, number(1)),
        (libc::SO_MARK, number(77)),
        (libc::SO_PEEK_OFF, number(rng.i32(0..4))),
        (libc::SO_SNDBUF, number(rng.i32(2000..60_000))),
        (libc::SO_RCVBUF, number(rng.i32(2000..60_000))),
        (libc::SO_PASSSEC, number(1)),
    ];
    if let Some((option, value)) = rng.choice(options) {
        model.act(held.who, Act::Set { slot: held.slot, option, value });
    }
}

pub(super) fn option(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let held = model.pick(rng, |_| true)?;
    option_of(model, held, rng);
    Some(())
}

pub(super) fn owner(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let held = model.pick(rng, |_| true)?;
    let (kind, of) = (rng.choice(["thread", "process"])?, process(model, rng));
    let signal = rng.choice([0, libc::SIGUSR1])?;
    model.act(held.who, Act::Owner { slot: held.slot, kind, of, signal });
    Some(())
}

pub(super) fn filter(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let held = model.pick(rng, |thing| thing.state != State::Listening)?;
    model.act(held.who, Act::Filter { slot: held.slot, kept: rng.u32(1..2000) });
    Some(())
}

pub(super) fn nonblock(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let held = model.pick(rng, |_| true)?;
    model.act(held.who, Act::Nonblock { slot: held.slot });
    Some(())
}

/// Something happens to a socket file.
pub(super) fn file(model: &mut Model, rng: &mut Rng) -> Option<()> {
    let is_file = |thing: &Thing| match &thing.name {
        Some(Name::Path(_)) => true,
        // Without a tracer nobody knows relative to what.
        Some(Name::Relative(..)) => model.traced,
        _ => false,
    };
    let held = model.pick(rng, is_file)?;
    let name = model.get(held.thing)?.name.clone()?;
    match rng.u8(0..5) {
        0 | 1 => model.act(0, Act::Unlink { name: name.clone() }),
        2 | 3 => {
            let to = rng.u8(0..9);
            model.files.insert(to);
            model.act(0, Act::Rename { name: name.clone(), to });
        }
        _ => {
            model.act(0, Act::Unlink { name: name.clone() });
            model.act(0, Act::Touch { name: name.clone() });
        }
    }
    // Another one may be bound there.
    if let Name::Path(n) = name
        && rng.bool()
    {
        let again = socket(model, held.who, connecting(rng), rng);
        bind(model, again, Name::Path(n));
    }
    Some(())
}
