//! One event of the tracer: a line for people, an object for programs.

use std::fmt;

use serde_json::{Value, json};
use ucr_common::{event::kind, identity::SocketId};

use super::time::Utc;
use crate::{
    kernel::clock,
    model::{
        Directory, Shutdown,
        name::{Escaped, Exact, Hex},
    },
    tracer::event::TraceEvent,
};

/// An event as a line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a>(pub &'a TraceEvent);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.0;
        let raw = &event.raw;
        let who = Escaped(raw.actor.comm()).to_string();
        let time = Utc(clock::to_realtime(raw.time));
        write!(f, "{time} {:>7} {who:<15} {:<10}", raw.actor.pid, event.kind())?;
        match raw.kind {
            kind::SOCKETPAIR if raw.fd >= 0 => write!(f, " fd {} and {}", raw.fd, raw.fd2)?,
            kind::ACCEPT if raw.fd >= 0 => {
                write!(f, " fd {} from listener fd {}", raw.fd2, raw.fd)?;
            }
            kind::PASS | kind::TAKE if raw.fd >= 0 => write!(f, " by fd {}", raw.fd)?,
            _ if raw.fd >= 0 => write!(f, " fd {}", raw.fd)?,
            _ => {}
        }
        match (event.over(), event.socket_type()) {
            (Some(over), _) => write!(f, " {over}")?,
            (None, Some(socket_type)) => write!(f, " {socket_type}")?,
            (None, None) => {}
        }
        if raw.socket.inode != 0 {
            write!(f, " [{}]", raw.socket.inode)?;
        }
        if raw.peer.sk != 0 {
            match raw.peer.inode {
                inode if raw.kind == kind::PASS => write!(f, " into the queue of [{inode}]")?,
                inode if raw.kind == kind::TAKE => write!(f, " out of the queue of [{inode}]")?,
                0 if raw.kind == kind::CONNECT => f.write_str(" peer [not accepted]")?,
                0 => f.write_str(" peer [not accepted, or closed]")?,
                inode => write!(f, " peer [{inode}]")?,
            }
        }
        self.ends(f)?;
        if event.name().is_named() {
            write!(f, " {}", event.name())?;
        }
        if let Some(directories) = &event.directories
            && event.name().is_relative_path()
        {
            write!(f, " in {}", shown(&directories.cwd))?;
        }
        if let Some(directories) = &event.directories
            && directories.root.path != b"/"
        {
            write!(f, " under root {}", shown(&directories.root))?;
        }
        match raw.kind {
            kind::LISTEN => write!(f, " backlog {}", raw.argument)?,
            kind::CONNECT if event.is_in_progress() => f.write_str(" under way")?,
            kind::CLOSE if raw.argument == 1 => f.write_str(" never accepted")?,
            kind::SHUTDOWN if raw.result >= 0 => {
                write!(f, " {}", Shutdown(u8::try_from(raw.argument).unwrap_or(0)))?;
            }
            _ => {}
        }
        event.errno().map_or(Ok(()), |errno| write!(f, " failed: {errno:?}"))
    }
}

impl Line<'_> {
    /// Both ends of an internet socket, and which of them began it.
    fn ends(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [local, remote] = self.0.ends();
        if let Some([before, now]) = self.0.states() {
            write!(f, " {before} to {now}")?;
        }
        if let Some(local) = local {
            write!(f, " {local}")?;
        }
        let began = if self.0.raw.kind == kind::ACCEPT { "<-" } else { "->" };
        remote.map_or(Ok(()), |remote| write!(f, " {began} {remote}"))
    }
}

fn shown(directory: &Directory) -> String {
    let cut = if directory.whole { "" } else { "…" };
    format!("{cut}{}", Escaped(&directory.path))
}

/// An event as an object. Kernel addresses are left out.
#[must_use]
pub fn json(event: &TraceEvent) -> Value {
    let raw = &event.raw;
    let directory = |directory: &Directory| {
        let mut value = super::json::bytes(&directory.path);
        if let Some(fields) = value.as_object_mut() {
            fields.insert("whole".to_owned(), json!(directory.whole));
        }
        value
    };
    let descriptor = |fd: i32| (fd >= 0).then_some(fd);
    json!({
        "event": event.kind(),
        "time_ns_since_boot": raw.time,
        "time": Utc(clock::to_realtime(raw.time)).to_string(),
        "pid": raw.actor.pid,
        "tid": raw.actor.tid,
        "uid": raw.actor.uid,
        "gid": raw.actor.gid,
        "comm": String::from_utf8_lossy(raw.actor.comm()),
        "comm_hex": Hex(raw.actor.comm()).to_string(),
        "cgroup": raw.actor.cgroup,
        "netns": raw.netns,
        "fd": descriptor(raw.fd),
        "fd2": descriptor(raw.fd2),
        "type": event.socket_type(),
        "family": event.family(),
        "protocol": event.over().map(|over| over.0),
        "local": event.ends()[0].map(|end| end.to_string()),
        "remote": event.ends()[1].map(|end| end.to_string()),
        "states": event.states(),
        "socket": identity(&raw.socket),
        "peer": identity(&raw.peer),
        "listener": identity(&raw.listener),
        "name": Exact(&event.name()),
        "cwd": event.directories.as_ref().map(|d| directory(&d.cwd)),
        "root": event.directories.as_ref().map(|d| directory(&d.root)),
        "argument": raw.argument,
        "result": raw.result,
        "errno": event.errno().map(|errno| format!("{errno:?}")),
    })
}

/// `null` for no socket; a 0 inside is not known (yet).
fn identity(id: &SocketId) -> Value {
    if id.sk == 0 {
        return Value::Null;
    }
    let known = |value: u64| (value != 0).then_some(value);
    json!({ "inode": known(id.inode), "cookie": known(id.cookie) })
}
