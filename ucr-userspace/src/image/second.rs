//! The types of format 2, as far as they differ, and how they become today's.

use serde::Deserialize;

use super::connection::Connection;
use super::message::Message;
use super::schema::{
    self, Actor, Bound, Descriptor, Fact, Filter, KnownFrom, Notification, Origin, Process, Role,
    SocketOption, Source,
};
use crate::model::{Credentials, Shutdown, SocketType};

/// `Image` of format 2.
#[derive(Debug, Deserialize)]
pub(super) struct Image {
    origin: Origin,
    processes: Vec<Process>,
    sockets: Vec<Socket>,
    descriptors: Vec<Descriptor>,
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
    groups: Option<Vec<u32>>,
    options: Vec<SocketOption>,
    filter: Option<Filter>,
    notification: Option<Notification>,
    error: i32,
    queue: Vec<Message>,
    known_from: KnownFrom,
    created_at: Option<u64>,
    creator: Option<Actor>,
    sources: Vec<(Fact, Source)>,
}

impl From<Image> for schema::Image {
    fn from(second: Image) -> Self {
        let Image { origin, processes, sockets, descriptors, connections } = second;
        let sockets = sockets.into_iter().map(Into::into).collect();
        Self { origin, processes, sockets, descriptors, connections, interfaces: Vec::new() }
    }
}

impl From<Socket> for schema::Socket {
    fn from(second: Socket) -> Self {
        Self {
            cookie: second.cookie,
            inode: second.inode,
            socket_type: second.socket_type,
            role: second.role,
            name: second.name,
            status_flags: second.status_flags,
            shutdown: second.shutdown,
            peer_credentials: second.peer_credentials,
            listener_credentials: second.listener_credentials,
            groups: second.groups,
            options: second.options,
            filter: second.filter,
            notification: second.notification,
            error: second.error,
            queue: second.queue,
            known_from: second.known_from,
            created_at: second.created_at,
            creator: second.creator,
            sources: second.sources,
            inet: None,
            netlink: None,
        }
    }
}
