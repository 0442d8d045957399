//! Who is at the other end of each socket of an image, in words.

use std::collections::HashMap;

use crate::image::{Connection, External, Image, Passed, Sender, SocketIndex, Was};
use crate::model::UnixName;
use crate::model::name::Escaped;

/// Says it for each socket that has or had a peer; `at` says where a socket is.
pub(super) fn of(
    image: &Image,
    at: impl Fn(SocketIndex) -> String,
) -> HashMap<SocketIndex, String> {
    let mut peers = HashMap::new();
    for connection in &image.connections {
        for (this, other) in connection.peers() {
            peers.insert(this, at(other));
        }
        match connection {
            Connection::Waiting { client, embryo, listener, .. } => match client {
                Sender::Socket(client) => {
                    peers.insert(*client, format!("waiting at {}", at(*listener)));
                }
                Sender::Gone(name) => {
                    peers.insert(*embryo, closed(name));
                }
            },
            Connection::Ended { survivor, was } => {
                let (Was::Half(name) | Was::Client { name, .. } | Was::Server { name, .. }) = was;
                peers.insert(*survivor, closed(name));
            }
            Connection::External { socket, how } => {
                peers.insert(*socket, outside(how));
            }
            Connection::Pair { .. } | Connection::Accepted { .. } | Connection::Datagram { .. } => {
            }
        }
    }
    peers
}

fn closed(name: &UnixName) -> String {
    match name.is_named() {
        true => format!("closed (was {name})"),
        false => "closed".to_owned(),
    }
}

fn outside(how: &External) -> String {
    match how {
        External::Reconnect { name, directory } => {
            let directory = directory.as_ref().map(|path| format!(" in {}", Escaped(path)));
            format!("outside: reconnect to {name}{}", directory.unwrap_or_default())
        }
        External::Keep { pid, fd } => format!("outside: keep, from pid {pid} fd {fd}"),
    }
}

/// Where each socket is found that no descriptor leads to: at a listener, or in messages.
pub(super) fn whereabouts(
    image: &Image,
    at: impl Fn(SocketIndex) -> String,
) -> HashMap<SocketIndex, String> {
    let mut places = HashMap::new();
    for (index, socket) in (0..).map(SocketIndex).zip(&image.sockets) {
        for file in socket.queue.iter().flat_map(|message| &message.files) {
            if let Passed::Socket(passed) = file {
                places.entry(*passed).or_insert_with(|| format!("in flight to {}", at(index)));
            }
        }
    }
    for connection in &image.connections {
        if let Connection::Waiting { embryo, listener, .. } = connection {
            places.insert(*embryo, format!("waiting at {}", at(*listener)));
        }
    }
    places
}
