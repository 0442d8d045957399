//! Exact JSON: bytes that are no UTF-8 survive as hexadecimal digits.
//!
//! What may be large is borrowed and written piece by piece: an image as a tree of values would take
//! many times its own memory.

mod connections;
mod inet;
mod netlink;
mod queue;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use self::connections::Ends;
use self::inet::Inet;
use self::netlink::Netlink;
use self::queue::Message;
use crate::image::{
    self, Fact, FileId, Filter, KnownFrom, Notification, Role, SocketFile, Source, header,
};
use crate::model::name::{Bytes, Exact, Hex};
use crate::model::{Credentials, Pid, SocketType, option_table};
use crate::restore::obstacle::Obstacle;
use crate::restore::plan::Plan;
use crate::restore::plan::step::Step;

/// A path as text; with bytes that are no UTF-8, as [`bytes`].
#[must_use]
pub fn path(path: &Path) -> Value {
    path.to_str().map_or_else(|| bytes(path.as_os_str().as_bytes()), |text| json!(text))
}

/// Bytes: `text` for reading (lossy), `hex` for using.
#[must_use]
pub fn bytes(bytes: &[u8]) -> Value {
    json!(Bytes(bytes))
}

/// A whole image: every field of it.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a>(pub &'a image::Image);

impl Serialize for Image<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let image = self.0;
        let mut fields = serializer.serialize_struct("Image", 7)?;
        fields.serialize_field("format", &header::CURRENT.to_string())?;
        fields.serialize_field("origin", &image.origin)?;
        fields.serialize_field("processes", &Each(|| image.processes.iter().map(Process::of)))?;
        let sockets = || (0..).zip(&image.sockets).map(|(index, one)| Socket::of(index, one));
        fields.serialize_field("sockets", &Each(sockets))?;
        fields.serialize_field("descriptors", &image.descriptors)?;
        let connections = || image.connections.iter().map(Ends::of);
        fields.serialize_field("connections", &Each(connections))?;
        let interfaces = || {
            image.interfaces.iter().map(|it| Numbered { number: it.number, name: Bytes(&it.name) })
        };
        fields.serialize_field("interfaces", &Each(interfaces))?;
        fields.end()
    }
}

/// What a function yields, as an array; made one at a time.
struct Each<F>(F);

impl<F: Fn() -> I, I: Iterator<Item: Serialize>> Serialize for Each<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

struct Arguments<'a>(&'a [Vec<u8>]);

impl Serialize for Arguments<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|argument| Bytes(argument)))
    }
}

#[derive(Serialize)]
struct Process<'a> {
    pid: Pid,
    parent: Pid,
    comm: Bytes<'a>,
    arguments: Arguments<'a>,
}

impl<'a> Process<'a> {
    fn of(process: &'a image::Process) -> Self {
        let image::Process { pid, parent, comm, arguments } = process;
        let (comm, arguments) = (Bytes(comm), Arguments(arguments));
        Self { pid: *pid, parent: *parent, comm, arguments }
    }
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum File<'a> {
    Present { id: FileId, mode: u32, uid: u32, gid: u32 },
    Deleted,
    Replaced,
    Moved { path: Bytes<'a>, id: FileId, mode: u32, uid: u32, gid: u32 },
}

#[derive(Serialize)]
struct Bound<'a> {
    name: Exact<'a>,
    directory: Option<Bytes<'a>>,
    root: Option<Bytes<'a>>,
    file: Option<File<'a>>,
}

impl<'a> Bound<'a> {
    fn of(bound: &'a image::Bound) -> Self {
        let file = bound.file.as_ref().map(|file| match *file {
            SocketFile::Present { id, mode, uid, gid } => File::Present { id, mode, uid, gid },
            SocketFile::Deleted => File::Deleted,
            SocketFile::Replaced => File::Replaced,
            SocketFile::Moved { ref path, id, mode, uid, gid } => {
                File::Moved { path: Bytes(path), id, mode, uid, gid }
            }
        });
        Self {
            name: Exact(&bound.name),
            directory: bound.directory.as_deref().map(Bytes),
            root: bound.root.as_deref().map(Bytes),
            file,
        }
    }
}

#[derive(Serialize)]
struct StatusFlags {
    number: i32,
    nonblock: bool,
    r#async: bool,
}

#[derive(Serialize)]
struct Setting<'a> {
    number: i32,
    name: String,
    hex: Hex<'a>,
}

/// A network interface.
#[derive(Serialize)]
struct Numbered<'a> {
    number: u32,
    name: Bytes<'a>,
}

#[derive(Serialize)]
struct Actor<'a> {
    pid: Pid,
    tid: Pid,
    uid: u32,
    comm: Bytes<'a>,
    cgroup: u64,
}

#[derive(Serialize)]
struct Socket<'a> {
    index: u32,
    cookie: u64,
    inode: u32,
    r#type: SocketType,
    role: &'static str,
    backlog: Option<u32>,
    bound: Option<Bound<'a>>,
    status_flags: StatusFlags,
    shutdown: u8,
    peer_credentials: Option<Credentials>,
    listener_credentials: Option<Credentials>,
    groups: Option<&'a [u32]>,
    options: Vec<Setting<'a>>,
    filter: Option<&'a Filter>,
    notification: Option<Notification>,
    error: i32,
    queue: Vec<Message<'a>>,
    known_from: KnownFrom,
    created_at_ns_since_boot: Option<u64>,
    creator: Option<Actor<'a>>,
    sources: BTreeMap<Fact, Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inet: Option<Inet<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netlink: Option<Netlink<'a>>,
}

impl<'a> Socket<'a> {
    fn of(index: u32, socket: &'a image::Socket) -> Self {
        let (role, backlog) = match socket.role {
            Role::Unconnected => ("unconnected", None),
            Role::Listening { backlog } => ("listening", Some(backlog)),
            Role::Connected => ("connected", None),
            Role::Embryo => ("embryo", None),
        };
        let setting = |option: &'a image::SocketOption| {
            let (number, hex) = (option.name, Hex(&option.value));
            Setting { number, name: option_table::name(number), hex }
        };
        let creator = socket.creator.as_ref().map(|actor| {
            let &image::Actor { pid, tid, uid, cgroup, .. } = actor;
            Actor { pid, tid, uid, comm: Bytes(&actor.comm), cgroup }
        });
        let flags = socket.status_flags;
        Self {
            index,
            cookie: socket.cookie,
            inode: socket.inode,
            r#type: socket.socket_type,
            role,
            backlog,
            bound: socket.name.as_ref().map(Bound::of),
            status_flags: StatusFlags {
                number: flags,
                nonblock: flags & libc::O_NONBLOCK != 0,
                r#async: flags & libc::O_ASYNC != 0,
            },
            shutdown: socket.shutdown.0,
            peer_credentials: socket.peer_credentials,
            listener_credentials: socket.listener_credentials,
            groups: socket.groups.as_deref(),
            options: socket.options.iter().map(setting).collect(),
            filter: socket.filter.as_ref(),
            notification: socket.notification,
            error: socket.error,
            queue: socket.queue.iter().map(Message::of).collect(),
            known_from: socket.known_from,
            created_at_ns_since_boot: socket.created_at,
            creator,
            sources: socket.sources.iter().copied().collect(),
            inet: socket.inet.as_deref().map(Inet::of),
            netlink: socket.netlink.as_deref().map(Netlink::of),
        }
    }
}

/// A plan: its steps as `--dry-run` prints them and as data, and what is in the way.
#[derive(Clone, Copy, Debug)]
pub struct Planned<'a> {
    /// The steps.
    pub plan: &'a Plan,
    /// What is in the way.
    pub obstacles: &'a [Obstacle],
}

#[derive(Serialize)]
struct Line<'a> {
    text: String,
    step: &'a Step,
}

fn lines(steps: &[Step]) -> impl Serialize + '_ {
    Each(move || steps.iter().map(|step| Line { text: step.to_string(), step }))
}

impl Serialize for Planned<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let summary = self.plan.summary;
        let mut fields = serializer.serialize_struct("Plan", 10)?;
        fields.serialize_field("steps", &lines(&self.plan.steps))?;
        fields.serialize_field("arming", &lines(&self.plan.arming))?;
        fields.serialize_field("finishing", &lines(&self.plan.finishing))?;
        fields.serialize_field("sockets", &summary.sockets)?;
        fields.serialize_field("listeners", &summary.listeners)?;
        fields.serialize_field("connections", &summary.connections)?;
        fields.serialize_field("pairs", &summary.pairs)?;
        fields.serialize_field("outside", &summary.outside)?;
        fields.serialize_field("datagram_peers", &summary.datagram_peers)?;
        fields.serialize_field("obstacles", self.obstacles)?;
        fields.end()
    }
}
