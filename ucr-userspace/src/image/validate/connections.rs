//! What must hold between the sockets of an image.

use std::collections::HashMap;

use super::{Invalid, Problem, check_name, look_up};
use crate::image::datagrams::{self, Impossible};
use crate::image::{Connection, External, Image, Role, Sender, Socket, SocketIndex, Was};
use crate::model::{Shutdown, SocketType, UnixName};

fn problem(index: SocketIndex, problem: Problem) -> Invalid {
    Invalid::Socket { index: index.0, problem }
}

pub(super) fn check(image: &Image) -> Result<(), Invalid> {
    let mut ends: HashMap<SocketIndex, SocketIndex> = HashMap::new();
    for connection in &image.connections {
        let alone = connection.alone().map(|alone| (alone, alone));
        for (this, other) in connection.peers().chain(alone) {
            let socket = look_up(image, "a connection", this)?;
            let is_embryo =
                matches!(connection, Connection::Waiting { embryo, .. } if *embryo == this);
            if socket.inet.is_some() {
                return Err(problem(
                    this,
                    Problem::Inet("is an end of a connection of unix sockets"),
                ));
            }
            let role = if is_embryo { Role::Embryo } else { Role::Connected };
            // One that is taken over may have no peer.
            let is_alone = connection.kept().is_some() && socket.role == Role::Unconnected;
            if socket.role != role && !is_alone {
                return Err(problem(this, Problem::NotConnected));
            }
            if ends.insert(this, other).is_some() {
                return Err(problem(this, Problem::InTwoConnections));
            }
        }
        if let Some((a, b)) = connection.ends() {
            check_ends(image, connection, a, b)?;
        }
        check_one(image, connection)?;
    }
    let alone = (0u32..).zip(&image.sockets).find(|(index, socket)| {
        matches!(socket.role, Role::Connected | Role::Embryo)
            && socket.inet.is_none()
            && !ends.contains_key(&SocketIndex(*index))
    });
    if let Some((index, _)) = alone {
        return Err(Invalid::Socket { index, problem: Problem::NotInConnection });
    }
    datagrams::order(image).map(drop).map_err(|impossible| match impossible {
        Impossible::Nameless(index) => problem(index, Problem::NamelessPeer),
        Impossible::Taken(index) => problem(index, Problem::TakenPeer),
        Impossible::Circle(index) => problem(index, Problem::Circle),
    })
}

/// What two ends have in common.
fn check_ends(
    image: &Image,
    connection: &Connection,
    a: SocketIndex,
    b: SocketIndex,
) -> Result<(), Invalid> {
    let first = look_up(image, "a connection", a)?;
    let second = look_up(image, "a connection", b)?;
    if first.socket_type != second.socket_type {
        return Err(problem(a, Problem::PeerType(first.socket_type, second.socket_type)));
    }
    // A datagram socket shuts down for itself alone.
    let is_datagram = first.socket_type == SocketType::Dgram;
    // Who connects may have shut something down before, which its peer does not know of.
    let own_alone = first.shutdown.0 & !second.shutdown.mirrored().0;
    let may_alone = match connection {
        Connection::Accepted { .. } | Connection::Waiting { .. } => Shutdown::BOTH.0,
        _ => 0,
    };
    let common = Shutdown(first.shutdown.0 & !(own_alone & may_alone));
    if !is_datagram && common != second.shutdown.mirrored() {
        return Err(problem(a, Problem::ShutdownNotMirrored(first.shutdown, second.shutdown)));
    }
    if let Connection::Pair { .. } = connection {
        let identity = |socket: &Socket| socket.peer_credentials.map(|c| (c.uid, c.gid));
        if let (Some(one), Some(other)) = (identity(first), identity(second))
            && one != other
        {
            return Err(problem(a, Problem::PairCredentials));
        }
    }
    Ok(())
}

/// What goes for one kind of connection.
fn check_one(image: &Image, connection: &Connection) -> Result<(), Invalid> {
    match connection {
        Connection::Pair { .. } => Ok(()),
        &Connection::Datagram { sender, .. } => {
            let socket_type = look_up(image, "a connection", sender)?.socket_type;
            let what = "connected in one direction";
            match socket_type {
                SocketType::Dgram => Ok(()),
                _ => Err(problem(sender, Problem::Kind(socket_type, what))),
            }
        }
        &Connection::Accepted { server, listener, client, .. } => {
            check_accepted(image, client, server, listener)
        }
        &Connection::Waiting { embryo, listener, ref client, .. } => {
            if let Sender::Gone(name) = client {
                check_gone(embryo, name)?;
            }
            check_accepted(image, embryo, embryo, Some(listener))
        }
        Connection::Ended { survivor, was } => {
            let socket = look_up(image, "a connection", *survivor)?;
            let is_datagram = socket.socket_type == SocketType::Dgram;
            match was {
                Was::Half(name) => check_gone(*survivor, name),
                Was::Client { name, .. } if is_datagram => {
                    let _unused = name;
                    Err(problem(*survivor, Problem::Kind(socket.socket_type, "accepted")))
                }
                Was::Client { name, listener } => {
                    check_gone(*survivor, name)?;
                    check_accepted(image, *survivor, *survivor, *listener)
                }
                Was::Server { name, .. } if !name.is_named() => {
                    Err(problem(*survivor, Problem::Nameless("was accepted")))
                }
                Was::Server { name, listener } => {
                    check_gone(*survivor, name)?;
                    match listener {
                        Some(listener) => {
                            check_listener(image, *listener, socket.socket_type, name)
                        }
                        None => Ok(()),
                    }
                }
            }
        }
        Connection::External { socket, how } => {
            look_up(image, "a connection", *socket)?;
            match how {
                External::Reconnect { name, directory } => {
                    if !name.is_named() {
                        return Err(problem(*socket, Problem::NamelessPeer));
                    }
                    check_name(name, directory.as_deref()).map_err(|p| problem(*socket, p))
                }
                External::Keep { pid, fd } if pid.0 <= 0 || *fd < 0 => {
                    Err(problem(*socket, Problem::Keeper(*pid, *fd)))
                }
                External::Keep { .. } => Ok(()),
            }
        }
    }
}

fn check_gone(survivor: SocketIndex, name: &UnixName) -> Result<(), Invalid> {
    match name.is_possible() {
        true => Ok(()),
        false => Err(problem(survivor, Problem::ImpossibleName(name.clone()))),
    }
}

/// An end that was accepted, or will be, has a name: its listener's.
fn check_accepted(
    image: &Image,
    blamed: SocketIndex,
    server: SocketIndex,
    listener: Option<SocketIndex>,
) -> Result<(), Invalid> {
    let socket = look_up(image, "a connection", server)?;
    if socket.socket_type == SocketType::Dgram {
        return Err(problem(blamed, Problem::Kind(socket.socket_type, "accepted")));
    }
    let Some(accepted) = &socket.name else {
        return Err(problem(server, Problem::Nameless("was accepted")));
    };
    match listener {
        Some(listener) => check_listener(image, listener, socket.socket_type, &accepted.name),
        None => Ok(()),
    }
}

fn check_listener(
    image: &Image,
    index: SocketIndex,
    socket_type: SocketType,
    name: &UnixName,
) -> Result<(), Invalid> {
    let listener = look_up(image, "a connection", index)?;
    if !matches!(listener.role, Role::Listening { .. }) {
        return Err(problem(index, Problem::NotListening));
    }
    if listener.socket_type != socket_type {
        return Err(problem(index, Problem::ListenerType(listener.socket_type, socket_type)));
    }
    match &listener.name {
        Some(bound) if bound.name != *name => {
            let names = (bound.name.clone(), name.clone());
            Err(problem(index, Problem::ListenerName(names.0, names.1)))
        }
        _ => Ok(()),
    }
}
