//! What must hold in an internet socket.

use std::collections::HashSet;

use super::{Invalid, MAX_OPTION_LEN, Problem};
use crate::image::{Datagram, Image, Inet, Progress, Role, Socket, Stream, Tcp, Urgent, Waiting};
use crate::model::SocketType;
use crate::model::inet::{Endpoint, Family, Protocol, TcpState};

/// Sources of one multicast group, at most: no sysctl allows more (`net.ipv4.igmp_max_msf` is 10 by default).
const MAX_SOURCES: usize = 65_536;

/// The largest datagram: what the length field of UDP can say, without its header.
const MAX_DATAGRAM: usize = 65_527;

/// Not in libc for every target.
const UDP_CORK: i32 = 1;

/// `TCP_MAX_WSCALE`.
const MAX_SCALE: u8 = 14;

/// Bytes of a TCP queue, at most: a buffer cannot be larger (`INT_MAX / 2`).
const MAX_STREAM: usize = 1 << 30;

pub(super) fn check(socket: &Socket, inet: &Inet) -> Result<(), Problem> {
    let wrong = |what| Err(Problem::Inet(what));
    let wanted = if inet.protocol.is_datagram() { SocketType::Dgram } else { SocketType::Stream };
    if socket.socket_type != wanted {
        return wrong("is of a type that its protocol does not have");
    }
    let has_unix = socket.name.is_some()
        || socket.peer_credentials.is_some()
        || socket.listener_credentials.is_some()
        || socket.groups.is_some()
        || !socket.queue.is_empty();
    if has_unix || socket.role == Role::Embryo {
        return wrong("has what only unix sockets have");
    }
    for end in [inet.local, inet.remote].iter().flatten() {
        check_endpoint(*end, inet.family)?;
    }
    if inet.local.is_some_and(|local| local.is_nothing()) {
        return wrong("is bound to nothing");
    }
    let (is_listening, is_connected) =
        (matches!(socket.role, Role::Listening { .. }), socket.role == Role::Connected);
    if is_listening && (inet.local.is_none_or(|local| local.port == 0)) {
        return wrong("listens at no port");
    }
    if inet.remote.is_some() != is_connected {
        return wrong("is connected to nobody, or to somebody and not connected");
    }
    if inet.tcp.is_some() != (is_connected && inet.protocol == Protocol::Tcp) {
        return wrong("has a connection that does not go with its state");
    }
    let has_datagrams = !inet.datagrams.is_empty() || inet.held_back.is_some();
    if !inet.protocol.is_datagram() && has_datagrams {
        return wrong("has datagrams without having datagrams");
    }
    if inet.tcp.is_some() {
        // The lock knows a connection by these.
        let ends = [inet.local, inet.remote].map(|end| end.map(Endpoint::unmapped));
        let is_one = |end: &Option<Endpoint>| {
            end.is_some_and(|Endpoint { address, port, .. }| {
                port != 0 && !address.is_unspecified() && !address.is_multicast()
            })
        };
        let families = ends.map(|end| end.map(|end| end.family()));
        if !ends.iter().all(is_one) || families[0] != families[1] {
            return wrong("has ends that no connection has");
        }
    }
    check_options(inet)?;
    for membership in &inet.memberships {
        let families = membership.sources.iter().chain([&membership.group]);
        let is_v4 = membership.group.is_ipv4();
        // A socket of IPv6 may be in groups of IPv4.
        if !membership.group.is_multicast()
            || families.clone().any(|address| address.is_ipv4() != is_v4)
            || (inet.family == Family::V4 && !is_v4)
            || membership.sources.len() > MAX_SOURCES
        {
            return wrong("is in a multicast group that is not possible");
        }
    }
    if let Some(held_back) = &inet.held_back {
        let to = held_back.to.unmapped();
        let is_foreign = inet.family == Family::V4 && to.family() != Family::V4;
        if held_back.data.len() > MAX_DATAGRAM || is_foreign || to.port == 0 {
            return wrong("holds back a datagram that is not possible");
        }
    }
    inet.datagrams.iter().try_for_each(|datagram| check_datagram(datagram, inet))?;
    inet.tcp.as_deref().map_or(Ok(()), check_tcp)
}

/// What waits to be accepted: that it is a connection of two sockets of the image which can be made again as such.
pub(super) fn check_waiting(image: &Image) -> Result<(), Invalid> {
    let mut clients = HashSet::new();
    for (index, listener) in (0u32..).zip(&image.sockets) {
        let Some(inet) = listener.inet.as_deref().filter(|inet| !inet.waiting.is_empty()) else {
            continue;
        };
        let wrong = |what| Invalid::Socket { index, problem: Problem::Inet(what) };
        let Role::Listening { backlog } = listener.role else {
            return Err(wrong("does not listen and has connections that wait to be accepted"));
        };
        // One more than that is let in (`sk_acceptq_is_full`).
        let room = usize::try_from(backlog).unwrap_or(usize::MAX).saturating_add(1);
        if inet.waiting.len() > room {
            return Err(wrong("has more connections that wait than its backlog lets in"));
        }
        for waiting in &inet.waiting {
            let client = image.sockets.get(waiting.client.get());
            let client = client.and_then(|client| client.inet.as_deref());
            if !client.is_some_and(|client| waits(waiting, inet, client))
                || !clients.insert(waiting.client)
            {
                return Err(wrong("has a connection that waits and is none"));
            }
        }
    }
    Ok(())
}

fn waits(waiting: &Waiting, listener: &Inet, client: &Inet) -> bool {
    let Some(tcp) = client.tcp.as_deref() else { return false };
    let is_open =
        matches!(tcp.state, TcpState::Established | TcpState::FinWait1 | TcpState::FinWait2);
    let is_urgent_there = waiting.urgent.is_none_or(|urgent| {
        urgent.number.wrapping_sub(waiting.received.begin())
            < u32::try_from(waiting.received.data.len()).unwrap_or(u32::MAX)
    });
    is_open
        && tcp.received.data.is_empty()
        && client
            .remote
            .zip(listener.local)
            .is_some_and(|(to, at)| leads_to(to.unmapped(), at.unmapped()))
        && waiting.received.data.len() <= MAX_STREAM
        && waiting.with(&tcp.sent).is_some()
        && is_urgent_there
}

/// Whether whoever connects to an address comes to a listener.
fn leads_to(to: Endpoint, listener: Endpoint) -> bool {
    let (address, own) = (to.address, listener.address);
    to.port == listener.port && (own.is_unspecified() || own == address)
}

fn check_endpoint(end: Endpoint, family: Family) -> Result<(), Problem> {
    let has_more = end.flow != 0 || end.scope != 0;
    if end.family() != family || (family == Family::V4 && has_more) {
        return Err(Problem::Inet("has an address of another family"));
    }
    Ok(())
}

fn check_options(inet: &Inet) -> Result<(), Problem> {
    let mut there = HashSet::new();
    for option in &inet.options {
        if option.value.is_empty() || option.value.len() > MAX_OPTION_LEN {
            return Err(Problem::OptionSize { name: option.number, len: option.value.len() });
        }
        if option.level == libc::SOL_SOCKET || !there.insert((option.level, option.number)) {
            return Err(Problem::OptionTwice(option.number));
        }
        // It would send what is held back.
        let is_cork = (option.level, option.number) == (libc::SOL_UDP, UDP_CORK);
        if is_cork && option.value.iter().all(|byte| *byte == 0) {
            return Err(Problem::Inet("is corked and is not"));
        }
    }
    Ok(())
}

fn check_datagram(datagram: &Datagram, inet: &Inet) -> Result<(), Problem> {
    let Datagram { data, from, to } = datagram;
    if data.len() > MAX_DATAGRAM {
        return Err(Problem::Inet("has a datagram that is longer than any"));
    }
    let (from, to) = (from.unmapped(), to.unmapped());
    // One of IPv6 may receive both.
    if from.family() != to.family() || (inet.family == Family::V4 && from.family() != Family::V4) {
        return Err(Problem::Inet("has a datagram of another family"));
    }
    if to.port == 0 || inet.local.is_none_or(|local| local.port != to.port) {
        return Err(Problem::Inet("has a datagram that was sent to another port"));
    }
    Ok(())
}

fn check_tcp(tcp: &Tcp) -> Result<(), Problem> {
    let Tcp { state, received, sent, unsent, agreed, window, urgent, sent_urgent, .. } = tcp;
    let is_long = |stream: &Stream| stream.data.len() > MAX_STREAM;
    let sent_len = u32::try_from(sent.data.len()).unwrap_or(u32::MAX);
    let numbers = sent_len.saturating_add(u32::from(state.has_sent_fin()));
    if is_long(received) || is_long(sent) || *unsent > numbers {
        return Err(Problem::Inet("has more in its queues than it can"));
    }
    if agreed.scale.is_some_and(|(theirs, ours)| theirs.max(ours) > MAX_SCALE) {
        return Err(Problem::Inet("has windows that are scaled too much"));
    }
    let is_in = |stream: &Stream, number: u32| {
        let length = u32::try_from(stream.data.len()).unwrap_or(u32::MAX);
        number.wrapping_sub(stream.begin()) < length
    };
    let is_possible = |urgent: &Urgent| match urgent.progress {
        Progress::Announced => {
            urgent.number.wrapping_sub(received.end) < u32::from(u16::MAX)
                && !state.has_received_fin()
        }
        Progress::Waiting | Progress::Read => is_in(received, urgent.number),
    };
    if urgent.as_ref().is_some_and(|urgent| !is_possible(urgent))
        || sent_urgent.is_some_and(|behind| !is_in(sent, behind.wrapping_sub(1)))
    {
        return Err(Problem::Inet("has an urgent byte that is not in its queue"));
    }
    if agreed.mss == 0 && *state != TcpState::SynSent {
        return Err(Problem::Inet("has segments without any length"));
    }
    // It can be made again only if there is something to begin with.
    if *state == TcpState::SynSent && !(received.data.is_empty() && sent.data.is_empty()) {
        return Err(Problem::Inet("has data before it is connected"));
    }
    if *state == TcpState::FinWait2 && !(sent.data.is_empty() && *unsent == 0) {
        return Err(Problem::Inet("has data before a FIN that was acknowledged"));
    }
    if window.is_some() == (*state == TcpState::SynSent) {
        return Err(Problem::Inet("has windows that its state does not have, or none"));
    }
    match state {
        TcpState::Closed | TcpState::Listening | TcpState::TimeWait | TcpState::SynReceived => {
            Err(Problem::Inet("is in a state in which it is not connected"))
        }
        _ => Ok(()),
    }
}
