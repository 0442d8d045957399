//! Exact JSON: bytes that are no UTF-8 survive as hexadecimal digits.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::image::{Bound, Connection, FileId, Image, KnownFrom, Role, Socket, SocketFile, header};
use crate::model::name::{Exact, Hex};
use crate::model::option_table;
use crate::model::{Credentials, UnixName};
use crate::restore::plan::Plan;

fn hex(bytes: &[u8]) -> String {
    Hex(bytes).to_string()
}

/// Bytes: `text` for reading (lossy), `hex` for using.
#[must_use]
pub fn bytes(bytes: &[u8]) -> Value {
    json!({ "text": String::from_utf8_lossy(bytes), "hex": hex(bytes) })
}

/// A path as text, the way the command line took it; bytes that are no UTF-8 are escaped in it, and
/// stand exactly in hexadecimal digits beside it.
#[must_use]
pub fn path(path: &Path) -> Value {
    let own = path.as_os_str().as_bytes();
    match path.to_str() {
        Some(text) => json!(text),
        None => bytes(own),
    }
}

/// A name: its kind, and its own bytes (without the NUL that marks an abstract name).
#[must_use]
pub fn name(name: &UnixName) -> Value {
    json!(Exact(name))
}

fn file_id(id: FileId) -> Value {
    json!({ "device": id.device, "inode": id.inode, "born": id.born })
}

fn bound(bound: &Bound) -> Value {
    let file = bound.file.as_ref().map(|file| match *file {
        SocketFile::Present { id, mode, uid, gid } => {
            let id = file_id(id);
            json!({ "state": "present", "id": id, "mode": mode, "uid": uid, "gid": gid })
        }
        SocketFile::Deleted => json!({ "state": "deleted" }),
        SocketFile::Replaced => json!({ "state": "replaced" }),
    });
    let directory = bound.directory.as_deref().map(bytes);
    json!({ "name": name(&bound.name), "directory": directory, "file": file })
}

fn credentials(credentials: Credentials) -> Value {
    json!({ "pid": credentials.pid.0, "uid": credentials.uid, "gid": credentials.gid })
}

fn socket(index: usize, socket: &Socket) -> Value {
    let (role, backlog) = match socket.role {
        Role::Unconnected => ("unconnected", None),
        Role::Listening { backlog } => ("listening", Some(backlog)),
        Role::Connected => ("connected", None),
    };
    let known_from = match socket.known_from {
        KnownFrom::SeenLive => "seen_live",
        KnownFrom::PredatesTracer => "predates_tracer",
        KnownFrom::Snapshot => "snapshot",
    };
    let options: Vec<_> = socket
        .options
        .iter()
        .map(|option| {
            let name = option_table::name(option.name);
            json!({ "number": option.name, "name": name, "hex": hex(&option.value) })
        })
        .collect();
    let creator = socket.creator.as_ref().map(|actor| {
        json!({
            "pid": actor.pid.0,
            "tid": actor.tid.0,
            "uid": actor.uid,
            "comm": bytes(&actor.comm),
            "cgroup": actor.cgroup,
        })
    });
    json!({
        "index": index,
        "cookie": socket.cookie,
        "inode": socket.inode,
        "type": socket.socket_type,
        "role": role,
        "backlog": backlog,
        "bound": socket.name.as_ref().map(bound),
        "status_flags": {
            "number": socket.status_flags,
            "nonblock": socket.status_flags & libc::O_NONBLOCK != 0,
            "async": socket.status_flags & libc::O_ASYNC != 0,
        },
        "shutdown": socket.shutdown.0,
        "peer_credentials": socket.peer_credentials.map(credentials),
        "listener_credentials": socket.listener_credentials.map(credentials),
        "options": options,
        "known_from": known_from,
        "created_at_ns_since_boot": socket.created_at,
        "creator": creator,
    })
}

fn connection(connection: &Connection) -> Value {
    match *connection {
        Connection::Pair { a, b } => json!({ "kind": "pair", "a": a.0, "b": b.0 }),
        Connection::Accepted { client, server, listener, order } => json!({
            "kind": "accepted",
            "client": client.0,
            "server": server.0,
            "listener": listener.map(|listener| listener.0),
            "order": order,
        }),
    }
}

/// A whole image: every field of it.
#[must_use]
pub fn image(image: &Image) -> Value {
    let origin = &image.origin;
    let counts = origin.verdicts;
    let processes = image.processes.iter().map(|process| {
        json!({
            "pid": process.pid.0,
            "parent": process.parent.0,
            "comm": bytes(&process.comm),
            "arguments": process.arguments.iter().map(|a| bytes(a)).collect::<Vec<_>>(),
        })
    });
    let descriptors = image.descriptors.iter().map(|descriptor| {
        json!({
            "pid": descriptor.pid.0,
            "fd": descriptor.fd,
            "socket": descriptor.socket.0,
            "close_on_exec": descriptor.close_on_exec,
        })
    });
    let sockets = image.sockets.iter().enumerate();
    json!({
        "format": header::CURRENT.to_string(),
        "origin": {
            "ucr_version": origin.ucr_version,
            "created_at": origin.created_at,
            "kernel_release": origin.kernel_release,
            "host": origin.host,
            "boot_id": origin.boot_id,
            "netns": origin.netns,
            "verdicts": {
                "confirmed": counts.confirmed,
                "predates": counts.predates,
                "only_tracked": counts.only_tracked,
                "only_snapshot": counts.only_snapshot,
                "conflict": counts.conflict,
            },
        },
        "processes": processes.collect::<Vec<_>>(),
        "sockets": sockets.map(|(index, one)| socket(index, one)).collect::<Vec<_>>(),
        "descriptors": descriptors.collect::<Vec<_>>(),
        "connections": image.connections.iter().map(connection).collect::<Vec<_>>(),
    })
}

/// A plan: its steps as `--dry-run` prints them.
#[must_use]
pub fn plan(plan: &Plan) -> Value {
    let lines = |steps: &[crate::restore::plan::step::Step]| {
        steps.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let summary = plan.summary;
    json!({
        "steps": lines(&plan.steps),
        "finishing": lines(&plan.finishing),
        "sockets": summary.sockets,
        "listeners": summary.listeners,
        "connections": summary.connections,
        "pairs": summary.pairs,
    })
}
