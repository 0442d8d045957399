//! How the sockets that were made are now.

use std::collections::HashSet;
use std::os::fd::AsRawFd as _;

use super::{Insight, indexed};
use crate::image::{Bound, Connection, Image, Role, SocketIndex};
use crate::model::UnixName;
use crate::process::beneath;
use crate::process::files::{BoundFile, Facts};
use crate::process::state::{self, Defaults, SocketDetails, StateError};
use crate::process::states::States;
use crate::restore::execute::Restored;
use crate::restore::plan::spot::Spot;
use crate::restore::plan::{file_spot, named_spot};

/// One socket as it is now.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Read through our descriptor.
    pub details: SocketDetails,
    /// What lies where its file is to be; or under its name, if that is a path and it is to have none.
    pub file: Option<Facts>,
    /// The file that it is bound to, if we may ask.
    pub bound: Option<BoundFile>,
}

/// Why it cannot be said how the sockets are.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A socket was not made: the plan and the image do not belong together.
    #[error("socket {} was not made", .0.0)]
    NotMade(SocketIndex),
    /// A question to the kernel failed.
    #[error("failed to read socket {}", socket.0)]
    State {
        /// Which one.
        socket: SocketIndex,
        /// Why.
        #[source]
        source: StateError,
    },
    /// The socket file cannot be looked at.
    #[error("look at {spot}")]
    File {
        /// Where.
        spot: Spot,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Reads every socket that was made, in the image's order; none for one that was not accepted yet. What `insight`
/// tells, they are not asked.
///
/// # Errors
///
/// If one cannot be read.
pub fn observe(
    image: &Image,
    restored: &Restored,
    insight: Option<&Insight>,
) -> Result<Vec<Option<Observed>>, ObserveError> {
    let mut told = insight.map(|insight| (insight, States::new(&insight.memory)));
    let mut defaults = std::collections::HashMap::new();
    let mut all = Vec::with_capacity(image.sockets.len());
    let kept: HashSet<_> = image.connections.iter().filter_map(Connection::kept).collect();
    for (index, socket) in indexed(image) {
        // The others are read by `inet` and `netlink`.
        if socket.role == Role::Embryo || !socket.is_unix() {
            all.push(None);
            continue;
        }
        let failed = |source| ObserveError::State { socket: index, source };
        let descriptor = restored.socket(index).ok_or(ObserveError::NotMade(index))?;
        let new = match defaults.entry(socket.socket_type) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(unknown) => {
                unknown.insert(Defaults::probe(socket.socket_type).map_err(failed)?)
            }
        };
        let known = match &mut told {
            Some((insight, states)) => {
                insight.read_ahead(index);
                insight.details(states, restored, index)?
            }
            None => None,
        };
        let details = match known {
            Some(details) => details,
            None => state::read(descriptor, new).map_err(failed)?,
        };
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
    if let Some(insight) = insight {
        insight.memory.look_anew();
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
