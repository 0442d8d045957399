//! The sockets that were made, read back.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::os::fd::AsRawFd as _;
use std::panic::resume_unwind;
use std::thread::{Builder, ScopedJoinHandle, available_parallelism, scope};

use super::{ObserveError, Observed, indexed};
use crate::image::{Bound, Connection, Image, Role, Socket, SocketIndex};
use crate::model::UnixName;
use crate::process::beneath;
use crate::process::files::{BoundFile, Facts};
use crate::process::state::{self, Defaults, StateError};
use crate::restore::execute::Restored;
use crate::restore::plan::{file_spot, named_spot};

/// So many sockets at least are worth a thread.
const SHARE: usize = 512;

/// Reads every socket that was made, in the image's order; none for one that was not accepted yet.
///
/// # Errors
///
/// If one cannot be read.
pub fn observe(image: &Image, restored: &Restored) -> Result<Vec<Option<Observed>>, ObserveError> {
    let kept: HashSet<_> = image.connections.iter().filter_map(Connection::kept).collect();
    let all: Vec<_> = indexed(image).collect();
    let threads = available_parallelism().map_or(1, usize::from);
    let share = all.len().div_ceil(threads).max(SHARE);
    // Thousands of sockets take hundreds of thousands of questions.
    scope(|scope| {
        let (kept, shares) = (&kept, all.chunks(share));
        let ask = |share| move || observe_some(share, kept, restored);
        // Where no thread is to be had it is done here.
        let start = |share| Builder::new().spawn_scoped(scope, ask(share)).map_err(|_| share);
        let others: Vec<_> = shares.clone().skip(1).map(start).collect();
        let mut observed = Vec::with_capacity(all.len());
        for share in shares.take(1) {
            observed.extend(ask(share)()?);
        }
        for other in others {
            observed.extend(match other.map(ScopedJoinHandle::join) {
                Ok(Ok(observed)) => observed?,
                Ok(Err(panic)) => resume_unwind(panic),
                Err(share) => ask(share)()?,
            });
        }
        Ok(observed)
    })
}

/// The same for some of the sockets.
fn observe_some(
    sockets: &[(SocketIndex, &Socket)],
    kept: &HashSet<SocketIndex>,
    restored: &Restored,
) -> Result<Vec<Option<Observed>>, ObserveError> {
    let mut defaults = HashMap::new();
    let mut all = Vec::with_capacity(sockets.len());
    for &(index, socket) in sockets {
        if socket.role == Role::Embryo {
            all.push(None);
            continue;
        }
        let failed = |source| ObserveError::State { socket: index, source };
        let descriptor = restored.socket(index).ok_or(ObserveError::NotMade(index))?;
        let new = match defaults.entry(socket.socket_type) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                unknown.insert(Defaults::probe(socket.socket_type).map_err(failed)?)
            }
        };
        let details = state::read(descriptor, new).map_err(failed)?;
        // What becomes of the file of one that is taken over is nothing to us.
        let name = socket.name.as_ref().filter(|_| !kept.contains(&index));
        let file = name.map_or(Ok(None), |bound| lies_at(bound, restored.beneath()))?;
        let is_path = name.is_some_and(|bound| matches!(bound.name, UnixName::Pathname(_)));
        let bound = if is_path { BoundFile::of(descriptor) } else { Ok(None) };
        let fd = descriptor.as_raw_fd();
        let bound = bound.map_err(|source| {
            failed(StateError::Read { operation: "the socket file", fd, source })
        })?;
        all.push(Some(Observed { details, file, bound }));
    }
    Ok(all)
}

/// What lies where the file is to be, or where it is not to be.
fn lies_at(bound: &Bound, beneath: Option<&[u8]>) -> Result<Option<Facts>, ObserveError> {
    let wanted = file_spot(bound, beneath);
    let must_be = wanted.is_some();
    let Some(spot) = wanted.or_else(|| named_spot(bound, beneath)) else { return Ok(None) };
    match beneath::facts(&spot.roots, &spot.path) {
        Ok(facts) => Ok(facts),
        // Where no path leads, no file of ours lies.
        Err(_) if !must_be => Ok(None),
        Err(source) => Err(ObserveError::File { spot, source }),
    }
}
