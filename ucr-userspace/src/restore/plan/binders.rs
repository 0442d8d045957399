//! Which sockets of an image call `bind`, which of them want one name, and through which listener
//! each connection goes. Pure.

use std::borrow::Cow;
use std::collections::HashMap;

use super::PlanError;
use super::spot::{Landing, Spot, normal};
use super::step::{Holder, Identity, Place};
use crate::image::{Bound, Connection, Image, Role, Socket, SocketFile, SocketIndex, Was};
use crate::model::{SocketType, UnixName};

pub(super) fn indexed(image: &Image) -> impl Iterator<Item = (SocketIndex, &Socket)> {
    (0..).map(SocketIndex).zip(&image.sockets)
}

/// What the kernel keeps apart: a path is one file, an abstract name is one per type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    Path(Spot),
    /// A path that no file stays at: nobody else wants it.
    Nobodys,
    Abstract(Vec<u8>, SocketType),
}

/// A socket that calls `bind`.
pub(super) struct Binder {
    pub(super) made: Holder,
    pub(super) socket_type: SocketType,
    pub(super) place: Place,
    pub(super) key: Key,
    pub(super) landing: Landing,
    pub(super) file: Option<SocketFile>,
    /// For a listener: its backlog and the credentials it has in the end.
    pub(super) listens: Option<(u32, Option<Identity>)>,
    /// Whether the name is still taken when all is done.
    pub(super) stays: bool,
    /// Whether another binder has the same key.
    pub(super) contested: bool,
}

/// A connection with the listener it goes through. An end that has closed is a temporary socket.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub(super) client: Holder,
    pub(super) server: Holder,
    pub(super) listener: Holder,
    pub(super) order: u32,
}

fn place_of(bound: &Bound) -> Place {
    Place { name: bound.name.clone(), directory: bound.directory.clone() }
}

/// Where a name leads, if it is a path: beneath a directory, if one is given.
#[must_use]
pub fn named_spot(bound: &Bound, beneath: Option<&[u8]>) -> Option<Spot> {
    let roots = beneath.into_iter().chain(bound.root.as_deref()).map(<[u8]>::to_vec).collect();
    Some(Spot { roots, path: place_of(bound).path()? })
}

/// Where the file that is bound to a name is to lie, if it is to be anywhere.
#[must_use]
pub fn file_spot(bound: &Bound, beneath: Option<&[u8]>) -> Option<Spot> {
    match bound.file.as_ref()? {
        SocketFile::Present { .. } => named_spot(bound, beneath),
        SocketFile::Moved { path, .. } => {
            let roots = beneath.into_iter().map(<[u8]>::to_vec).collect();
            Some(Spot { roots, path: normal(&[path]) })
        }
        SocketFile::Deleted | SocketFile::Replaced => None,
    }
}

fn names_a_file(path: &[u8]) -> bool {
    let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    !last.is_empty() && last != b"." && last != b".."
}

pub(super) fn binder(
    made: Holder,
    socket_type: SocketType,
    bound: &Bound,
    listens: Option<(u32, Option<Identity>)>,
    beneath: Option<&[u8]>,
) -> Result<Binder, PlanError> {
    let place = place_of(bound);
    let name = bound.name.as_bytes();
    let spot = file_spot(bound, beneath);
    let (key, landing) = match (&bound.name, spot) {
        (UnixName::Pathname(_), Some(spot)) => {
            if !names_a_file(name) || !names_a_file(&spot.path) {
                return Err(PlanError::NoFileName { name: bound.name.clone(), made });
            }
            // Without other roots the name leads there.
            let is_named = matches!(bound.file, Some(SocketFile::Present { .. }));
            let landing = match is_named && spot.roots.is_empty() {
                true => Landing::ByName,
                false => Landing::At(spot.clone()),
            };
            (Key::Path(spot), landing)
        }
        (UnixName::Pathname(_), None) if !names_a_file(name) => {
            return Err(PlanError::NoFileName { name: bound.name.clone(), made });
        }
        (UnixName::Pathname(_), None) => (Key::Nobodys, Landing::Nowhere),
        _ => (Key::Abstract(name.to_vec(), socket_type), Landing::ByName),
    };
    let stays = match key {
        Key::Abstract(..) => matches!(made, Holder::Saved(_)),
        Key::Path(_) => true,
        Key::Nobodys => false,
    };
    let file = bound.file.clone();
    Ok(Binder { made, socket_type, place, key, landing, file, listens, stays, contested: false })
}

/// Finds names that have more than one binder; only one of them may keep it.
pub(super) fn mark_contested(binders: &mut [Binder]) -> Result<(), PlanError> {
    let mut count: HashMap<Key, usize> = HashMap::new();
    let mut keeper: HashMap<&Key, &Binder> = HashMap::new();
    for binder in binders.iter().filter(|binder| binder.key != Key::Nobodys) {
        *count.entry(binder.key.clone()).or_default() += 1;
        if binder.stays
            && let Some(other) = keeper.insert(&binder.key, binder)
        {
            let name = binder.place.name.clone();
            return Err(PlanError::NameTwice { name, first: other.made, second: binder.made });
        }
    }
    for binder in binders {
        binder.contested = count.get(&binder.key).is_some_and(|count| *count > 1);
    }
    Ok(())
}

/// A listener that is needed only for connections whose own is gone.
pub(super) struct Stopgap<'a> {
    pub(super) made: Holder,
    pub(super) bound: Cow<'a, Bound>,
    pub(super) socket_type: SocketType,
}

/// What makes the connections through listeners.
#[derive(Default)]
pub(super) struct Links<'a> {
    /// In the saved order.
    pub(super) links: Vec<Link>,
    pub(super) stopgaps: Vec<Stopgap<'a>>,
    /// The temporary socket in the place of each survivor's peer.
    pub(super) gone: HashMap<SocketIndex, Holder>,
    /// How many temporary sockets there are.
    pub(super) temporary: usize,
}

/// A name whose file is gone, or never mattered.
pub(super) fn lost(name: &UnixName) -> Bound {
    let is_path = matches!(name, UnixName::Pathname(_));
    Bound {
        name: name.clone(),
        directory: name.is_relative_path().then(|| b"/".to_vec()),
        root: None,
        file: is_path.then_some(SocketFile::Deleted),
    }
}

/// Decides through which listener each connection goes. A listener of the image will do if it has the name
/// that the accepted end is to have, and the same socket file; else a temporary one does, the same for all
/// connections that agree in name, file and type.
pub(super) fn link(image: &Image) -> Links<'_> {
    let mut made = Links::default();
    let mut numbers: HashMap<(Cow<'_, Bound>, SocketType), Holder> = HashMap::new();
    let mut listeners: HashMap<(&Bound, SocketType), SocketIndex> = HashMap::new();
    for (index, socket) in indexed(image) {
        if let (Role::Listening { .. }, Some(bound)) = (socket.role, &socket.name) {
            listeners.entry((bound, socket.socket_type)).or_insert(index);
        }
    }
    for connection in &image.connections {
        let alone = connection.alone();
        let survivor = alone.and_then(|alone| image.sockets.get(alone.get()));
        let bound_of = |index: SocketIndex| {
            image.sockets.get(index.get()).and_then(|socket| socket.name.as_ref())
        };
        let (client, server, listener, order, bound, socket_type) = match *connection {
            Connection::Accepted { client, server, listener, order } => {
                let Some(socket) = image.sockets.get(server.get()) else { continue };
                let Some(bound) = &socket.name else { continue };
                let ends = (Holder::Saved(client), Holder::Saved(server));
                (ends.0, ends.1, listener, order, Cow::Borrowed(bound), socket.socket_type)
            }
            Connection::Ended { survivor: alone, ref was } => {
                let Some(survivor) = survivor else { continue };
                if survivor.socket_type == SocketType::Dgram || matches!(was, Was::Half(_)) {
                    continue;
                }
                let (saved, other) = (Holder::Saved(alone), Holder::Temporary(made.temporary));
                made.temporary += 1;
                made.gone.insert(alone, other);
                let kind = survivor.socket_type;
                match was {
                    Was::Client { listener, .. } => {
                        let Some(bound) = bound_of(alone) else { continue };
                        (other, saved, *listener, u32::MAX, Cow::Borrowed(bound), kind)
                    }
                    Was::Server { name, listener } => {
                        (saved, other, *listener, u32::MAX, Cow::Owned(lost(name)), kind)
                    }
                    Was::Half(_) => continue,
                }
            }
            _ => continue,
        };
        // The one it came through, whatever became of the file (validation has seen that name and
        // type fit); else one with the same file.
        let found = listener.or_else(|| listeners.get(&(bound.as_ref(), socket_type)).copied());
        let listener = match found {
            Some(listener) => Holder::Saved(listener),
            None => match numbers.get(&(bound.clone(), socket_type)) {
                Some(known) => *known,
                None => {
                    let holder = Holder::Temporary(made.temporary);
                    made.temporary += 1;
                    numbers.insert((bound.clone(), socket_type), holder);
                    made.stopgaps.push(Stopgap { made: holder, bound, socket_type });
                    holder
                }
            },
        };
        made.links.push(Link { client, server, listener, order });
    }
    made.links.sort_by_key(|link| link.order);
    made
}
