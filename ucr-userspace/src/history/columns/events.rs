//! The columns of past events.

use nix::errno::Errno;

use super::{bytes, number, text, time};
use crate::{
    history::{entry::Past, search::Found},
    model::SocketType,
    query::{Column, Side, Value},
    tracer::event::KINDS,
};

/// What is shown of events if nobody says otherwise.
pub const DEFAULT: [&str; 8] = ["time", "event", "pid", "comm", "fd", "inode", "peer", "name"];

type Cell = fn(&Found<Past>) -> Value;

const fn left(name: &'static str, about: &'static str, get: Cell) -> Column<Found<Past>> {
    Column { name, about, side: Side::Left, get }
}

const fn right(name: &'static str, about: &'static str, get: Cell) -> Column<Found<Past>> {
    Column { name, about, side: Side::Right, get }
}

/// All columns of events.
#[must_use]
pub fn all() -> &'static [Column<Found<Past>>] {
    static ALL: [Column<Found<Past>>; 25] = [
        left("time", "when it happened", |f| time(f, Some(f.entry.time))),
        left("event", "what happened", |f| text(kind(f.entry.kind))),
        right("pid", "who did it: process", |f| number(Some(f.entry.actor.pid))),
        right("tid", "who did it: thread", |f| number(Some(f.entry.actor.tid))),
        left("comm", "who did it: command", |f| bytes(Some(&f.entry.actor.comm))),
        right("uid", "who did it: user", |f| number(Some(f.entry.actor.uid))),
        right("gid", "who did it: group", |f| number(Some(f.entry.actor.gid))),
        right("cgroup", "who did it: cgroup id", |f| number(Some(f.entry.actor.cgroup))),
        right("fd", "the descriptor", |f| number(u32::try_from(f.entry.fd).ok())),
        right("fd2", "the other descriptor of accept and socketpair", |f| {
            number(u32::try_from(f.entry.fd2).ok())
        }),
        right("inode", "the socket: inode", |f| number(f.entry.socket.and_then(|s| s.inode))),
        right("cookie", "the socket: cookie", |f| number(f.entry.socket.and_then(|s| s.cookie))),
        right("peer", "its peer: inode", |f| number(f.entry.peer.and_then(|s| s.inode))),
        right("peer.cookie", "its peer: cookie", |f| number(f.entry.peer.and_then(|s| s.cookie))),
        right("listener", "its listener: inode", |f| {
            number(f.entry.listener.and_then(|s| s.inode))
        }),
        right("listener.cookie", "its listener: cookie", |f| {
            number(f.entry.listener.and_then(|s| s.cookie))
        }),
        right("netns", "inode of its network namespace", |f| number(Some(f.entry.netns))),
        left("type", "stream, dgram or seqpacket", |f| {
            let known = i32::try_from(f.entry.socket_type).ok().and_then(SocketType::from_raw);
            known.map_or(Value::Absent, |known| text(known.to_string()))
        }),
        left("name", "the name that it is about", |f| match &f.entry.name {
            name if name.is_named() => Value::Name(name.clone()),
            _ => Value::Absent,
        }),
        left("cwd", "working directory of who bound it", |f| {
            bytes(f.entry.directories.as_ref().map(|both| &both.cwd.path))
        }),
        left("root", "root directory of who bound it", |f| {
            bytes(f.entry.directories.as_ref().map(|both| &both.root.path))
        }),
        right("argument", "backlog, what is shut down, whether it was never accepted", |f| {
            number(Some(f.entry.argument))
        }),
        left("result", "why it failed, if it did", |f| match f.entry.result {
            0.. => Value::Absent,
            failed => text(format!("{:?}", Errno::from_raw(failed.wrapping_neg()))),
        }),
        left("boot", "the boot that it is of", |f| Value::Text(f.boot.to_string().into())),
        right("time.boottime", "when it happened, since that boot", |f| Value::Span(f.entry.time)),
    ];
    &ALL
}

/// What happened, in a word. Kinds are numbered from 1 on.
fn kind(number: u32) -> &'static str {
    let place = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    place.and_then(|place| KINDS.get(place)).copied().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ucr_common::event::kind;

    use super::*;
    use crate::history::samples::event;

    fn cell(name: &str, entry: &Past) -> Value {
        let found = Found { entry: entry.clone(), realtime_offset: 1, boot: "b".into() };
        let column = all().iter().find(|column| column.name == name).expect("a column");
        (column.get)(&found)
    }

    #[test]
    fn every_name_is_there_once_and_the_default_ones_are_there() {
        let names: HashSet<_> = all().iter().map(|column| column.name).collect();
        assert_eq!(names.len(), all().len());
        assert!(DEFAULT.iter().all(|name| names.contains(name)));
    }

    #[test]
    fn kinds_are_called_as_the_tracer_calls_them() {
        let called = |kind| cell("event", &Past { kind, ..event(0) });
        assert_eq!(called(kind::SOCKET), Value::Text("socket".into()));
        assert_eq!(called(kind::TAKE), Value::Text("take".into()));
        assert_eq!(called(0), Value::Text("unknown".into()));
        assert_eq!(called(kind::STATE + 1), Value::Text("unknown".into()));
    }

    #[test]
    fn a_call_that_failed_says_why() {
        let failed = Past { result: -libc::EADDRINUSE, fd: -1, ..event(0) };
        assert_eq!(cell("result", &failed), Value::Text("EADDRINUSE".into()));
        assert_eq!(cell("fd", &failed), Value::Absent);
        assert_eq!(cell("result", &event(0)), Value::Absent);
        assert_eq!(cell("time", &event(0)), Value::Time(1001));
    }
}
