//! Which sockets of an image call `bind`, which of them want one name, and through which listener
//! each connection goes. Pure.

use std::collections::HashMap;

use super::PlanError;
use super::spot::{Landing, Spot, normal};
use super::step::{Holder, Identity, Place};
use crate::image::{Bound, Connection, Image, Role, Socket, SocketFile, SocketIndex};
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
pub(super) struct Binder<'a> {
    pub(super) made: Holder,
    pub(super) socket_type: SocketType,
    pub(super) place: Place,
    pub(super) key: Key,
    pub(super) landing: Landing,
    pub(super) file: Option<&'a SocketFile>,
    /// For a listener: its backlog and the credentials it has in the end.
    pub(super) listens: Option<(u32, Option<Identity>)>,
    /// Whether the name is still taken when all is done.
    pub(super) stays: bool,
    /// Whether another binder has the same key.
    pub(super) contested: bool,
}

/// A connection with the listener it goes through.
pub(super) struct Link {
    pub(super) client: SocketIndex,
    pub(super) server: SocketIndex,
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

pub(super) fn binder<'a>(
    made: Holder,
    socket_type: SocketType,
    bound: &'a Bound,
    listens: Option<(u32, Option<Identity>)>,
    beneath: Option<&[u8]>,
) -> Result<Binder<'a>, PlanError> {
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
    let file = bound.file.as_ref();
    Ok(Binder { made, socket_type, place, key, landing, file, listens, stays, contested: false })
}

/// Finds names that have more than one binder; only one of them may keep it.
pub(super) fn mark_contested(binders: &mut [Binder<'_>]) -> Result<(), PlanError> {
    let mut count: HashMap<Key, usize> = HashMap::new();
    let mut keeper: HashMap<&Key, &Binder<'_>> = HashMap::new();
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

/// Decides through which listener each connection goes, in the saved order. A listener of the image
/// will do if it has the name that the accepted end is to have, and the same socket file; else a
/// temporary one does, the same for all connections that agree in name, file and type.
pub(super) fn link(image: &Image) -> (Vec<Link>, Vec<(&Bound, SocketType)>) {
    let mut links = Vec::new();
    let mut temporary: Vec<(&Bound, SocketType)> = Vec::new();
    let mut numbers: HashMap<(&Bound, SocketType), usize> = HashMap::new();
    let mut listeners: HashMap<(&Bound, SocketType), SocketIndex> = HashMap::new();
    for (index, socket) in indexed(image) {
        if let (Role::Listening { .. }, Some(bound)) = (socket.role, &socket.name) {
            listeners.entry((bound, socket.socket_type)).or_insert(index);
        }
    }
    for connection in &image.connections {
        let Connection::Accepted { client, server, listener, order } = *connection else {
            continue;
        };
        let Some(socket) = image.sockets.get(server.get()) else {
            continue;
        };
        let Some(wanted) = &socket.name else { continue };
        let key = (wanted, socket.socket_type);
        // The one it came through, whatever became of the file (validation has seen that name and
        // type fit); else one with the same file.
        let found = listener.or_else(|| listeners.get(&key).copied());
        let holder = found.map_or_else(
            || {
                Holder::Temporary(*numbers.entry(key).or_insert_with(|| {
                    temporary.push(key);
                    temporary.len() - 1
                }))
            },
            Holder::Saved,
        );
        links.push(Link { client, server, listener: holder, order });
    }
    links.sort_by_key(|link| link.order);
    (links, temporary)
}
