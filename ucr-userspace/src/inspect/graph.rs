//! Processes and the connections between them, out of a picture of all live sockets.

use super::picture::{Condition, Entry, Picture};
use crate::{
    ledger::TrackedRole,
    model::{SocketType, UnixName},
    query::{
        expression::Expression,
        graph::{Builder, Graph, Kind, Link},
        listing::RequestError,
    },
};

/// Draws it: of the sockets for which a filter over their columns holds, and of what they are connected to.
///
/// # Errors
/// A filter that makes no sense.
pub fn of(picture: &Picture<'_>, filter: Option<&str>, now: u64) -> Result<Graph, RequestError> {
    let columns = super::columns::columns();
    let text = filter.unwrap_or_default();
    let parsed = filter.map(|text| Expression::parse(text, &columns, now)).transpose();
    let mut filter = parsed.map_err(RequestError::filter(text))?;
    let mut builder = Builder::default();
    for entry in picture.entries() {
        // A connection is drawn once, from the end whose address comes first, or which alone is wanted.
        let wanted = filter.as_mut().is_none_or(|filter| filter.holds(&entry));
        if !wanted {
            continue;
        }
        add(&mut builder, picture, &entry);
        let Some(peer) = entry.peer() else { continue };
        let sk = |entry: &Entry<'_>| entry.live().sight.raw.socket.sk;
        let points_back = peer.live().sight.raw.peer.sk == sk(&entry);
        let is_second = points_back && sk(&peer) < sk(&entry);
        if is_second && filter.as_mut().is_none_or(|filter| filter.holds(&peer)) {
            continue;
        }
        add(&mut builder, picture, &peer);
        connect(&mut builder, &entry, &peer);
    }
    match filter.and_then(|filter| filter.misfit()) {
        Some(error) => Err(RequestError::filter(text)(error)),
        None => Ok(builder.finish()),
    }
}

/// A socket's holders, and what it can be reached as.
fn add(builder: &mut Builder, picture: &Picture<'_>, entry: &Entry<'_>) {
    for holder in entry.live().holders() {
        let group = picture.people.cgroup(holder.pid);
        let unit = group.as_ref().and_then(|group| group.unit.as_deref());
        builder.process(holder.pid, holder.comm(), unit);
    }
    let sight = &entry.live().sight;
    let reachable = match kind_of(entry) {
        SocketType::Dgram => sight.name.is_named(),
        _ => entry.condition() == Condition::Listening,
    };
    if reachable {
        builder.listener(&holders(entry), kind_of(entry), &sight.name);
    }
}

fn connect(builder: &mut Builder, one: &Entry<'_>, other: &Entry<'_>) {
    let is_waiting = |entry: &Entry<'_>| entry.condition() == Condition::NotAccepted;
    let (client, server) = if is_server(one, other) { (other, one) } else { (one, other) };
    let socket_type = kind_of(one);
    let name = server.live().sight.name.clone();
    let pair = one.known().tracked.as_ref().is_some_and(|t| t.role == TrackedRole::Pair);
    let kind = if is_waiting(server) {
        Kind::Waiting
    } else if socket_type == SocketType::Dgram && !pair && name.is_named() {
        Kind::Datagram
    } else if pair || !name.is_named() {
        Kind::Pair
    } else {
        Kind::Connection
    };
    let name = if kind == Kind::Pair { UnixName::Unnamed } else { name };
    // A connection that waits belongs to whoever listens.
    let to = if kind == Kind::Waiting { listeners_of(server) } else { holders(server) };
    builder.connection(&holders(client), &to, &Link { kind, socket_type, name });
}

/// Which of two ends was accepted: as it was tracked, else whichever has a name, as its listener has.
fn is_server(one: &Entry<'_>, other: &Entry<'_>) -> bool {
    let role = |entry: &Entry<'_>| entry.known().tracked.as_ref().map(|t| t.role);
    match (role(one), role(other)) {
        (Some(TrackedRole::Server), _) | (_, Some(TrackedRole::Client)) => true,
        (Some(TrackedRole::Client), _) | (_, Some(TrackedRole::Server)) => false,
        _ if kind_of(one) == SocketType::Dgram => {
            // Who is connected to the other sends to it.
            one.live().sight.raw.peer.sk != other.live().sight.raw.socket.sk
        }
        _ => one.condition() == Condition::NotAccepted || one.live().sight.name.is_named(),
    }
}

/// Who listens where an embryo waits: they share a name.
fn listeners_of(embryo: &Entry<'_>) -> Vec<u32> {
    let listener = embryo.picture().listener_of(embryo);
    listener.map(|listener| holders(&listener)).unwrap_or_default()
}

fn holders(entry: &Entry<'_>) -> Vec<u32> {
    entry.live().holders().map(|holder| holder.pid).collect()
}

fn kind_of(entry: &Entry<'_>) -> SocketType {
    SocketType::from_raw(entry.live().sight.raw.socket_type.into()).unwrap_or_default()
}
