//! An image without all that may differ between two images of one world: the order of its sockets, and
//! what identifies a process, a socket or a file within one life of it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use ucr::{
    image::{
        Bound, Connection, Descriptor, External, FileId, Image, Message, Notification, Owner,
        Passed, Sender, Socket, SocketFile, SocketIndex, Was,
    },
    model::{Credentials, Pid},
};

/// Whether the pids in credentials count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pids {
    Count,
    /// One of them was not to be had.
    Differ,
}

/// What is known of an image beside what it says.
pub(crate) struct Outlook<'a> {
    /// The processes, the root first: the pid that is written in place of each, and its own.
    pub(crate) processes: &'a [(Pid, Pid)],
    pub(crate) pids: Pids,
}

/// Facts by what they are about, as text.
pub(crate) type Facts = BTreeMap<String, String>;

/// All that an image says, in an order of its own.
pub(crate) fn facts(image: &Image, outlook: &Outlook<'_>) -> Facts {
    let (order, titles) = order(image, outlook);
    let normal = Normal { order: &order, outlook };
    let mut facts = Facts::new();
    facts.insert("processes".to_owned(), image.processes.len().to_string());
    facts.insert("sockets".to_owned(), image.sockets.len().to_string());
    for (at, title) in titles.iter().enumerate() {
        let Some(socket) = order.iter().find(|(_, new)| new.get() == at) else { continue };
        let Some(socket) = image.sockets.get(socket.0.get()) else { continue };
        for (what, value) in normal.socket(socket) {
            facts.insert(format!("socket {at:03} ({title}): {what}"), value);
        }
    }
    for Descriptor { pid, fd, socket, close_on_exec } in &image.descriptors {
        let value = format!("socket {:03}, close-on-exec {close_on_exec}", normal.at(*socket).0);
        facts.insert(format!("descriptor {fd} of process {}", normal.process(*pid)), value);
    }
    for (at, connection) in normal.connections(&image.connections).into_iter().enumerate() {
        facts.insert(format!("connection {at:03}"), connection);
    }
    facts
}

/// Where each socket stands: first those that descriptors lead to, then those that are found in queues, at
/// listeners and as peers; and how each was found.
fn order(image: &Image, outlook: &Outlook<'_>) -> (HashMap<SocketIndex, SocketIndex>, Vec<String>) {
    let position = |pid| outlook.processes.iter().position(|(_, own)| *own == pid);
    let mut descriptors: Vec<_> = image.descriptors.iter().collect();
    descriptors.sort_by_key(|descriptor| (position(descriptor.pid), descriptor.fd));
    let mut found = Found::default();
    for descriptor in descriptors {
        let whose = position(descriptor.pid).map_or("?".to_owned(), |at| at.to_string());
        found.meet(descriptor.socket, || format!("process {whose} fd {}", descriptor.fd));
    }
    while let Some(socket) = found.next.pop_front() {
        let here = found.order.get(&socket).map_or(0, |at| at.0);
        let queue = image.sockets.get(socket.get()).map_or(&[][..], |socket| &socket.queue);
        for file in queue.iter().flat_map(|message| &message.files) {
            if let Passed::Socket(passed) = file {
                found.meet(*passed, || format!("in the queue of {here:03}"));
            }
        }
        let mut waiting = Vec::new();
        for connection in &image.connections {
            if let Connection::Waiting { embryo, listener, order, .. } = connection
                && *listener == socket
            {
                waiting.push((*order, *embryo));
            }
        }
        waiting.sort_unstable();
        for (_, embryo) in waiting {
            found.meet(embryo, || format!("waits at {here:03}"));
        }
        for (_, peer) in
            image.connections.iter().flat_map(Connection::peers).filter(|(one, _)| *one == socket)
        {
            found.meet(peer, || format!("peer of {here:03}"));
        }
    }
    for at in 0..image.sockets.len() {
        let index = SocketIndex(u32::try_from(at).unwrap_or(u32::MAX));
        found.meet(index, || "found nowhere".to_owned());
    }
    (found.order, found.titles)
}

#[derive(Default)]
struct Found {
    order: HashMap<SocketIndex, SocketIndex>,
    titles: Vec<String>,
    next: VecDeque<SocketIndex>,
}

impl Found {
    fn meet(&mut self, socket: SocketIndex, title: impl FnOnce() -> String) {
        if self.order.contains_key(&socket) {
            return;
        }
        let at = SocketIndex(u32::try_from(self.order.len()).unwrap_or(u32::MAX));
        self.order.insert(socket, at);
        self.titles.push(title());
        self.next.push_back(socket);
    }
}

struct Normal<'a> {
    order: &'a HashMap<SocketIndex, SocketIndex>,
    outlook: &'a Outlook<'a>,
}

impl Normal<'_> {
    fn at(&self, socket: SocketIndex) -> SocketIndex {
        self.order.get(&socket).copied().unwrap_or(SocketIndex(u32::MAX))
    }

    fn process(&self, pid: Pid) -> Pid {
        let mut processes = self.outlook.processes.iter();
        processes.find(|(_, own)| *own == pid).map_or(pid, |(written, _)| *written)
    }

    /// What a socket says, field by field.
    fn socket(&self, socket: &Socket) -> Vec<(&'static str, String)> {
        let Socket {
            cookie: _,
            inode: _,
            socket_type,
            role,
            name,
            status_flags,
            shutdown,
            peer_credentials,
            listener_credentials,
            groups,
            options,
            filter,
            notification,
            error,
            queue,
            known_from: _,
            created_at: _,
            creator: _,
            sources: _,
            // Worlds are of unix sockets.
            inet: _,
            netlink: _,
        } = socket;
        let credentials = |who: &Option<Credentials>| who.map(|who| self.credentials(who));
        vec![
            ("type", socket_type.to_string()),
            ("role", format!("{role:?}")),
            ("name", format!("{:?}", name.as_ref().map(anonymous))),
            ("status flags", format!("{status_flags:#o}")),
            ("shutdown", shutdown.to_string()),
            ("peer credentials", format!("{:?}", credentials(peer_credentials))),
            ("listener credentials", format!("{:?}", credentials(listener_credentials))),
            ("groups", format!("{groups:?}")),
            ("options", format!("{options:?}")),
            ("filter", format!("{filter:?}")),
            ("notification", format!("{:?}", notification.map(|told| self.notification(told)))),
            ("error", error.to_string()),
            ("queue", format!("{:?}", self.queue(queue))),
        ]
    }

    fn credentials(&self, who: Credentials) -> Credentials {
        match self.outlook.pids {
            Pids::Count => who,
            Pids::Differ => Credentials { pid: Pid(0), ..who },
        }
    }

    fn notification(&self, told: Notification) -> Notification {
        let owner = match told.owner {
            Owner::Nobody => Owner::Nobody,
            Owner::Thread(pid) => Owner::Thread(self.process(pid)),
            Owner::Process(pid) => Owner::Process(self.process(pid)),
            Owner::Group(pid) => Owner::Group(self.process(pid)),
        };
        Notification { owner, ..told }
    }

    fn queue(&self, queue: &[Message]) -> Vec<Message> {
        let message = |message: &Message| {
            let Message { data, sender, credentials, files, out_of_band } = message.clone();
            let files = files.into_iter().map(|file| match file {
                Passed::Socket(socket) => Passed::Socket(self.at(socket)),
                Passed::File(file) => Passed::File(file),
            });
            Message {
                data,
                sender: sender.as_ref().map(|sender| self.sender(sender)),
                credentials: credentials.map(|who| self.credentials(who)),
                files: files.collect(),
                out_of_band,
            }
        };
        queue.iter().map(message).collect()
    }

    fn sender(&self, sender: &Sender) -> Sender {
        match sender {
            Sender::Socket(socket) => Sender::Socket(self.at(*socket)),
            Sender::Gone(name) => Sender::Gone(name.clone()),
        }
    }

    /// Connections as text, in an order of their own; those that have one at their listener have their
    /// number there.
    fn connections(&self, connections: &[Connection]) -> Vec<String> {
        let place = |own: u32, of: Option<SocketIndex>| {
            let others = connections.iter().filter(|other| match other {
                Connection::Accepted { listener, order, .. } => *listener == of && *order < own,
                Connection::Waiting { listener, order, .. } => {
                    Some(*listener) == of && *order < own
                }
                _ => false,
            });
            // Without their listener nobody can tell.
            u32::try_from(others.count()).unwrap_or(0) * u32::from(of.is_some())
        };
        let mut normal: Vec<String> = connections
            .iter()
            .map(|connection| self.connection(connection, &place))
            .map(|connection| format!("{connection:?}"))
            .collect();
        normal.sort();
        normal
    }

    fn connection(
        &self,
        connection: &Connection,
        place: &dyn Fn(u32, Option<SocketIndex>) -> u32,
    ) -> Connection {
        let to = |listener: &Option<SocketIndex>| listener.map(|listener| self.at(listener));
        match connection {
            Connection::Pair { a, b } => {
                let (a, b) = (self.at(*a), self.at(*b));
                Connection::Pair { a: a.min(b), b: a.max(b) }
            }
            Connection::Accepted { client, server, listener, order } => Connection::Accepted {
                client: self.at(*client),
                server: self.at(*server),
                listener: to(listener),
                order: place(*order, *listener),
            },
            Connection::Datagram { sender, receiver } => {
                Connection::Datagram { sender: self.at(*sender), receiver: self.at(*receiver) }
            }
            Connection::Waiting { client, embryo, listener, order } => Connection::Waiting {
                client: self.sender(client),
                embryo: self.at(*embryo),
                listener: self.at(*listener),
                order: place(*order, Some(*listener)),
            },
            Connection::Ended { survivor, was } => Connection::Ended {
                survivor: self.at(*survivor),
                was: match was {
                    Was::Half(name) => Was::Half(name.clone()),
                    Was::Client { name, listener } => {
                        Was::Client { name: name.clone(), listener: to(listener) }
                    }
                    Was::Server { name, listener } => {
                        Was::Server { name: name.clone(), listener: to(listener) }
                    }
                },
            },
            Connection::External { socket, how } => Connection::External {
                socket: self.at(*socket),
                how: match how {
                    External::Keep { pid, fd } => {
                        External::Keep { pid: self.process(*pid), fd: *fd }
                    }
                    how @ External::Reconnect { .. } => how.clone(),
                },
            },
        }
    }
}

/// Without the identity of the file.
fn anonymous(bound: &Bound) -> Bound {
    let mut bound = bound.clone();
    if let Some(SocketFile::Present { id, .. } | SocketFile::Moved { id, .. }) = &mut bound.file {
        *id = FileId { device: 0, inode: 0, born: None };
    }
    bound
}

/// What differs, as text.
pub(crate) fn differences(before: &Facts, after: &Facts) -> Vec<String> {
    let all: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differs = all.into_iter().filter(|what| before.get(*what) != after.get(*what));
    differs
        .map(|what| {
            let (one, other) = (shown(before.get(what)), shown(after.get(what)));
            let (one, other) = apart(&one, &other);
            format!("{what}: {one} before, {other} after")
        })
        .collect()
}

fn shown(fact: Option<&String>) -> String {
    fact.map_or("nothing".to_owned(), String::clone)
}

/// The surroundings of where two texts begin to differ, if they are long.
fn apart(one: &str, other: &str) -> (String, String) {
    const BEFORE: usize = 60;
    const SHOWN: usize = 240;
    let same = one.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let part = |text: &str| {
        if text.len() <= SHOWN {
            return text.to_owned();
        }
        let begin = same.saturating_sub(BEFORE);
        format!("…{}…", text.chars().skip(begin).take(SHOWN).collect::<String>())
    };
    (part(one), part(other))
}

#[cfg(test)]
mod tests {
    use ucr::{
        image::{Origin, Process, Role},
        model::{Shutdown, SocketType, VerdictCounts},
    };

    use super::*;

    fn socket(inode: u32, role: Role) -> Socket {
        Socket {
            cookie: u64::from(inode) * 7,
            inode,
            socket_type: SocketType::Stream,
            role,
            name: None,
            status_flags: 0,
            shutdown: Shutdown::default(),
            peer_credentials: None,
            listener_credentials: None,
            groups: None,
            options: Vec::new(),
            filter: None,
            notification: None,
            error: 0,
            queue: Vec::new(),
            known_from: ucr::image::KnownFrom::Snapshot,
            created_at: None,
            creator: None,
            sources: Vec::new(),
            inet: None,
            netlink: None,
        }
    }

    /// A pair, one end of which is only in the other one's queue, and who is to be told.
    fn image(pid: i32, swapped: bool) -> Image {
        let at = |index: u32| SocketIndex(if swapped { 1 - index } else { index });
        let mut near = socket(10, Role::Connected);
        let files = vec![Passed::Socket(at(1)), Passed::Socket(at(0))];
        near.queue.push(Message { data: b"x".to_vec(), files, ..Message::default() });
        near.notification = Some(Notification { owner: Owner::Process(Pid(pid)), signal: 10 });
        let mut sockets = vec![near, socket(11, Role::Connected)];
        if swapped {
            sockets.reverse();
        }
        let descriptor = Descriptor { pid: Pid(pid), fd: 5, socket: at(0), close_on_exec: true };
        let process =
            Process { pid: Pid(pid), parent: Pid(1), comm: Vec::new(), arguments: Vec::new() };
        Image {
            origin: Origin {
                ucr_version: String::new(),
                created_at: 0,
                kernel_release: String::new(),
                host: String::new(),
                boot_id: String::new(),
                netns: 1,
                verdicts: VerdictCounts::default(),
            },
            processes: vec![process],
            sockets,
            descriptors: vec![descriptor],
            connections: vec![Connection::Pair { a: at(0), b: at(1) }],
            interfaces: Vec::new(),
        }
    }

    fn facts_of(image: &Image) -> Facts {
        let own = image.processes.first().map_or(Pid(0), |process| process.pid);
        facts(image, &Outlook { processes: &[(Pid(100), own)], pids: Pids::Count })
    }

    #[test]
    fn order_and_identity_do_not_count() {
        let (before, after) = (image(100, false), image(222, true));
        assert_ne!(before, after);
        assert_eq!(differences(&facts_of(&before), &facts_of(&after)), Vec::<String>::new());
    }

    #[test]
    fn all_else_does() {
        let before = facts_of(&image(100, false));
        let differs = |change: fn(&mut Image)| {
            let mut after = image(100, false);
            change(&mut after);
            differences(&before, &facts_of(&after)).join("\n")
        };
        let with = |text: String, words: &str| assert!(text.contains(words), "{words} in {text}");
        with(differs(|i| i.sockets[0].queue[0].data.push(0)), "queue: ");
        with(differs(|i| i.sockets[0].queue[0].files.reverse()), "queue: ");
        with(
            differs(|i| i.sockets[1].shutdown = Shutdown::SEND),
            "shutdown: none before, send after",
        );
        with(differs(|i| i.sockets[0].notification = None), "notification: ");
        with(differs(|i| i.descriptors[0].close_on_exec = false), "descriptor 5 of process 100: ");
        with(differs(|i| i.descriptors[0].fd = 6), "descriptor 6 of process 100: nothing before");
        with(differs(|i| i.connections.clear()), "connection 000: Pair");
        with(differs(|i| i.processes.clear()), "processes: 1 before, 0 after");
    }
}
