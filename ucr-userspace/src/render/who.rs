//! Who is on the other end: some lines for people, an object for programs.

use std::{
    fmt,
    io::{self, Write},
};

use serde_json::{Value, json};

use super::time::{Duration, Utc};
use crate::{
    kernel::clock,
    model::{
        Count, Who,
        name::{Escaped, Exact},
    },
    query::who::{Answer, Connection, Deed, Described, Held, Subject},
};

/// Connections that are shown one by one.
const SHOWN: usize = 200;

/// An answer for people.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(pub &'a Answer);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, subject) in self.0.subjects.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write_subject(f, subject)?;
        }
        if !self.0.subjects.is_empty() && self.0.tracing_since.is_none() {
            writeln!(
                f,
                "\nTracing is not attached: who made, bound and connected these, and when, is not known."
            )?;
        }
        Ok(())
    }
}

fn write_subject(f: &mut fmt::Formatter<'_>, subject: &Subject) -> fmt::Result {
    write_socket(f, "", &subject.socket)?;
    if let Some(peer) = &subject.peer {
        writeln!(f, "the other end:")?;
        write_socket(f, "  ", peer)?;
    } else if subject.socket.state == "peer-closed" {
        writeln!(f, "the other end: closed")?;
    }
    if !subject.connections.is_empty() {
        writeln!(f, "{}:", Count(subject.connections.len(), "connection"))?;
        for connection in subject.connections.iter().take(SHOWN) {
            write_connection(f, connection)?;
        }
        left_out(f, subject.connections.len())?;
    }
    if !subject.senders.is_empty() {
        writeln!(f, "{} connected to it:", Count(subject.senders.len(), "socket"))?;
        for sender in subject.senders.iter().take(SHOWN) {
            writeln!(f, "  {} {}", Id(sender), Holders(&sender.holders))?;
        }
        left_out(f, subject.senders.len())?;
    }
    Ok(())
}

fn left_out(f: &mut fmt::Formatter<'_>, all: usize) -> fmt::Result {
    match all.saturating_sub(SHOWN) {
        0 => Ok(()),
        more => writeln!(f, "  … and {more} more (--json has them all)"),
    }
}

fn write_socket(f: &mut fmt::Formatter<'_>, indent: &str, socket: &Described) -> fmt::Result {
    write!(f, "{indent}{} {} {}", socket.socket_type, socket.state, Id(socket))?;
    if socket.name.is_named() {
        write!(f, " {}", socket.name)?;
    }
    if let Some(directory) = &socket.directory {
        write!(f, " in {}", Escaped(directory))?;
    }
    writeln!(f)?;
    match socket.holders.as_slice() {
        [] if socket.state == "not-accepted" => {
            writeln!(f, "{indent}  held by  nobody yet: it waits to be accepted")?;
        }
        [] => writeln!(f, "{indent}  held by  no descriptor")?,
        holders => {
            for (at, holder) in holders.iter().enumerate() {
                let label = if at == 0 { "held by " } else { "        " };
                writeln!(f, "{indent}  {label} {}", Holder(holder))?;
            }
        }
    }
    if socket.other_references > 0 {
        let count = Count(socket.other_references, "reference");
        writeln!(f, "{indent}           and {count} more: a message, a running call or io_uring")?;
    }
    let deeds = [
        ("made    ", &socket.created),
        ("bound   ", &socket.bound),
        (opened(socket), &socket.opened),
    ];
    for (label, deed) in deeds {
        if let Some(deed) = deed {
            writeln!(f, "{indent}  {label} {}", Done(deed))?;
        }
    }
    if let Some(pid) = socket.peer_credentials.filter(|_| socket.created.is_none()) {
        writeln!(f, "{indent}  sees     pid {pid} in SO_PEERCRED: who opened the other end")?;
    }
    write_queues(f, indent, socket)?;
    if let Some(shutdown) = &socket.shutdown {
        writeln!(f, "{indent}  shut down {shutdown}")?;
    }
    match socket.known.as_str() {
        "predates" => writeln!(f, "{indent}  known    from before tracing began")?,
        "seen-late" => writeln!(f, "{indent}  known    since the middle of its life")?,
        "found" => writeln!(f, "{indent}  known    since a reconciliation found it")?,
        "not-tracked" => {
            writeln!(f, "{indent}  known    from the kernel alone: tracing missed it")?;
        }
        _ => {}
    }
    Ok(())
}

fn opened(socket: &Described) -> &'static str {
    match (socket.state.as_str(), socket.role.as_deref()) {
        ("listening", _) => "listens ",
        (_, Some("server")) => "accepted",
        _ => "connected",
    }
}

fn write_queues(f: &mut fmt::Formatter<'_>, indent: &str, socket: &Described) -> fmt::Result {
    if let Some(backlog) = socket.backlog {
        let waiting = Count(socket.receive_count, "connection");
        return writeln!(f, "{indent}  queue    {waiting} of at most {backlog} not accepted");
    }
    if socket.receive_count > 0 {
        let messages = Count(socket.receive_count, "message");
        let bytes = Count(socket.receive_bytes, "byte");
        let least = if socket.receive_more { "at least " } else { "" };
        writeln!(f, "{indent}  unread   {least}{bytes} in {messages}")?;
    }
    if socket.send_bytes > 0 {
        let bytes = Count(u64::from(socket.send_bytes), "byte");
        writeln!(f, "{indent}  unsent   {bytes} of memory for what the other end has not read")?;
    }
    Ok(())
}

fn write_connection(f: &mut fmt::Formatter<'_>, connection: &Connection) -> fmt::Result {
    let server = &connection.server;
    let waits = if server.state == "not-accepted" { "waits    " } else { "         " };
    match &connection.client {
        Some(client) => {
            write!(f, "  {waits}{} {}", Id(client), Holders(&client.holders))?;
        }
        None => write!(f, "  {waits}client has closed")?,
    }
    if server.state != "not-accepted" {
        write!(f, " -> {} {}", Id(server), Holders(&server.holders))?;
    }
    if let Some(deed) = server.created.as_ref().or(server.opened.as_ref()) {
        write!(f, "  since {}", Utc(deed.at))?;
    }
    if server.receive_bytes > 0 {
        write!(f, "  {} unread", Count(server.receive_bytes, "byte"))?;
    }
    writeln!(f)
}

/// `[inode]`, or what there is in its place.
struct Id<'a>(&'a Described);

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.inode, self.0.cookie) {
            (Some(inode), _) => write!(f, "[{inode}]"),
            (None, Some(cookie)) => write!(f, "[cookie {cookie}]"),
            (None, None) => f.write_str("[-]"),
        }
    }
}

struct Holder<'a>(&'a Held);

impl fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.0;
        write!(
            f,
            "{} (pid {}, fd {}, user {})",
            Escaped(&held.comm),
            held.pid,
            held.fd,
            Escaped(held.user.as_bytes())
        )?;
        let Some(group) = &held.cgroup else { return Ok(()) };
        if let Some(container) = &group.container {
            write!(f, " in {container}")?;
        } else if let Some(unit) = &group.unit {
            write!(f, " in {unit}")?;
        }
        Ok(())
    }
}

struct Holders<'a>(&'a [Held]);

impl fmt::Display for Holders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, rest)) = self.0.split_first() else { return f.write_str("nobody") };
        write!(f, "{} (pid {}, fd {})", Escaped(&first.comm), first.pid, first.fd)?;
        if !rest.is_empty() {
            write!(f, " +{}", rest.len())?;
        }
        Ok(())
    }
}

struct Done<'a>(&'a Deed);

impl fmt::Display for Done<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Deed { at, by } = self.0;
        let ago = Duration(clock::realtime().saturating_sub(*at));
        write!(f, "{} ({ago} ago) by {} (pid {}", Utc(*at), Escaped(&by.comm), by.pid)?;
        write!(f, ", user id {})", by.uid)
    }
}

/// Writes answers as one JSON document.
///
/// # Errors
/// The writer's.
pub fn json(answers: &[Answer], out: &mut impl Write) -> io::Result<()> {
    let answers: Vec<Value> = answers.iter().map(answer).collect();
    writeln!(out, "{:#}", json!({ "answers": answers }))
}

fn answer(answer: &Answer) -> Value {
    json!({
        "target": answer.target,
        "tracing_since": answer.tracing_since.map(|at| Utc(at).to_string()),
        "sockets": answer.subjects.iter().map(|subject| json!({
            "socket": described(&subject.socket),
            "peer": subject.peer.as_ref().map(described),
            "connections": subject.connections.iter().map(|connection| json!({
                "server": described(&connection.server),
                "client": connection.client.as_ref().map(described),
            })).collect::<Vec<_>>(),
            "senders": subject.senders.iter().map(described).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "notes": answer.notes,
    })
}

fn described(socket: &Described) -> Value {
    let holders: Vec<Value> = socket
        .holders
        .iter()
        .map(|held| {
            let group = held.cgroup.as_ref();
            json!({
                "pid": held.pid,
                "fd": held.fd,
                "comm": super::json::bytes(&held.comm),
                "uid": held.uid,
                "user": held.user,
                "cgroup": group.map(|group| super::json::bytes(&group.path)),
                "unit": group.and_then(|group| group.unit.clone()),
                "container": group.and_then(|group| group.container.as_ref().map(ToString::to_string)),
            })
        })
        .collect();
    json!({
        "inode": socket.inode,
        "cookie": socket.cookie,
        "netns": socket.netns,
        "type": socket.socket_type,
        "state": socket.state,
        "name": Exact(&socket.name),
        "directory": socket.directory.as_ref().map(|path| super::json::bytes(path)),
        "shutdown": socket.shutdown,
        "backlog": socket.backlog,
        "receive_bytes": socket.receive_bytes,
        "receive_bytes_is_lower_bound": socket.receive_more,
        "receive_count": socket.receive_count,
        "send_bytes": socket.send_bytes,
        "holders": holders,
        "other_references": socket.other_references,
        "known": socket.known,
        "role": socket.role,
        "created": socket.created.as_ref().map(deed),
        "bound": socket.bound.as_ref().map(deed),
        "opened": socket.opened.as_ref().map(deed),
        "peer_credentials_pid": socket.peer_credentials,
        "maker_uid": socket.maker_uid,
    })
}

fn deed(deed: &Deed) -> Value {
    let Who { pid, tid, uid, gid, cgroup, comm } = &deed.by;
    json!({
        "at": Utc(deed.at).to_string(),
        "pid": pid,
        "tid": tid,
        "uid": uid,
        "gid": gid,
        "cgroup_id": cgroup,
        "comm": super::json::bytes(comm),
    })
}
