//! Pids that could not be had.

use std::collections::BTreeMap;

use super::Observed;
use crate::image::{Image, Role};
use crate::model::{Credentials, Pid};
use crate::restore::workers::Unavailable;

/// The pids that `SO_PEERCRED` of sockets should show and does not, and of how many: the kernel shows
/// whoever made the call, and not every pid can be had for that ([`crate::restore::workers`]). A connection that
/// nobody has accepted cannot be asked yet: it shows another one if its own was not to be had.
#[must_use]
pub fn other_pids(
    image: &Image,
    observed: &[Option<Observed>],
    unavailable: &BTreeMap<Pid, Unavailable>,
) -> BTreeMap<Pid, usize> {
    let mut others = BTreeMap::new();
    let pid = |credentials: Option<Credentials>| credentials.map(|credentials| credentials.pid);
    for (socket, observed) in image.sockets.iter().zip(observed) {
        let is_other = |wanted: &Pid| match observed {
            Some(observed) => Some(*wanted) != pid(observed.details.credentials),
            None => socket.role == Role::Embryo && unavailable.contains_key(wanted),
        };
        let wanted = pid(socket.peer_credentials.or(socket.listener_credentials));
        if let Some(wanted) = wanted.filter(is_other) {
            *others.entry(wanted).or_default() += 1;
        }
    }
    others
}
