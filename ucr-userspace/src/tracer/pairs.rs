//! Who is at the other ends of connections, as far as that was tracked: wherever on this host.

use crate::{
    ledger::{
        Tracked,
        pairs::{Connection, Pairs},
    },
    tracer::{TracerError, pins::PinDirectory, programs::Programs, store::Store},
};
use ucr_common::inet::RawEnds;

/// What was tracked of the sockets at the other ends, in the order of the connections. One pass over the pinned
/// ledger, however many there are.
///
/// # Errors
/// The kernel's; [`TracerError::Occupied`] if somebody else does not stop asking.
pub fn other_ends(
    pins: &PinDirectory,
    store: &Store,
    connections: &[Connection],
) -> Result<Vec<Option<Tracked>>, TracerError> {
    // Who has the same ends is asked for as well: the other end may be his.
    let sought = connections.iter().flat_map(|connection| [*connection, connection.mirrored()]);
    let sought = sought.map(|Connection { local, remote, .. }| RawEnds {
        local: local.to_raw(),
        remote: remote.to_raw(),
    });
    let found = Programs::open(pins)?.search_ends(sought)?;
    if found.left_out > 0 {
        return Err(TracerError::TooMany { found: found.left_out });
    }
    let mut sockets = Vec::new();
    for sk in found.addresses {
        let Some(record) = store.record(sk)? else { continue };
        // Nobody has asked about one that makes no sense.
        match Tracked::new(&record, None) {
            Ok(socket) => sockets.push(socket),
            Err(error) => tracing::debug!(%error, "passed over in a search"),
        }
    }
    let pairs: Pairs<'_> = sockets.iter().collect();
    Ok(connections.iter().map(|connection| pairs.other_end(connection).cloned()).collect())
}
