//! Whose addresses two sockets cannot have at one time, so that none takes the place of the other.

use std::collections::HashSet;

use super::{IntoError, Target, kept};
use crate::image::{Image, Inet, Socket, SocketIndex};
use crate::model::inet::{Endpoint, Family, Over};
use crate::snapshot::diag;

/// Whether an option of `SOL_SOCKET` is on.
fn is_on(socket: &Socket, name: i32) -> bool {
    let option = socket.options.iter().find(|option| option.name == name);
    option.is_some_and(|option| option.value.iter().any(|byte| *byte != 0))
}

/// What cannot be replaced; `is_there` are sockets that have been made already.
pub(super) fn refused(
    image: &Image,
    targets: &[Target],
    is_there: impl Fn(SocketIndex) -> bool,
) -> Vec<IntoError> {
    let kept = kept(image);
    let mut refused = Vec::new();
    // Others may use these ports again.
    let mut again: Vec<(SocketIndex, &Inet, Endpoint)> = Vec::new();
    for (socket, saved) in (0..).map(SocketIndex).zip(&image.sockets) {
        if kept(socket) {
            continue;
        }
        if saved.netlink.is_some() {
            refused.push(IntoError::Netlink { socket });
        }
        let Some(inet) = saved.inet.as_deref().filter(|inet| inet.tcp.is_none()) else { continue };
        let Some(local) = inet.local else { continue };
        if inet.turn.is_some() || is_on(saved, libc::SO_REUSEPORT) {
            refused.push(IntoError::Shares { socket, local });
        } else if !inet.waiting.is_empty() {
            let count = inet.waiting.len();
            refused.push(IntoError::Waited { socket, local, count });
        } else if inet.protocol.is_datagram()
            && is_on(saved, libc::SO_REUSEADDR)
            && !is_there(socket)
        {
            again.push((socket, inet, local));
        }
    }
    match shared(image, targets, &again) {
        Ok(shared) => refused.extend(shared),
        Err(error) => refused.push(error),
    }
    refused
}

/// Which of these share their ports with others: the new one would be the last that was bound, and have what they get.
fn shared(
    image: &Image,
    targets: &[Target],
    again: &[(SocketIndex, &Inet, Endpoint)],
) -> Result<Vec<IntoError>, IntoError> {
    let own: HashSet<u64> = image.sockets.iter().map(|socket| socket.cookie).collect();
    let mut shared = Vec::new();
    // All are in one network namespace, which the first process that has any is in.
    let pid = targets.first().map_or(0, |target| target.pid.0);
    for (socket, inet, local) in again {
        let kinds = [Family::V4, Family::V6].map(|family| Over(inet.protocol, family));
        let view = diag::inet_sockets_of(pid, &kinds)?;
        let mut others = view.sockets.values().filter(|other| !own.contains(&other.cookie));
        if others.any(|other| other.local.is_some_and(|theirs| theirs.port == local.port)) {
            shared.push(IntoError::Shares { socket: *socket, local: *local });
        }
    }
    Ok(shared)
}
