//! Plans, as `restore --dry-run` prints them.

use std::path::Path;

use ucr::image::*;
use ucr::model::*;
use ucr::restore::plan::spot::Landing;
use ucr::restore::plan::step::{Aside, Step};
use ucr::restore::plan::{PlanError, plan};

use crate::support::*;

fn credentials(uid: u32, gid: u32) -> Option<Credentials> {
    Some(Credentials { pid: Pid(1), uid, gid })
}

#[test]
fn a_bit_of_everything() {
    let plan = plan(&everything(Path::new("/run/ucr"))).unwrap();
    insta::assert_snapshot!(plan);
    let summary = plan.summary;
    assert_eq!(
        (summary.sockets, summary.listeners, summary.connections, summary.pairs),
        (16, 2, 5, 1)
    );
}

#[test]
fn datagram_sockets_are_connected_before_their_peers_are() {
    let plan = plan(&datagrams(Path::new("/run/ucr"))).unwrap();
    insta::assert_snapshot!(plan);
    assert_eq!((plan.summary.pairs, plan.summary.datagram_peers), (1, 10));
}

#[test]
fn datagram_sockets_in_a_circle_or_without_a_name_are_refused() {
    let mut b = Builder::new();
    let all = ["a", "b", "c"].map(|name| {
        let name = Some(abstract_name(name.as_bytes()));
        b.add(Socket { name, ..socket(SocketType::Dgram, Role::Connected) })
    });
    for (sender, receiver) in [(all[0], all[1]), (all[1], all[2]), (all[2], all[0])] {
        b.0.connections.push(Connection::Datagram { sender, receiver });
    }
    let error = plan(&b.0).unwrap_err().to_string();
    assert!(error.contains("socket 0: it is connected in a circle"), "{error}");

    // Two have the same nameless peer: no socketpair makes that.
    let mut b = Builder::new();
    let peer = b.add(socket(SocketType::Dgram, Role::Unconnected));
    for _ in 0..2 {
        let sender = b.add(socket(SocketType::Dgram, Role::Connected));
        b.0.connections.push(Connection::Datagram { sender, receiver: peer });
    }
    let error = plan(&b.0).unwrap_err().to_string();
    assert!(error.contains("socket 2: it is connected to a socket without a name"), "{error}");

    // One end of a pair has let nobody else connect.
    let mut b = Builder::new();
    let (a, _) = b.pair(SocketType::Dgram);
    b.get(a).name = Some(abstract_name(b"a"));
    let sender = b.add(socket(SocketType::Dgram, Role::Connected));
    b.0.connections.push(Connection::Datagram { sender, receiver: a });
    let error = plan(&b.0).unwrap_err().to_string();
    assert!(
        error.contains("socket 2: it is connected to a socket that has had another"),
        "{error}"
    );
}

#[test]
fn a_long_chain_of_datagram_sockets_is_put_in_order() {
    let mut b = Builder::new();
    let name = |n: usize| Some(abstract_name(format!("{n}").as_bytes()));
    let role = |n| if n == 0 { Role::Unconnected } else { Role::Connected };
    let all: Vec<_> = (0..20_000)
        .map(|n| b.add(Socket { name: name(n), ..socket(SocketType::Dgram, role(n)) }))
        .collect();
    for two in all.windows(2) {
        b.0.connections.push(Connection::Datagram { sender: two[1], receiver: two[0] });
    }
    let plan = plan(&b.0).unwrap();
    let first = plan.steps.iter().find_map(|step| match step {
        Step::ConnectDatagram { sender, .. } => Some(*sender),
        _ => None,
    });
    assert_eq!(first, all.last().copied());
}

#[test]
fn credentials_are_those_of_the_other_side() {
    let mut b = Builder::new();
    let name = abstract_name(b"x");
    let listener = b.listener(SocketType::Stream, name.clone());
    b.get(listener).listener_credentials = credentials(1, 2);
    let (client, server) = b.accepted(SocketType::Stream, Some(listener), name.clone(), None);
    // The one who listened when this client came was another one than now.
    b.get(client).peer_credentials = credentials(3, 4);
    b.get(server).peer_credentials = credentials(5, 6);
    let (client, _) = b.accepted(SocketType::Stream, Some(listener), name, None);
    b.get(client).peer_credentials = credentials(1, 2);
    let (a, other) = b.pair(SocketType::Stream);
    b.get(a).peer_credentials = credentials(7, 8);
    b.get(other).peer_credentials = credentials(7, 8);
    insta::assert_snapshot!(plan(&b.0).unwrap());
}

#[test]
fn one_name_after_another() {
    // Three generations of a daemon under one path: connections of the first two survive, the
    // listener of the second lost its file, the third has it now. A client was there as well.
    let mut b = Builder::new();
    let now = path_name("/run/d", present(0o666));
    let deleted = path_name("/run/d", SocketFile::Deleted);
    let third = b.listener(SocketType::Stream, now.clone());
    b.accepted(SocketType::Stream, Some(third), now, None);
    let second = b.listener(SocketType::Stream, path_name("/run/d", SocketFile::Replaced));
    let second_name = path_name("/run/d", SocketFile::Replaced);
    b.accepted(SocketType::Stream, Some(second), second_name, None);
    b.accepted(SocketType::Stream, None, deleted.clone(), Some(deleted));
    let plan = plan(&b.0).unwrap();
    insta::assert_snapshot!(plan);
    assert_eq!(plan.paths.len(), 1);
}

#[test]
fn clients_of_a_lost_listener_and_its_successor_in_the_abstract_table() {
    let mut b = Builder::new();
    let wanted = abstract_name(b"d");
    b.accepted(SocketType::Stream, None, wanted.clone(), None);
    // A socket of another type may have the same abstract name.
    b.listener(SocketType::Seqpacket, wanted.clone());
    let unconnected = b.add(socket(SocketType::Stream, Role::Unconnected));
    b.get(unconnected).name = Some(wanted);
    insta::assert_snapshot!(plan(&b.0).unwrap());
}

#[test]
fn relative_names_and_files_in_the_way() {
    let mut b = Builder::new();
    let bound = Bound {
        name: UnixName::Pathname(b"./sub//s".to_vec()),
        directory: Some(b"/srv/./app".to_vec()),
        root: None,
        file: Some(present(0o600)),
    };
    b.listener(SocketType::Stream, bound);
    b.listener(SocketType::Stream, path_name("/run/gone", SocketFile::Deleted));
    let plan = plan(&b.0).unwrap();
    // Nothing stays at the other one, and nothing there is touched.
    assert_eq!(plan.paths.len(), 1);
    assert_eq!(plan.paths[0].spot.path, b"/srv/app/sub/s");
    let id = FileId { device: 1, inode: 2, born: None };
    let asides = vec![Aside { spot: plan.paths[0].spot.clone(), id }];
    insta::assert_snapshot!(plan.with_asides(asides));
}

#[test]
fn options_are_set_in_an_order_that_works() {
    let mut b = Builder::new();
    let index = b.add(socket(SocketType::Stream, Role::Unconnected));
    let option = |name| SocketOption { name, value: 1i32.to_ne_bytes().to_vec() };
    b.get(index).options =
        [libc::SO_BUF_LOCK, libc::SO_TIMESTAMP, libc::SO_SNDBUF, libc::SO_TIMESTAMPING]
            .map(option)
            .to_vec();
    let plan = plan(&b.0).unwrap();
    let order: Vec<_> = plan
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::SetOption { option, .. } => Some(option.name),
            _ => None,
        })
        .collect();
    assert_eq!(
        order,
        [libc::SO_SNDBUF, libc::SO_BUF_LOCK, libc::SO_TIMESTAMPING, libc::SO_TIMESTAMP]
    );
}

#[test]
fn what_cannot_work_is_refused() {
    let mut b = Builder::new();
    b.listener(SocketType::Stream, path_name("/run/x", present(0o600)));
    b.listener(SocketType::Seqpacket, path_name("/run/./x", present(0o600)));
    assert!(matches!(plan(&b.0), Err(PlanError::NameTwice { .. })));

    let mut b = Builder::new();
    b.listener(SocketType::Stream, path_name("/run/..", present(0o600)));
    assert!(matches!(plan(&b.0), Err(PlanError::NoFileName { .. })));

    let mut b = Builder::new();
    let index = b.add(socket(SocketType::Stream, Role::Unconnected));
    b.get(index).options = vec![SocketOption { name: libc::SO_ATTACH_FILTER, value: vec![1] }];
    let error = plan(&b.0).unwrap_err();
    assert_eq!(error.to_string(), "socket 0 has option 26, which ucr does not restore");

    b.0.processes.clear();
    assert!(matches!(plan(&b.0), Err(PlanError::Invalid(_))));
}

/// As many connections through as many listeners that lost one name to each other, half of them
/// known and half of them gone: what looks through all of one for each of the other does not end.
#[test]
fn many_generations_of_one_name() {
    let mut b = Builder::new();
    let gone = path_name("/run/d", SocketFile::Deleted);
    for _ in 0..15_000 {
        let listener = b.listener(SocketType::Stream, gone.clone());
        b.accepted(SocketType::Stream, Some(listener), gone.clone(), None);
    }
    let plan = plan(&b.0).unwrap();
    assert_eq!(plan.summary.connections, 15_000);
    let private = |step: &&Step| matches!(step, Step::Bind { landing: Landing::Nowhere, .. });
    assert_eq!(plan.steps.iter().filter(private).count(), 15_000);
}

#[test]
fn many_sockets_do_not_take_long() {
    let mut b = Builder::new();
    for number in 0..4000 {
        let name = abstract_name(format!("{number}").as_bytes());
        let own = abstract_name(format!("client {number}").as_bytes());
        b.accepted(SocketType::Stream, None, name, Some(own));
    }
    let before = std::time::Instant::now();
    let plan = plan(&b.0).unwrap();
    assert_eq!(plan.steps.len(), 4000 * 8);
    // Some 50 ms; what is quadratic takes minutes.
    assert!(before.elapsed().as_secs() < 20, "{:?}", before.elapsed());
}
