//! The internet sockets of a network namespace. The kernel tells of those that are in its tables: of TCP what listens
//! or is connected (since 6.8 also what is bound), of UDP what has a port.

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};

use super::{ATTEMPTS, DiagError, ask, open, read_all, within};
use crate::model::{
    InetView, SeenInet, Shutdown,
    inet::{Endpoint, Family, Over, TcpState, scope_of},
};

/// The family that is asked about to see whether there is an answer.
pub(super) const V4: Family = Family::V4;

/// States that no socket of a process is in: `TIME-WAIT`, and `TCP_NEW_SYN_RECV` of a request.
const NOBODYS: u32 = 1 << 6 | 1 << 12;

/// The internet sockets of these kinds in a process's network namespace.
///
/// # Errors
/// See [`DiagError`].
pub fn inet_sockets_of(pid: i32, kinds: &[Over]) -> Result<InetView, DiagError> {
    within(pid, || {
        let mut view = InetView::default();
        for kind in kinds {
            dump(*kind, &mut view)?;
        }
        Ok(view)
    })
}

/// What to ask to be told of all of one kind.
pub(super) fn question(Over(protocol, family): Over, states: u32) -> SockDiagMessage {
    SockDiagMessage::InetRequest(InetRequest {
        family: u8::try_from(family.raw()).unwrap_or_default(),
        protocol: u8::try_from(protocol.raw()).unwrap_or_default(),
        extensions: ExtensionFlags::empty(),
        // The crate does not name all of them.
        states: StateFlags::from_bits_retain(states),
        socket_id: match family {
            Family::V4 => SocketId::new_v4(),
            Family::V6 => SocketId::new_v6(),
        },
    })
}

fn dump(kind: Over, view: &mut InetView) -> Result<(), DiagError> {
    let socket = open()?;
    for _ in 0..ATTEMPTS {
        ask(&socket, question(kind, !NOBODYS), NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut found = Vec::new();
        let is_whole = read_all(&socket, |message| {
            if let SockDiagMessage::InetResponse(response) = message {
                found.push(seen(kind, &response)?);
            }
            Ok(())
        })
        .map_err(|error| error.about(kind))?;
        if is_whole {
            view.sockets.extend(found.into_iter().map(|seen| (seen.cookie, seen)));
            return Ok(());
        }
    }
    Err(DiagError::Disturbed(ATTEMPTS))
}

fn seen(kind: Over, response: &InetResponse) -> Result<SeenInet, DiagError> {
    let header = &response.header;
    let id = &header.socket_id;
    let unknown = DiagError::Unknown { inode: header.inode, field: "state", value: header.state };
    let end = |address, port| {
        let scope = scope_of(address, id.interface_id);
        Some(Endpoint { scope, ..Endpoint::new(address, port) }).filter(|end| !end.is_nothing())
    };
    let state = TcpState::from_raw(header.state).ok_or(unknown)?;
    let shutdown = response.nlas.iter().find_map(|attribute| match attribute {
        Nla::Shutdown(directions) => Some(*directions),
        _ => None,
    });
    Ok(SeenInet {
        inode: header.inode,
        cookie: u64::from_ne_bytes(id.cookie),
        kind,
        state,
        local: end(id.source_address, id.source_port),
        remote: end(id.destination_address, id.destination_port),
        shutdown: Shutdown(shutdown.unwrap_or(0)),
        backlog: if state == TcpState::Listening { header.send_queue } else { 0 },
    })
}

#[cfg(test)]
mod tests {
    use std::{
        net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
        os::fd::AsFd,
    };

    use super::*;
    use crate::model::inet::Protocol;

    fn cookie(socket: &impl AsFd) -> u64 {
        rustix::net::sockopt::socket_cookie(socket).expect("a cookie")
    }

    #[test]
    fn our_own_sockets_are_seen_as_they_are() {
        let place = |address: SocketAddr| Some(Endpoint::from(address));
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).expect("connect");
        client.shutdown(std::net::Shutdown::Write).expect("shut down");
        let udp = UdpSocket::bind("[::1]:0").expect("bind");
        let kinds = [Over(Protocol::Tcp, Family::V4), Over(Protocol::Udp, Family::V6)];
        let view = inet_sockets_of(std::process::id().cast_signed(), &kinds).expect("a snapshot");
        let seen = view.get(cookie(&listener)).expect("the listener");
        assert_eq!((seen.state, seen.local), (TcpState::Listening, place(address)));
        assert_eq!((seen.remote, seen.kind), (None, kinds[0]));
        assert!(seen.backlog > 0);
        let seen = view.get(cookie(&client)).expect("the client");
        assert!(matches!(seen.state, TcpState::FinWait1 | TcpState::FinWait2));
        assert_eq!((seen.remote, seen.shutdown), (place(address), Shutdown(2)));
        let seen = view.get(cookie(&udp)).expect("the UDP socket");
        let address = udp.local_addr().expect("an address");
        assert_eq!((seen.state, seen.local), (TcpState::Closed, place(address)));
    }
}
