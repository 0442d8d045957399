//! What can be told of a live socket, column by column.

use std::borrow::Cow;

use super::picture::{Condition, Entry, Holder};
use crate::{
    kernel::clock,
    ledger::{Tracked, TrackedRole},
    model::{Shutdown, SocketType, UnixName, Who, name::push_escaped},
    query::{Column, Side, Value, value::push_number},
};

/// What a listing shows if nobody says otherwise.
pub const DEFAULTS: [&str; 9] =
    ["type", "state", "recv_q", "send_q", "inode", "name", "peer", "owner", "peer.owner"];

/// All of them.
#[must_use]
pub fn columns<'a>() -> Vec<Column<Entry<'a>>> {
    let mut columns = own();
    columns.extend(of_the_peer());
    columns.extend(of_the_holder());
    columns.extend(tracked());
    columns
}

fn left<'a>(
    name: &'static str,
    about: &'static str,
    get: fn(&Entry<'a>) -> Value,
) -> Column<Entry<'a>> {
    Column { name, about, side: Side::Left, get }
}

fn right<'a>(
    name: &'static str,
    about: &'static str,
    get: fn(&Entry<'a>) -> Value,
) -> Column<Entry<'a>> {
    Column { name, about, side: Side::Right, get }
}

fn own<'a>() -> Vec<Column<Entry<'a>>> {
    vec![
        right("inode", "inode number; none before it is accepted", |e| {
            known(e.live().sight.raw.socket.inode)
        }),
        right("cookie", "the kernel's own identity of the socket, never used again", |e| {
            known(e.live().sight.raw.socket.cookie)
        }),
        right("netns", "network namespace, by inode number", |e| {
            known(e.live().sight.raw.netns.into())
        }),
        left("type", "stream, dgram or seqpacket", |e| {
            let kind = SocketType::from_raw(e.live().sight.raw.socket_type.into());
            kind.map_or(Value::Absent, |kind| text(kind.name()))
        }),
        left("state", "unconnected, listening, connected, not-accepted, or peer-closed", |e| {
            text(e.condition().name())
        }),
        right("recv_q", "bytes to be received; of a listener, connections to be accepted", |e| {
            let raw = &e.live().sight.raw;
            let listens = e.condition() == Condition::Listening;
            Value::Number(if listens { raw.receive_count.into() } else { raw.receive_bytes })
        }),
        right("recv_msgs", "messages to be received; of a listener, connections", |e| {
            Value::Number(e.live().sight.raw.receive_count.into())
        }),
        right("send_q", "memory charged for what was sent and not received, in bytes", |e| {
            Value::Number(e.live().sight.raw.send_bytes.into())
        }),
        right("backlog", "of a listener: most connections that wait", |e| match e.condition() {
            Condition::Listening => Value::Number(e.live().sight.raw.backlog.into()),
            _ => Value::Absent,
        }),
        left("shutdown", "directions that are shut down: receive, send or both", |e| {
            let shutdown = Shutdown(e.live().sight.raw.shutdown);
            if shutdown.is_none() { Value::Absent } else { text(shutdown.to_string()) }
        }),
        left("name", "its own name; an abstract one begins with @", |e| name(&e.live().sight.name)),
        right("maker.uid", "user id of who made it", |e| {
            Value::Number(e.live().sight.raw.uid.into())
        }),
        right("references", "references to its file, from descriptors, messages and calls", |e| {
            known(e.live().sight.raw.references)
        }),
    ]
}

fn of_the_peer<'a>() -> Vec<Column<Entry<'a>>> {
    vec![
        right("peer", "inode number of the other end", |e| {
            e.peer().map_or(Value::Absent, |peer| known(peer.live().sight.raw.socket.inode))
        }),
        right("peer.cookie", "cookie of the other end", |e| {
            e.peer().map_or(Value::Absent, |peer| known(peer.live().sight.raw.socket.cookie))
        }),
        left("peer.name", "name of the other end", |e| {
            e.peer().map_or(Value::Absent, |peer| name(&peer.live().sight.name))
        }),
        left("peer.owner", "who holds the other end: command, process, descriptor", |e| {
            e.peer().map_or(Value::Absent, |peer| owners(&peer))
        }),
        right("peer.pid", "process that holds the other end", |e| {
            holder(e.peer().as_ref(), |h| Value::Number(h.pid.into()))
        }),
        left("peer.comm", "its command", |e| {
            holder(e.peer().as_ref(), |h| Value::Bytes(h.comm().to_vec()))
        }),
        right("peer.fd", "its descriptor", |e| {
            holder(e.peer().as_ref(), |h| Value::Number(h.fd.into()))
        }),
        left("peer.unit", "systemd unit of the process that holds the other end", |e| {
            e.peer().map_or(Value::Absent, |peer| unit(&peer))
        }),
    ]
}

fn of_the_holder<'a>() -> Vec<Column<Entry<'a>>> {
    vec![
        left("owner", "who holds it: command, process, descriptor", owners),
        right("holders", "how many descriptors lead to it", |e| {
            Value::Number(u64::try_from(e.live().holders().len()).unwrap_or(u64::MAX))
        }),
        right("pid", "process that holds it (each of them, in a filter)", |e| {
            each(e, |h| Value::Number(h.pid.into()))
        }),
        right("fd", "its descriptor", |e| each(e, |h| Value::Number(h.fd.into()))),
        left("comm", "its command", |e| each(e, |h| Value::Bytes(h.comm().to_vec()))),
        right("uid", "user id of the process that holds it", |e| {
            each(e, |h| Value::Number(h.uid.into()))
        }),
        left("user", "the user's name", |e| {
            let people = &e.picture().people;
            each(e, |h| Value::Bytes(people.user(h.uid).as_bytes().to_vec()))
        }),
        left("cgroup", "control group of the process that holds it", |e| {
            group(e, |group| Value::Bytes(group.path.clone()))
        }),
        left("unit", "its systemd unit", unit),
        left("container", "its container", |e| {
            group(e, |group| {
                group.container.as_ref().map_or(Value::Absent, |c| text(c.to_string()))
            })
        }),
    ]
}

fn tracked<'a>() -> Vec<Column<Entry<'a>>> {
    vec![
        left(
            "known",
            "how: seen-live, seen-late, predates (the tracer), found, not-tracked, snapshot",
            |e| text(e.known().source.name()),
        ),
        left("role", "client, server or pair", |e| {
            told(e, |t| match t.role {
                TrackedRole::None => Value::Absent,
                TrackedRole::Client => text("client"),
                TrackedRole::Server => text("server"),
                TrackedRole::Pair => text("pair"),
            })
        }),
        right("created", "when it was made", |e| told(e, |t| time(t.created_at))),
        right("age", "how long ago that was", |e| told(e, |t| age(t.created_at))),
        right("creator.pid", "process that made it", |e| {
            actor(e, |t| t.creator.as_ref().map(Who::from), |who| Value::Number(who.pid.into()))
        }),
        left("creator.comm", "its command at that time", |e| {
            actor(e, |t| t.creator.as_ref().map(Who::from), |who| Value::Bytes(who.comm))
        }),
        right("creator.uid", "its user id at that time", |e| {
            actor(e, |t| t.creator.as_ref().map(Who::from), |who| Value::Number(who.uid.into()))
        }),
        right("bound", "when it got its name", |e| told(e, |t| time(t.bound_at))),
        right("binder.pid", "process that bound it", |e| {
            actor(e, |t| t.binder.as_ref().map(Who::from), |who| Value::Number(who.pid.into()))
        }),
        left("binder.comm", "its command at that time", |e| {
            actor(e, |t| t.binder.as_ref().map(Who::from), |who| Value::Bytes(who.comm))
        }),
        right("opened", "when it began to listen, was connected, or was accepted", |e| {
            told(e, |t| time(t.opened_at))
        }),
        right("opener.pid", "process that did so", |e| {
            actor(e, |t| t.opener.as_ref().map(Who::from), |who| Value::Number(who.pid.into()))
        }),
        left("opener.comm", "its command at that time", |e| {
            actor(e, |t| t.opener.as_ref().map(Who::from), |who| Value::Bytes(who.comm))
        }),
    ]
}

fn known(number: u64) -> Value {
    if number == 0 { Value::Absent } else { Value::Number(number) }
}

fn text(text: impl Into<Cow<'static, str>>) -> Value {
    Value::Text(text.into())
}

fn name(name: &UnixName) -> Value {
    if name.is_named() { Value::Name(name.clone()) } else { Value::Absent }
}

fn time(stamp: Option<u64>) -> Value {
    stamp.map_or(Value::Absent, |stamp| Value::Time(clock::to_realtime(stamp)))
}

fn age(stamp: Option<u64>) -> Value {
    stamp.map_or(Value::Absent, |stamp| Value::Span(clock::boottime().saturating_sub(stamp)))
}

/// One of them alone, several as a list.
fn each(entry: &Entry<'_>, of: impl Fn(&Holder) -> Value) -> Value {
    let mut holders = entry.live().holders();
    match holders.len() {
        0 | 1 => holders.next().map_or(Value::Absent, |h| of(&h)),
        _ => Value::List(holders.map(|h| of(&h)).collect()),
    }
}

/// The same of the other end.
fn holder(peer: Option<&Entry<'_>>, of: impl Fn(&Holder) -> Value) -> Value {
    peer.map_or(Value::Absent, |peer| each(peer, of))
}

/// `redis-server(1234:7)`; beyond a few, how many more.
fn owners(entry: &Entry<'_>) -> Value {
    const SHOWN: usize = 3;
    let mut holders = entry.live().holders();
    let all = holders.len();
    if all <= 1 {
        return holders.next().map_or(Value::Absent, |h| text(owner(&h)));
    }
    let mut list: Vec<Value> = holders.take(SHOWN).map(|h| text(owner(&h))).collect();
    if all > SHOWN {
        list.push(text(format!("+{}", all - SHOWN)));
    }
    Value::List(list)
}

/// `redis-server(1234:7)`. Every row has one or two: no formatters.
fn owner(holder: &Holder) -> String {
    let mut owner = String::with_capacity(40);
    push_escaped(holder.comm(), &mut owner);
    owner.push('(');
    push_number(holder.pid.into(), &mut owner);
    owner.push(':');
    push_number(holder.fd.into(), &mut owner);
    owner.push(')');
    owner
}

/// Of each holder, once each.
fn group(entry: &Entry<'_>, of: impl Fn(&crate::model::cgroup::Cgroup) -> Value) -> Value {
    let people = &entry.picture().people;
    let mut values: Vec<Value> = Vec::new();
    for holder in entry.live().holders() {
        let value = people.cgroup(holder.pid).map_or(Value::Absent, |group| of(&group));
        if !value.is_absent() && !values.contains(&value) {
            values.push(value);
        }
    }
    match values.len() {
        0 | 1 => values.pop().unwrap_or(Value::Absent),
        _ => Value::List(values),
    }
}

fn unit(entry: &Entry<'_>) -> Value {
    group(entry, |group| group.unit.clone().map_or(Value::Absent, text))
}

fn told(entry: &Entry<'_>, of: impl Fn(&Tracked) -> Value) -> Value {
    entry.known().tracked.as_ref().map_or(Value::Absent, of)
}

fn actor(
    entry: &Entry<'_>,
    who: impl Fn(&Tracked) -> Option<Who>,
    of: impl Fn(Who) -> Value,
) -> Value {
    entry.known().tracked.as_ref().and_then(who).map_or(Value::Absent, of)
}
