//! Whether internet sockets are still what an image says: what it says of sequence numbers and queues would undo what has
//! come since.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::{IntoError, Standing, Target};
use crate::image::{Image, Inet, SocketIndex, Tcp};
use crate::lock::{Connection, Lock, LockError, USUAL};
use crate::model::Pid;
use crate::model::inet::{Over, Protocol};
use crate::process::inet::{self, Content};
use crate::process::state::StateError;
use crate::process::states::Unknown;
use crate::restore::execute::Predecessor;
use crate::snapshot::descriptors::Lister;
use crate::snapshot::memory::Memory;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Keeps the network from all connections of an image that live.
///
/// # Errors
///
/// The kernel's.
pub fn lock(image: &Image) -> Result<Option<Lock>, LockError> {
    let inet = image.sockets.iter().filter_map(|socket| socket.inet.as_deref());
    let ends = inet.filter(|inet| inet.tcp.is_some()).filter_map(|i| i.local.zip(i.remote));
    let mut lock = None;
    for (local, remote) in ends {
        let lock = match &mut lock {
            Some(lock) => lock,
            none => none.insert(Lock::prepare(USUAL)?),
        };
        let connection = Connection { local, remote };
        lock.join(connection)?;
        lock.add(connection)?;
    }
    Ok(lock)
}

/// Those that are not. Nothing comes to their connections any more.
///
/// # Errors
///
/// One that cannot be read.
pub fn stale(
    image: &Image,
    targets: &[Target],
    standing: &Standing,
    lister: &mut Lister,
) -> Result<Vec<IntoError>, IntoError> {
    let predecessors = standing.predecessors(image, targets);
    let now: BTreeMap<Pid, Pid> = targets.iter().map(|target| (target.saved, target.pid)).collect();
    let failed = |pid: Pid, fd: i32| move |source: Source| IntoError::State { pid, fd, source };
    let mut memory = None;
    let mut stale = Vec::new();
    for (pid, fd, socket) in standing.others() {
        let Some(saved) = inet_of(image, socket) else { continue };
        let there = duplicate(pid, fd).map_err(|error| failed(pid, fd)(error.into()))?;
        let has_address = has_address_of(there.as_fd(), saved);
        if let (true, Some(local)) =
            (has_address.map_err(|error| failed(pid, fd)(error.into()))?, saved.local)
        {
            stale.push(IntoError::Replaced { pid, fd, local });
        }
    }
    for (socket, Predecessor { pid, fd, sk }) in predecessors {
        let pid = now.get(&pid).copied().unwrap_or(pid);
        let Some(saved) = inet_of(image, socket) else { continue };
        let memory = match &memory {
            Some(memory) => memory,
            None => {
                let prepared = Memory::prepare(lister);
                &*memory.insert(prepared.map_err(|error| failed(pid, fd)(error.into()))?)
            }
        };
        let old = duplicate(pid, fd).map_err(|error| failed(pid, fd)(error.into()))?;
        let kind = Over(saved.protocol, saved.family);
        let found = inet::content(old.as_fd(), sk, kind, memory);
        let found = found.map_err(|unknown| {
            let source: Source = match unknown {
                Unknown::OutOfReach(error) | Unknown::Refused(error) => error.into(),
                Unknown::Senseless(error) => error.into(),
            };
            failed(pid, fd)(source)
        })?;
        if !is_same(saved, &found) {
            stale.push(IntoError::Stale { pid, fd });
        }
    }
    Ok(stale)
}

fn inet_of(image: &Image, socket: SocketIndex) -> Option<&Inet> {
    image.sockets.get(socket.get())?.inet.as_deref()
}

fn duplicate(pid: Pid, fd: i32) -> std::io::Result<OwnedFd> {
    let raw = rustix::process::Pid::from_raw(pid.0).ok_or(std::io::ErrorKind::NotFound)?;
    let process = pidfd_open(raw, PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, fd, PidfdGetfdFlags::empty())?)
}

/// Whether a socket that is not the one of the image has its address, or the ends of its connection.
fn has_address_of(there: BorrowedFd<'_>, saved: &Inet) -> Result<bool, StateError> {
    if saved.local.is_none() || inet::kind(there)? != Some((saved.family, saved.protocol)) {
        return Ok(false);
    }
    Ok(Some(inet::local(there)?) == saved.local
        && (saved.tcp.is_none() || inet::remote(there)? == saved.remote))
}

/// Whether nothing has been sent or received since.
fn is_same(saved: &Inet, found: &Content) -> bool {
    let of = |tcp: &Tcp| {
        let acknowledged = tcp.sent.begin();
        (tcp.state, tcp.received.clone(), tcp.sent.end, acknowledged, tcp.unsent)
    };
    let is_same_connection = match (&saved.tcp, &found.tcp) {
        (Some(saved), Some(found)) => of(saved) == of(found),
        (None, None) => true,
        _ => false,
    };
    let is_datagram = saved.protocol != Protocol::Tcp;
    is_same_connection
        && saved.waiting.len() == found.waiting.len()
        && (!is_datagram || saved.datagrams.len() == found.datagrams.len())
}
