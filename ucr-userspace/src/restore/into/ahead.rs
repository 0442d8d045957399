//! Sockets that others find by a path or at a port: they are made before the processes are stopped for good, and take
//! the place of the old ones there, so that whoever connects meanwhile waits at the new one. The program goes on,
//! and accepts from the old one what waits there; then nothing comes to that any more.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;

use super::kept;
use crate::image::{
    Bound, Connection, Descriptor, Image, Inet, Role, Socket, SocketFile, SocketIndex,
    SocketOption, Was,
};
use crate::model::SocketType;
use crate::process::beneath;
use crate::restore::execute::{OWN_REFERENCES, Restored};
use crate::restore::plan::file_spot;

/// Sockets that are made ahead, by the cookies of those that they are to replace.
#[derive(Debug)]
pub struct Ahead {
    /// Dropping it takes everything back.
    pub restored: Restored,
    made: BTreeMap<u64, Made>,
}

/// One of them.
#[derive(Clone, Debug)]
struct Made {
    /// Of the image that it was made of.
    index: SocketIndex,
    /// Of the old one.
    inode: u32,
    name: Option<Bound>,
    /// What is different of an old one of the internet as long as both are there (`SHARING`).
    options: Vec<SocketOption>,
}

/// Options that decide whether two may have one port.
const SHARING: [i32; 2] = [libc::SO_REUSEADDR, libc::SO_REUSEPORT];

fn is_sharing(option: &SocketOption) -> bool {
    SHARING.contains(&option.name)
}

/// The image of those sockets alone that are to be made ahead: listeners, and datagram sockets for which nothing
/// waits. `None` if there are none.
#[must_use]
pub fn alone(image: &Image) -> Option<Image> {
    let kept = kept(image);
    let all = (0..).map(SocketIndex).zip(&image.sockets);
    let chosen: BTreeMap<SocketIndex, SocketIndex> = all
        .filter(|(index, socket)| is_found(socket) && !kept(*index))
        .zip(0..)
        .map(|((index, _), new)| (index, SocketIndex(new)))
        .collect();
    if chosen.is_empty() {
        return None;
    }
    let sockets = chosen.keys().filter_map(|index| image.sockets.get(index.get()).cloned());
    let descriptors = image.descriptors.iter().filter_map(|descriptor| {
        let socket = *chosen.get(&descriptor.socket)?;
        Some(Descriptor { socket, ..*descriptor })
    });
    Some(Image {
        origin: image.origin.clone(),
        processes: image.processes.clone(),
        sockets: sockets.map(without_guests).collect(),
        descriptors: descriptors.collect(),
        connections: Vec::new(),
        interfaces: Vec::new(),
    })
}

/// The socket alone: who waits there is let in by the old one.
fn without_guests(socket: Socket) -> Socket {
    let inet = socket.inet.map(|inet| Box::new(Inet { waiting: Vec::new(), ..*inet }));
    Socket { notification: None, inet, ..socket }
}

/// Whether others find it, and it may be made before nothing comes to the old one any more.
fn is_found(socket: &Socket) -> bool {
    match &socket.inet {
        // One with a filter of its own would have another one meanwhile.
        Some(inet) => socket.filter.is_none() && is_found_at_a_port(inet),
        None => is_found_by_path(socket),
    }
}

/// What is in a group would get what is sent to that besides the old one.
fn is_found_at_a_port(inet: &Inet) -> bool {
    let is_empty = inet.datagrams.is_empty() && inet.held_back.is_none();
    inet.tcp.is_none() && inet.local.is_some() && inet.memberships.is_empty() && is_empty
}

/// Whether somebody may come to it who is not known yet.
fn is_open(socket: &Socket) -> bool {
    match socket.role {
        Role::Listening { .. } => true,
        Role::Unconnected => socket.socket_type == SocketType::Dgram,
        Role::Connected | Role::Embryo => false,
    }
}

fn is_found_by_path(socket: &Socket) -> bool {
    let name = socket.name.as_ref();
    let is_empty = !matches!(socket.role, Role::Unconnected) || socket.queue.is_empty();
    is_open(socket)
        && is_empty
        && socket.is_unix()
        && name.is_some_and(|bound| file_spot(bound, None).is_some())
}

/// Whether the file of a socket that others find by its path is where a ucr puts it as long as another one is in its
/// place: one that was killed, and somebody is about to put the file back.
#[must_use]
pub fn is_put_aside(image: &Image) -> bool {
    image.sockets.iter().filter(|socket| is_open(socket)).any(|socket| {
        let file = socket.name.as_ref().and_then(|bound| bound.file.as_ref());
        let Some(SocketFile::Moved { path, .. }) = file else { return false };
        path.split(|byte| *byte == b'/').any(beneath::is_private)
    })
}

impl Ahead {
    /// What was made of such an image.
    #[must_use]
    pub fn new(image: &Image, restored: Restored) -> Self {
        let all = (0..).map(SocketIndex).zip(&image.sockets);
        let made = all.map(|(index, socket)| {
            let options = socket.options.iter().filter(|option| is_sharing(option)).cloned();
            let (inode, name) = (socket.inode, socket.name.clone());
            (socket.cookie, Made { index, inode, name, options: options.collect() })
        });
        Self { restored, made: made.collect() }
    }

    /// The old sockets of the internet that ucr holds, by inode, and how many times it does.
    #[must_use]
    pub fn references(&self) -> HashMap<u32, u64> {
        let all = self.made.values().filter(|made| self.restored.is_beside(made.index));
        all.map(|made| (made.inode, OWN_REFERENCES)).collect()
    }

    /// Whether there is another socket in the place of this one already, by its inode.
    #[must_use]
    pub fn has(&self, inode: u32) -> bool {
        self.made.values().any(|made| made.inode == inode)
    }

    /// Whether something still waits at one of the old sockets at ports, as they say themselves while the program runs.
    ///
    /// # Errors
    ///
    /// What `poll` refuses.
    pub fn is_awaited_now(&self) -> io::Result<bool> {
        self.restored.is_old_awaited()
    }

    /// Whether something still waits at one of the old sockets, for the program to take it.
    #[must_use]
    pub fn is_awaited(&self, image: &Image) -> bool {
        let waiting = image.connections.iter().filter_map(|connection| match *connection {
            Connection::Waiting { listener, .. } => Some(listener),
            _ => None,
        });
        let waited_at: HashSet<SocketIndex> = waiting.collect();
        let mut all = (0..).map(SocketIndex).zip(&image.sockets);
        all.any(|(index, socket)| {
            let has_guests = |inet: &Inet| !inet.waiting.is_empty() || !inet.datagrams.is_empty();
            self.made.contains_key(&socket.cookie)
                && (!socket.queue.is_empty()
                    || waited_at.contains(&index)
                    || socket.inet.as_deref().is_some_and(has_guests))
        })
    }

    /// Gives the old sockets of an image their names back, which lead to the new ones by now; tells which new
    /// socket is to take whose place.
    ///
    /// # Errors
    ///
    /// No descriptor is free.
    pub fn adopt(&self, image: &mut Image) -> io::Result<BTreeMap<SocketIndex, OwnedFd>> {
        let mut adopted = BTreeMap::new();
        for (index, socket) in (0..).map(SocketIndex).zip(&mut image.sockets) {
            let Some(made) = self.made.get(&socket.cookie) else { continue };
            let Some(new) = self.restored.socket(made.index) else { continue };
            adopted.insert(index, new.try_clone_to_owned()?);
            socket.name.clone_from(&made.name);
            if let Some(inet) = &mut socket.inet {
                // Nobody else has its port.
                inet.turn = None;
                socket.options.retain(|option| !is_sharing(option));
                socket.options.extend(made.options.iter().cloned());
                socket.options.sort_by_key(|option| option.name);
            }
        }
        // Others may wait at the new ones: connections within the image are made through sockets that nobody finds.
        for connection in &mut image.connections {
            let (Connection::Accepted { listener, .. }
            | Connection::Ended {
                was: Was::Client { listener, .. } | Was::Server { listener, .. },
                ..
            }) = connection
            else {
                continue;
            };
            if listener.is_some_and(|at| adopted.contains_key(&at)) {
                *listener = None;
            }
        }
        for socket in &mut image.sockets {
            if let (Role::Connected, Some(bound)) = (socket.role, &mut socket.name)
                && self.made.values().flat_map(|made| &made.name).any(|n| n.name == bound.name)
                && bound.file.is_some()
            {
                bound.file = Some(SocketFile::Deleted);
            }
        }
        Ok(adopted)
    }
}
