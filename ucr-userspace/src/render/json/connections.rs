//! How the sockets of an image hang together, as JSON.

use serde::Serialize;

use crate::image::{Connection, External, Sender, SocketIndex, Was};
use crate::model::Pid;
use crate::model::name::{Bytes, Exact};

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Ends<'a> {
    Pair {
        a: SocketIndex,
        b: SocketIndex,
    },
    Accepted {
        client: SocketIndex,
        server: SocketIndex,
        listener: Option<SocketIndex>,
        order: u32,
    },
    Datagram {
        sender: SocketIndex,
        receiver: SocketIndex,
    },
    Waiting {
        client: Client<'a>,
        embryo: SocketIndex,
        listener: SocketIndex,
        order: u32,
    },
    Ended {
        survivor: SocketIndex,
        was: &'static str,
        name: Exact<'a>,
        listener: Option<SocketIndex>,
    },
    Reconnect {
        socket: SocketIndex,
        name: Exact<'a>,
        directory: Option<Bytes<'a>>,
    },
    Keep {
        socket: SocketIndex,
        pid: Pid,
        fd: i32,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Client<'a> {
    Socket(SocketIndex),
    Gone(Exact<'a>),
}

impl<'a> Ends<'a> {
    pub(super) fn of(connection: &'a Connection) -> Self {
        match connection {
            &Connection::Pair { a, b } => Self::Pair { a, b },
            &Connection::Accepted { client, server, listener, order } => {
                Self::Accepted { client, server, listener, order }
            }
            &Connection::Datagram { sender, receiver } => Self::Datagram { sender, receiver },
            Connection::Waiting { client, embryo, listener, order } => {
                let client = match client {
                    Sender::Socket(index) => Client::Socket(*index),
                    Sender::Gone(name) => Client::Gone(Exact(name)),
                };
                Self::Waiting { client, embryo: *embryo, listener: *listener, order: *order }
            }
            Connection::Ended { survivor, was } => {
                let (was, name, listener) = match was {
                    Was::Half(name) => ("half", name, None),
                    Was::Client { name, listener } => ("client", name, *listener),
                    Was::Server { name, listener } => ("server", name, *listener),
                };
                Self::Ended { survivor: *survivor, was, name: Exact(name), listener }
            }
            Connection::External { socket, how } => match how {
                External::Reconnect { name, directory } => Self::Reconnect {
                    socket: *socket,
                    name: Exact(name),
                    directory: directory.as_deref().map(Bytes),
                },
                &External::Keep { pid, fd } => Self::Keep { socket: *socket, pid, fd },
            },
        }
    }
}
