//! Which sockets of an image call `bind`, which of them want one name, and through which listener
//! each connection goes. Pure.

use std::collections::HashMap;

use super::PlanError;
use super::step::{Holder, Identity, Place};
use crate::image::{Bound, Connection, Image, Role, Socket, SocketFile, SocketIndex};
use crate::model::SocketType;

pub(super) fn indexed(image: &Image) -> impl Iterator<Item = (SocketIndex, &Socket)> {
    (0..).map(SocketIndex).zip(&image.sockets)
}

/// What the kernel keeps apart: a path is one file, an abstract name is one per type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    Path(Vec<u8>),
    Abstract(Vec<u8>, SocketType),
}

/// A socket that calls `bind`.
pub(super) struct Binder<'a> {
    pub(super) made: Holder,
    pub(super) socket_type: SocketType,
    pub(super) place: Place,
    pub(super) key: Key,
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

fn is_present(bound: &Bound) -> bool {
    matches!(bound.file, Some(SocketFile::Present { .. }))
}

pub(super) fn binder<'a>(
    made: Holder,
    socket_type: SocketType,
    bound: &'a Bound,
    listens: Option<(u32, Option<Identity>)>,
) -> Result<Binder<'a>, PlanError> {
    let place = place_of(bound);
    let key = match place.path() {
        None => Key::Abstract(bound.name.as_bytes().to_vec(), socket_type),
        Some(path) => {
            let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            let slash = bound.name.as_bytes().ends_with(b"/");
            if slash || last.is_empty() || last == b".." {
                return Err(PlanError::NoFileName { name: bound.name.clone(), made });
            }
            Key::Path(path)
        }
    };
    let stays = match key {
        Key::Abstract(..) => matches!(made, Holder::Saved(_)),
        Key::Path(_) => is_present(bound),
    };
    let file = bound.file.as_ref();
    Ok(Binder { made, socket_type, place, key, file, listens, stays, contested: false })
}

/// Finds names that have more than one binder; only one of them may keep it.
pub(super) fn mark_contested(binders: &mut [Binder<'_>]) -> Result<(), PlanError> {
    let mut count: HashMap<Key, usize> = HashMap::new();
    let mut keeper: HashMap<&Key, &Binder<'_>> = HashMap::new();
    for binder in &*binders {
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
