//! An image as a table for people.

mod peers;

use std::collections::HashMap;
use std::fmt;

use comfy_table::{Table, presets};

use super::time::{SinceBoot, UtcSeconds};
use crate::image::{
    Descriptor, ForeignFile, Image, Inet, KnownFrom, Notification, Passed, Process, Role, Socket,
    SocketFile, SocketIndex,
};
use crate::model::inet::Over;
use crate::model::name::Escaped;
use crate::model::netlink::{NetlinkProtocol, option_name};
use crate::model::{Count, Pid};
use crate::model::{inet_options, option_table};

/// An image, shown for people.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a Image);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let image = self.0;
        let origin = &image.origin;
        let safe = |text: &str| Escaped(text.as_bytes()).to_string();
        writeln!(
            f,
            "made {} by ucr {} on {}, kernel {}",
            UtcSeconds(origin.created_at),
            safe(&origin.ucr_version),
            safe(&origin.host),
            safe(&origin.kernel_release),
        )?;
        let counts = origin.verdicts;
        writeln!(
            f,
            "verdicts: {} confirmed, {} predate the tracer, {} only tracked, {} only in the \
             snapshot, {} conflicts",
            counts.confirmed,
            counts.predates,
            counts.only_tracked,
            counts.only_snapshot,
            counts.conflict,
        )?;
        let index = Index::of(image);
        for process in &image.processes {
            writeln!(f)?;
            heading(f, process)?;
            // An empty table would be shown as an empty line.
            let table = index.table(image, process.pid);
            writeln!(f, "{}", table.trim_fmt())?;
        }
        if let Some(table) = index.hidden(image) {
            writeln!(f, "\nsockets that no descriptor leads to:\n{}", table.trim_fmt())?;
        }
        Ok(())
    }
}

fn heading(f: &mut fmt::Formatter<'_>, process: &Process) -> fmt::Result {
    write!(
        f,
        "process {} ({}), child of {}:",
        process.pid,
        Escaped(&process.comm),
        process.parent
    )?;
    process.arguments.iter().try_for_each(|argument| write!(f, " {}", Escaped(argument)))?;
    writeln!(f)
}

/// What the rows of all tables ask for, looked up once.
struct Index<'a> {
    /// In words.
    peers: HashMap<SocketIndex, String>,
    by_process: HashMap<Pid, Vec<&'a Descriptor>>,
    /// The first descriptor that leads to a socket.
    first: HashMap<SocketIndex, &'a Descriptor>,
}

impl<'a> Index<'a> {
    fn of(image: &'a Image) -> Self {
        let mut by_process: HashMap<Pid, Vec<&Descriptor>> = HashMap::new();
        let mut first = HashMap::new();
        for descriptor in &image.descriptors {
            by_process.entry(descriptor.pid).or_default().push(descriptor);
            first.entry(descriptor.socket).or_insert(descriptor);
        }
        let mut index = Self { peers: HashMap::new(), by_process, first };
        index.peers = peers::of(image, |socket| index.at(socket));
        index
    }

    fn table(&self, image: &Image, pid: Pid) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "FD",
            "SOCKET",
            "INODE",
            "TYPE",
            "ROLE",
            "NAME",
            "PEER",
            "KNOWN FROM",
            "CREATOR",
            "CREATED",
            "STATE",
        ]);
        for descriptor in self.by_process.get(&pid).into_iter().flatten() {
            let Some(socket) = image.sockets.get(descriptor.socket.get()) else {
                continue;
            };
            let close = if descriptor.close_on_exec { " cloexec" } else { "" };
            let peer = self.peers.get(&descriptor.socket).cloned();
            let creator = socket
                .creator
                .as_ref()
                .map(|actor| format!("{} ({}) uid {}", actor.pid, Escaped(&actor.comm), actor.uid));
            table.add_row([
                format!("{}{close}", descriptor.fd),
                descriptor.socket.0.to_string(),
                socket.inode.to_string(),
                kind(socket),
                role(socket),
                name(socket),
                peer.or_else(|| remote(socket)).unwrap_or_default(),
                known_from(socket.known_from).to_owned(),
                creator.unwrap_or_default(),
                socket.created_at.map(|at| SinceBoot(at).to_string()).unwrap_or_default(),
                state(socket),
            ]);
        }
        table
    }

    /// Those that no descriptor leads to, if there are any.
    fn hidden(&self, image: &Image) -> Option<Table> {
        let mut places = peers::whereabouts(image, |socket| self.at(socket));
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["SOCKET", "INODE", "TYPE", "ROLE", "NAME", "PEER", "WHERE", "STATE"]);
        for (index, socket) in (0..).map(SocketIndex).zip(&image.sockets) {
            if self.first.contains_key(&index) {
                continue;
            }
            table.add_row([
                index.0.to_string(),
                socket.inode.to_string(),
                kind(socket),
                role(socket),
                name(socket),
                self.peers.get(&index).cloned().unwrap_or_default(),
                places.remove(&index).unwrap_or_default(),
                state(socket),
            ]);
        }
        (!table.is_empty()).then_some(table)
    }

    /// A socket by its index and the first descriptor that leads to it.
    fn at(&self, index: SocketIndex) -> String {
        let first = self.first.get(&index);
        let place = first.map(|first| format!(" (pid {} fd {})", first.pid, first.fd));
        format!("socket {}{}", index.0, place.unwrap_or_default())
    }
}

fn kind(socket: &Socket) -> String {
    match (&socket.inet, &socket.netlink) {
        (Some(inet), _) => Over(inet.protocol, inet.family).to_string(),
        (None, Some(netlink)) => NetlinkProtocol(netlink.protocol).to_string(),
        (None, None) => socket.socket_type.to_string(),
    }
}

fn remote(socket: &Socket) -> Option<String> {
    if let Some(netlink) = &socket.netlink {
        return netlink.peer.map(|(port, _)| format!("port {port}"));
    }
    Some(socket.inet.as_ref()?.remote?.to_string())
}

fn role(socket: &Socket) -> String {
    if let Some(tcp) = socket.inet.as_ref().and_then(|inet| inet.tcp.as_ref()) {
        return tcp.state.to_string();
    }
    match socket.role {
        Role::Unconnected => "unconnected".to_owned(),
        Role::Listening { backlog } => format!("listening, backlog {backlog}"),
        Role::Connected => "connected".to_owned(),
        Role::Embryo => "not accepted yet".to_owned(),
    }
}

fn name(socket: &Socket) -> String {
    if let Some(local) = socket.inet.as_ref().and_then(|inet| inet.local) {
        return local.to_string();
    }
    if let Some(netlink) = socket.netlink.as_ref().filter(|netlink| netlink.port != 0) {
        return format!("port {}", netlink.port);
    }
    let Some(bound) = &socket.name else {
        return "-".to_owned();
    };
    let directory = bound.directory.as_ref().map(|directory| format!(" in {}", Escaped(directory)));
    let root = bound.root.as_ref().map(|root| format!(" beneath {}", Escaped(root)));
    let file = match &bound.file {
        Some(SocketFile::Deleted) => " (file deleted)".to_owned(),
        Some(SocketFile::Replaced) => " (file replaced)".to_owned(),
        Some(SocketFile::Moved { path, .. }) => format!(" (file is {})", Escaped(path)),
        Some(SocketFile::Present { .. }) | None => String::new(),
    };
    format!("{}{}{}{file}", bound.name, directory.unwrap_or_default(), root.unwrap_or_default())
}

fn known_from(known_from: KnownFrom) -> &'static str {
    match known_from {
        KnownFrom::SeenLive => "seen live",
        KnownFrom::PredatesTracer => "predates the tracer",
        KnownFrom::Snapshot => "snapshot",
    }
}

fn state(socket: &Socket) -> String {
    let mut parts = Vec::new();
    if !socket.shutdown.is_none() {
        parts.push(format!("shut down: {}", socket.shutdown));
    }
    if socket.status_flags & libc::O_NONBLOCK != 0 {
        parts.push("O_NONBLOCK".to_owned());
    }
    if socket.status_flags & libc::O_ASYNC != 0 {
        parts.push("O_ASYNC".to_owned());
    }
    parts.extend(socket.options.iter().map(|option| option_table::name(option.name)));
    if let Some(filter) = &socket.filter {
        let count = Count(filter.instructions.len(), "instruction");
        parts.push(format!("filter of {count}{}", if filter.locked { ", locked" } else { "" }));
    }
    if let Some(Notification { owner, signal }) = socket.notification {
        let signal = if signal == 0 { "SIGIO".to_owned() } else { format!("signal {signal}") };
        parts.push(format!("tells {owner} by {signal}"));
    }
    if socket.error != 0 {
        parts.push(format!("error {} pending", socket.error));
    }
    if !socket.queue.is_empty() {
        let bytes: usize = socket.queue.iter().map(|message| message.data.len()).sum();
        let files: usize = socket.queue.iter().map(|message| message.files.len()).sum();
        let messages = Count(socket.queue.len(), "message");
        let mut queued = format!("{messages} queued, {}", Count(bytes, "byte"));
        if files > 0 {
            queued = format!("{queued}, {}", Count(files, "descriptor"));
        }
        parts.push(queued);
        for passed in socket.queue.iter().flat_map(|message| &message.files) {
            if let Passed::File(ForeignFile { name, holder: (pid, fd), .. }) = passed {
                parts.push(format!("{} among them, from pid {pid} fd {fd}", Escaped(name)));
            }
        }
    }
    if let Some(inet) = &socket.inet {
        inet_state(inet, &mut parts);
    }
    if let Some(netlink) = &socket.netlink {
        if !netlink.groups.is_empty() {
            parts.push(format!("in {}", Count(netlink.groups.len(), "group")));
        }
        parts.extend(netlink.options.iter().map(|option| option_name(option.number)));
    }
    parts.join(", ")
}

fn inet_state(inet: &Inet, parts: &mut Vec<String>) {
    parts.extend(inet.options.iter().map(|option| inet_options::name(option.level, option.number)));
    for joined in &inet.memberships {
        let sources = match (joined.sources.len(), joined.excludes) {
            (0, _) => String::new(),
            (count, true) => format!(" without {}", Count(count, "source")),
            (count, false) => format!(" from {}", Count(count, "source")),
        };
        parts.push(format!("in group {} at interface {}{sources}", joined.group, joined.interface));
    }
    if !inet.datagrams.is_empty() {
        let bytes: usize = inet.datagrams.iter().map(|datagram| datagram.data.len()).sum();
        let datagrams = Count(inet.datagrams.len(), "datagram");
        parts.push(format!("{datagrams} queued, {}", Count(bytes, "byte")));
    }
    if let Some(held_back) = &inet.held_back {
        let bytes = Count(held_back.data.len(), "byte");
        parts.push(format!("an unfinished datagram of {bytes} to {}", held_back.to));
    }
    if !inet.waiting.is_empty() {
        let bytes: usize = inet.waiting.iter().map(|waiting| waiting.received.data.len()).sum();
        let connections = Count(inet.waiting.len(), "connection");
        parts.push(format!("{connections} not accepted yet, {} to be read", Count(bytes, "byte")));
    }
    if let Some(tcp) = &inet.tcp {
        let (received, sent) = (tcp.received.data.len(), tcp.sent.data.len());
        let unsent = tcp.unsent.saturating_sub(u32::from(tcp.state.has_sent_fin()));
        let unsent = usize::try_from(unsent).unwrap_or(usize::MAX).min(sent);
        for (bytes, what) in [
            (received, "to be read"),
            (sent - unsent, "to be acknowledged"),
            (unsent, "to be sent"),
        ] {
            if bytes > 0 {
                parts.push(format!("{} {what}", Count(bytes, "byte")));
            }
        }
    }
}
