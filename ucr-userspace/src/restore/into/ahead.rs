//! Sockets that others find by a path: they are made before the processes are stopped for good, and take the
//! place of the old ones there, so that whoever connects meanwhile waits at the new one. The program goes on,
//! and accepts from the old one what waits there; then nothing comes to that any more.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use super::kept;
use crate::image::{
    Bound, Connection, Descriptor, Image, Role, Socket, SocketFile, SocketIndex, Was,
};
use crate::model::SocketType;
use crate::restore::execute::Restored;
use crate::restore::plan::file_spot;

/// Sockets that are made ahead, by the cookies of those that they are to replace.
#[derive(Debug)]
pub struct Ahead {
    /// Dropping it takes everything back.
    pub restored: Restored,
    made: BTreeMap<u64, (SocketIndex, Bound)>,
}

/// The image of those sockets alone that are to be made ahead: listeners, and datagram sockets for which nothing
/// waits. `None` if there are none.
#[must_use]
pub fn alone(image: &Image) -> Option<Image> {
    let kept = kept(image);
    let all = (0..).map(SocketIndex).zip(&image.sockets);
    let chosen: BTreeMap<SocketIndex, SocketIndex> = all
        .filter(|(index, socket)| is_found_by_path(socket) && !kept(*index))
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
        sockets: sockets.map(|socket| Socket { notification: None, ..socket }).collect(),
        descriptors: descriptors.collect(),
        connections: Vec::new(),
        interfaces: Vec::new(),
    })
}

fn is_found_by_path(socket: &Socket) -> bool {
    let is_open = match socket.role {
        Role::Listening { .. } => true,
        Role::Unconnected => socket.socket_type == SocketType::Dgram && socket.queue.is_empty(),
        Role::Connected | Role::Embryo => false,
    };
    let name = socket.name.as_ref();
    is_open && socket.is_unix() && name.is_some_and(|bound| file_spot(bound, None).is_some())
}

impl Ahead {
    /// What was made of such an image.
    #[must_use]
    pub fn new(image: &Image, restored: Restored) -> Self {
        let all = (0..).map(SocketIndex).zip(&image.sockets);
        let made =
            all.filter_map(|(index, socket)| Some((socket.cookie, (index, socket.name.clone()?))));
        Self { restored, made: made.collect() }
    }

    /// Whether something still waits at one of the old sockets, for the program to take it.
    #[must_use]
    pub fn is_awaited(&self, image: &Image) -> bool {
        let waits = |index: SocketIndex| {
            image.connections.iter().any(|connection| {
                matches!(*connection, Connection::Waiting { listener, .. } if listener == index)
            })
        };
        let mut all = (0..).map(SocketIndex).zip(&image.sockets);
        all.any(|(index, socket)| {
            self.made.contains_key(&socket.cookie) && (!socket.queue.is_empty() || waits(index))
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
            let Some((made, bound)) = self.made.get(&socket.cookie) else { continue };
            let Some(new) = self.restored.socket(*made) else { continue };
            adopted.insert(index, new.try_clone_to_owned()?);
            socket.name = Some(bound.clone());
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
                && self.made.values().any(|(_, made)| made.name == bound.name)
                && bound.file.is_some()
            {
                bound.file = Some(SocketFile::Deleted);
            }
        }
        Ok(adopted)
    }
}
