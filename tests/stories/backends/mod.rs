//! The backends beside one another: each can be forced, what it cannot see is known, what it loses is
//! counted and made good, and it leaves nothing behind.

mod blind_spots;
mod forced;
mod leftovers;
mod loss;
mod objects;
mod prototypes;
mod same;
mod unseen;
mod verifier;

use std::collections::BTreeMap;

use ucr::{
    model::{SocketState, UnixName},
    snapshot::diag,
    tracer::hooks::Backend,
};
use ucr_tests::{World, outside};

/// Those that attach something.
const TRACING: [Backend; 2] = [Backend::Trampoline, Backend::Tracepoint];

/// That the ledger says of each socket of a process what sock_diag says.
pub(crate) fn is_right(world: &World, pid: i32) {
    let view = diag::unix_sockets().expect("a snapshot");
    let records = world.ucr.ledger().records().expect("read the ledger");
    let by_inode: BTreeMap<u64, _> = records.iter().map(|r| (r.socket.inode, r)).collect();
    for (fd, inode) in outside::sockets(pid) {
        let seen = view.get(inode).unwrap_or_else(|| panic!("{inode} in the snapshot"));
        let record = by_inode.get(&u64::from(inode)).unwrap_or_else(|| panic!("no record of {fd}"));
        // A peer that has closed is remembered, without an address.
        let peer = if record.peer.sk == 0 { 0 } else { record.peer.inode };
        assert_eq!(peer, seen.peer.map_or(0, u64::from), "peer of {fd}");
        assert_eq!(UnixName::from_sun_path(record.name.as_bytes()), seen.name, "name of {fd}");
        let state = u8::try_from(record.state).ok().and_then(SocketState::from_raw);
        assert_eq!(state, Some(seen.state), "state of {fd}");
    }
}
