//! Who is said to hold a socket.

use ucr_common::identity::SocketId;
use zerocopy::FromZeros as _;

use super::*;
use crate::model::UnixName;

fn sight(cookie: u64, pid: u32, fd: u32) -> Sight {
    let mut raw = Sighting::new_zeroed();
    raw.socket = SocketId { sk: 7, cookie, ..SocketId::NONE };
    (raw.pid, raw.tid, raw.fd) = (pid, pid, fd);
    Sight { raw, name: UnixName::Unnamed }
}

fn holders(found: &Found) -> Vec<(u32, u32)> {
    let [live] = found.sockets.as_slice() else { panic!("{} sockets", found.sockets.len()) };
    assert_eq!(live.holders().len(), live.holders().count());
    live.holders().map(|holder| (holder.pid, holder.fd)).collect()
}

#[test]
fn everybody_who_holds_a_socket_is_told_once() {
    let mut found = Found::default();
    found.add(sight(1, 10, 3));
    assert_eq!(holders(&found), [(10, 3)]);
    // The kernel shows a descriptor again after a full buffer.
    found.add(sight(1, 10, 3));
    assert_eq!(holders(&found), [(10, 3)]);
    for (pid, fd) in [(10, 4), (10, 4), (11, 3)] {
        found.add(sight(1, pid, fd));
    }
    assert_eq!(holders(&found), [(10, 3), (10, 4), (11, 3)]);
}

#[test]
fn another_socket_at_the_same_address_takes_its_place() {
    let mut found = Found::default();
    found.add(sight(1, 10, 3));
    found.add(sight(1, 11, 3));
    found.add(sight(2, 12, 5));
    assert_eq!(holders(&found), [(12, 5)]);
}

#[test]
fn what_no_descriptor_leads_to_nobody_holds() {
    let mut found = Found::default();
    found.add(sight(1, 0, NO_FD));
    assert_eq!(holders(&found), []);
}
