//! The columns of what is gone: closed sockets here, events in [`events`].

pub mod events;

use std::borrow::Cow;

use super::{
    entry::{End, Gone, How, PeerThen},
    search::Found,
};
use crate::{
    ledger::{Origin, TrackedRole},
    model::Who,
    query::{Column, Side, Value},
};

/// What is shown of closed sockets if nobody says otherwise.
pub const DEFAULT: [&str; 8] =
    ["closed", "lifetime", "inode", "type", "state", "name", "closer.comm", "peer.comm"];

type Cell = fn(&Found<Gone>) -> Value;

const fn left(name: &'static str, about: &'static str, get: Cell) -> Column<Found<Gone>> {
    Column { name, about, side: Side::Left, get }
}

const fn right(name: &'static str, about: &'static str, get: Cell) -> Column<Found<Gone>> {
    Column { name, about, side: Side::Right, get }
}

/// All columns of closed sockets.
#[must_use]
pub fn all() -> &'static [Column<Found<Gone>>] {
    static ALL: [Column<Found<Gone>>; 46] = [
        right("cookie", "its cookie, if somebody had asked for it", |f| number(f.entry.cookie)),
        right("inode", "its inode", |f| number(f.entry.inode)),
        right("netns", "inode of its network namespace", |f| number(Some(f.entry.netns))),
        left("type", "stream, dgram or seqpacket", |f| text(f.entry.socket_type.to_string())),
        left("state", "the last one", |f| text(f.entry.state.to_string())),
        left("name", "its own name", |f| match &f.entry.name {
            name if name.is_named() => Value::Name(name.clone()),
            _ => Value::Absent,
        }),
        left("cwd", "working directory of who bound it", |f| {
            bytes(f.entry.directories.as_ref().map(|both| &both.cwd.path))
        }),
        left("root", "root directory of who bound it", |f| {
            bytes(f.entry.directories.as_ref().map(|both| &both.root.path))
        }),
        left("role", "which end of a connection it was", |f| match f.entry.role {
            TrackedRole::None => Value::Absent,
            TrackedRole::Client => text("client"),
            TrackedRole::Server => text("server"),
            TrackedRole::Pair => text("pair"),
        }),
        left("origin", "how it came to be known", |f| text(origin(f.entry.origin))),
        left("created", "when it was created", |f| time(f, f.entry.created_at)),
        right("creator.pid", "who created it: process", |f| pid(&f.entry.creator)),
        left("creator.comm", "who created it: command", |f| comm(&f.entry.creator)),
        right("creator.uid", "who created it: user", |f| uid(&f.entry.creator)),
        right("creator.gid", "who created it: group", |f| gid(&f.entry.creator)),
        right("creator.cgroup", "who created it: cgroup id", |f| cgroup(&f.entry.creator)),
        left("bound", "when it got its name", |f| time(f, f.entry.bound_at)),
        right("binder.pid", "who bound it: process", |f| pid(&f.entry.binder)),
        left("binder.comm", "who bound it: command", |f| comm(&f.entry.binder)),
        right("binder.uid", "who bound it: user", |f| uid(&f.entry.binder)),
        right("binder.gid", "who bound it: group", |f| gid(&f.entry.binder)),
        right("binder.cgroup", "who bound it: cgroup id", |f| cgroup(&f.entry.binder)),
        left("opened", "when it listened, connected or was accepted", |f| {
            time(f, f.entry.opened_at)
        }),
        right("opener.pid", "who opened it: process", |f| pid(&f.entry.opener)),
        left("opener.comm", "who opened it: command", |f| comm(&f.entry.opener)),
        right("opener.uid", "who opened it: user", |f| uid(&f.entry.opener)),
        right("opener.gid", "who opened it: group", |f| gid(&f.entry.opener)),
        right("opener.cgroup", "who opened it: cgroup id", |f| cgroup(&f.entry.opener)),
        left("closed", "when it closed", |f| time(f, Some(f.entry.closed_at))),
        right("closer.pid", "who closed it: process", |f| pid(&f.entry.closer)),
        left("closer.comm", "who closed it: command", |f| comm(&f.entry.closer)),
        right("closer.uid", "who closed it: user", |f| uid(&f.entry.closer)),
        right("closer.gid", "who closed it: group", |f| gid(&f.entry.closer)),
        right("closer.cgroup", "who closed it: cgroup id", |f| cgroup(&f.entry.closer)),
        right("lifetime", "from its creation to its end", |f| match f.entry.created_at {
            Some(created) => Value::Span(f.entry.closed_at.saturating_sub(created)),
            None => Value::Absent,
        }),
        left("end", "closed, or never accepted", |f| match f.entry.end {
            End::Closed => text("closed"),
            End::NeverAccepted => text("never accepted"),
        }),
        left("how", "seen: its close was; reconciled: it was found gone by then", |f| {
            match f.entry.how {
                How::Seen => text("seen"),
                How::Reconciled => text("reconciled"),
            }
        }),
        right("peer", "its peer: inode", |f| number(peer(f).and_then(|peer| peer.socket.inode))),
        right("peer.cookie", "its peer: cookie", |f| {
            number(peer(f).and_then(|peer| peer.socket.cookie))
        }),
        right("peer.pid", "whose its peer was: process", |f| {
            number(peer(f).and_then(|peer| peer.owner.as_ref()).map(|owner| owner.pid))
        }),
        left("peer.comm", "whose its peer was: command", |f| {
            bytes(peer(f).and_then(|peer| peer.owner.as_ref()).map(|owner| &owner.comm))
        }),
        right("peer.uid", "whose its peer was: user", |f| {
            number(peer(f).and_then(|peer| peer.owner.as_ref()).map(|owner| owner.uid))
        }),
        right("listener", "the listener that it came through: inode", |f| {
            number(f.entry.listener.and_then(|listener| listener.inode))
        }),
        right("listener.cookie", "the listener that it came through: cookie", |f| {
            number(f.entry.listener.and_then(|listener| listener.cookie))
        }),
        left("boot", "the boot that it is of", |f| Value::Text(f.boot.to_string().into())),
        right("closed.boottime", "when it closed, since that boot", |f| {
            Value::Span(f.entry.closed_at)
        }),
    ];
    &ALL
}

fn peer(found: &Found<Gone>) -> Option<&PeerThen> {
    found.entry.peer.as_ref()
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Socket => "socket",
        Origin::Pair => "socketpair",
        Origin::Connection => "connection",
        Origin::Accept => "accept",
        Origin::Seed => "seed",
        Origin::Late => "late",
        Origin::Found => "found",
    }
}

fn number(number: Option<impl Into<u64>>) -> Value {
    number.map_or(Value::Absent, |number| Value::Number(number.into()))
}

/// Words of our own.
fn text(word: impl Into<Cow<'static, str>>) -> Value {
    Value::Text(word.into())
}

fn bytes(bytes: Option<&Vec<u8>>) -> Value {
    bytes.map_or(Value::Absent, |bytes| Value::Bytes(bytes.clone()))
}

fn time<T>(found: &Found<T>, stamp: Option<u64>) -> Value {
    stamp.map_or(Value::Absent, |stamp| Value::Time(found.realtime(stamp)))
}

fn pid(who: &Option<Who>) -> Value {
    number(who.as_ref().map(|who| who.pid))
}

fn comm(who: &Option<Who>) -> Value {
    bytes(who.as_ref().map(|who| &who.comm))
}

fn uid(who: &Option<Who>) -> Value {
    number(who.as_ref().map(|who| who.uid))
}

fn gid(who: &Option<Who>) -> Value {
    number(who.as_ref().map(|who| who.gid))
}

fn cgroup(who: &Option<Who>) -> Value {
    number(who.as_ref().map(|who| who.cgroup))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::history::samples::closed_socket;

    fn cell(name: &str, found: &Found<Gone>) -> Value {
        let column = all().iter().find(|column| column.name == name).expect("a column");
        (column.get)(found)
    }

    #[test]
    fn every_name_is_there_once_and_the_default_ones_are_there() {
        let names: HashSet<_> = all().iter().map(|column| column.name).collect();
        assert_eq!(names.len(), all().len());
        assert!(DEFAULT.iter().all(|name| names.contains(name)));
    }

    #[test]
    fn moments_are_told_as_time_of_day_and_a_life_as_a_span() {
        let mut entry = closed_socket(1);
        let found = |entry| Found { entry, realtime_offset: 5_000, boot: "b".into() };
        assert_eq!(cell("closed", &found(entry.clone())), Value::Time(7_000));
        assert_eq!(cell("created", &found(entry.clone())), Value::Time(6_300));
        assert_eq!(cell("lifetime", &found(entry.clone())), Value::Span(700));
        entry.created_at = None;
        assert_eq!(cell("created", &found(entry.clone())), Value::Absent);
        assert_eq!(cell("lifetime", &found(entry)), Value::Absent);
    }

    #[test]
    fn each_column_tells_its_own_thing() {
        let mut entry = closed_socket(1);
        let who = |n: u32| {
            let comm = vec![b'a', u8::try_from(n).expect("small")];
            Some(Who { pid: n, tid: 0, uid: n + 1, gid: n + 2, cgroup: u64::from(n) + 3, comm })
        };
        (entry.creator, entry.binder, entry.opener, entry.closer) =
            (who(10), who(20), who(30), who(40));
        let found = Found { entry, realtime_offset: 0, boot: "b".into() };
        for (who, n) in [("creator", 10), ("binder", 20), ("opener", 30), ("closer", 40)] {
            for (what, value) in [("pid", n), ("uid", n + 1), ("gid", n + 2), ("cgroup", n + 3)] {
                assert_eq!(cell(&format!("{who}.{what}"), &found), Value::Number(value), "{who}");
            }
        }
        assert_eq!(cell("peer.comm", &found), Value::Bytes(b"client".to_vec()));
        assert_eq!(cell("peer.pid", &found), Value::Number(5));
        assert_eq!(cell("peer.cookie", &found), Value::Number(2));
        assert_eq!(cell("peer", &found), Value::Absent);
        assert_eq!(cell("listener", &found), Value::Number(12));
        assert_eq!(cell("bound", &found), Value::Absent);
    }
}
