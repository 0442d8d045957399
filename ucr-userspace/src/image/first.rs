//! The types of format 1, as far as they differ, and how they become today's.

use serde::Deserialize;

use super::connection::Connection;
use super::schema::{
    self, Actor, Descriptor, KnownFrom, Origin, Process, Role, SocketFile, SocketOption,
};
use crate::model::{Credentials, Shutdown, SocketType, UnixName};

/// `Image` of format 1.
#[derive(Debug, Deserialize)]
pub(super) struct Image {
    origin: Origin,
    processes: Vec<Process>,
    sockets: Vec<Socket>,
    descriptors: Vec<Descriptor>,
    /// Variants that came later cannot be in it, or are refused by the validation.
    connections: Vec<Connection>,
}

#[derive(Debug, Deserialize)]
struct Socket {
    cookie: u64,
    inode: u32,
    socket_type: SocketType,
    role: Role,
    name: Option<Bound>,
    status_flags: i32,
    shutdown: Shutdown,
    peer_credentials: Option<Credentials>,
    listener_credentials: Option<Credentials>,
    options: Vec<SocketOption>,
    known_from: KnownFrom,
    created_at: Option<u64>,
    creator: Option<Actor>,
}

#[derive(Debug, Deserialize)]
struct Bound {
    name: UnixName,
    directory: Option<Vec<u8>>,
    file: Option<SocketFile>,
}

impl From<Image> for schema::Image {
    fn from(first: Image) -> Self {
        let Image { origin, processes, sockets, descriptors, connections } = first;
        let sockets = sockets.into_iter().map(Into::into).collect();
        Self { origin, processes, sockets, descriptors, connections, interfaces: Vec::new() }
    }
}

impl From<Socket> for schema::Socket {
    fn from(first: Socket) -> Self {
        Self {
            cookie: first.cookie,
            inode: first.inode,
            socket_type: first.socket_type,
            role: first.role,
            name: first.name.map(|Bound { name, directory, file }| schema::Bound {
                name,
                directory,
                root: None,
                file,
            }),
            status_flags: first.status_flags,
            shutdown: first.shutdown,
            peer_credentials: first.peer_credentials,
            listener_credentials: first.listener_credentials,
            groups: None,
            options: first.options,
            filter: None,
            notification: None,
            error: 0,
            queue: Vec::new(),
            known_from: first.known_from,
            created_at: first.created_at,
            creator: first.creator,
            sources: Vec::new(),
            inet: None,
            netlink: None,
        }
    }
}
