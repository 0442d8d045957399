//! The states of many sockets: what one of them was asked is not asked of those that are alike, and what lies in the
//! kernel's memory is not asked at all.
//!
//! It tells what [`state::read`] tells, for a fiftieth of the system calls.

use std::{
    collections::{HashMap, hash_map::Entry},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use ucr_common::descriptor::SocketDescriptor;

use super::{
    options,
    state::{self, Defaults, NotRestorable, Settings, SocketDetails, StateError},
};
use crate::{
    image::{SocketOption, validate::STATUS_FLAGS},
    model::{Credentials, SocketState, SocketType, option_table::TABLE},
    snapshot::memory::{Counterpart, Memory, MemoryError, Sock},
    sys::sockopt,
};

/// Why the state of a socket is not known.
#[derive(Debug)]
pub enum Unknown<E> {
    /// It could not be got at.
    OutOfReach(E),
    /// A question was refused.
    Refused(StateError),
    /// The kernel's memory made no sense.
    Senseless(MemoryError),
}

impl<E> From<StateError> for Unknown<E> {
    fn from(error: StateError) -> Self {
        Self::Refused(error)
    }
}

impl<E> From<MemoryError> for Unknown<E> {
    fn from(error: MemoryError) -> Self {
        Self::Senseless(error)
    }
}

/// Whom a socket sees.
type Seen = (Option<Credentials>, Option<Arc<[u32]>>);

/// Reads the states of sockets that stand still.
pub struct States<'a> {
    memory: &'a Memory,
    new: HashMap<SocketType, Defaults>,
    /// What is set on sockets that are alike.
    alike: HashMap<Vec<u8>, Settings, foldhash::fast::RandomState>,
    /// Whom sockets see.
    seen: HashMap<Counterpart, Seen>,
    likeness: Vec<u8>,
    /// Whether sockets with different options are unlike; unknown until it is asked for.
    is_told: Option<bool>,
}

impl<'a> States<'a> {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(memory: &'a Memory) -> Self {
        Self {
            memory,
            new: HashMap::new(),
            alike: HashMap::default(),
            seen: HashMap::new(),
            likeness: Vec::new(),
            is_told: None,
        }
    }

    /// The state of one socket, which must be a unix socket with a file. `reach` gives a descriptor of it: once at
    /// most, and not at all for most.
    ///
    /// # Errors
    /// See [`Unknown`].
    pub fn read<E>(
        &mut self,
        sock: &Sock,
        listed: &SocketDescriptor,
        reach: impl FnOnce() -> Result<OwnedFd, E>,
    ) -> Result<(SocketDetails, Option<OwnedFd>), Unknown<E>> {
        let kind = SocketType::from_raw(sock.socket_type.into())
            .ok_or(MemoryError::Senseless("a unix socket has a type that there is not"))?;
        let mut way = Way::Not(reach);
        let settings = self.settings(kind, sock, &mut way)?;
        let (credentials, groups) = self.counterpart(sock, &mut way)?;
        let notification = match listed.notifies {
            0 => None,
            _ => state::notification(way.go()?)?,
        };
        let mut not_restorable = settings.not_restorable;
        let is_datagram = kind == SocketType::Dgram;
        if is_datagram && sock.error != 0 {
            not_restorable.push(NotRestorable::PendingError);
        }
        let details = SocketDetails {
            inode: u32::try_from(listed.socket.inode & u64::from(u32::MAX)).unwrap_or_default(),
            cookie: listed.socket.cookie,
            socket_type: kind,
            name: self.memory.name_of(sock)?,
            peer_name: self.memory.name_of_peer(sock)?,
            accepting: SocketState::from_raw(sock.state) == Some(SocketState::Listening),
            has_messages: is_datagram && sock.waiting > 0,
            status_flags: listed.file_flags.cast_signed() & STATUS_FLAGS,
            credentials,
            groups: groups.map(|groups| groups.to_vec()),
            options: settings.options,
            filter: settings.filter,
            notification,
            not_restorable,
        };
        Ok((details, way.gone()))
    }

    fn settings<E>(
        &mut self,
        kind: SocketType,
        sock: &Sock,
        way: &mut Way<impl FnOnce() -> Result<OwnedFd, E>>,
    ) -> Result<Settings, Unknown<E>> {
        self.memory.likeness(sock, &mut self.likeness)?;
        // What is usual may be another thing for another type.
        self.likeness.extend(sock.socket_type.to_ne_bytes());
        let is_told = match self.is_told {
            Some(known) => known,
            None => *self.is_told.insert(likeness_is_told(self.memory)?),
        };
        if let Some(known) = self.alike.get(&self.likeness).filter(|_| is_told) {
            return Ok(known.clone());
        }
        let new = match self.new.entry(kind) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(Defaults::probe(kind)?),
        };
        let settings = state::settings(way.go()?, new)?;
        self.alike.insert(self.likeness.clone(), settings.clone());
        Ok(settings)
    }

    fn counterpart<E>(
        &mut self,
        sock: &Sock,
        way: &mut Way<impl FnOnce() -> Result<OwnedFd, E>>,
    ) -> Result<Seen, Unknown<E>> {
        let place = match self.seen.entry(sock.counterpart()) {
            Entry::Occupied(known) => return Ok(known.get().clone()),
            Entry::Vacant(place) => place,
        };
        let socket = way.go()?;
        let seen = (state::credentials(socket)?, state::groups(socket)?.map(Arc::from));
        Ok(place.insert(seen).clone())
    }
}

/// Whether the kernel keeps all options where they are looked for: each that can be set is set on a socket of our own,
/// which has to become unlike what it was.
///
/// # Errors
/// [`MemoryError::Unreadable`], [`MemoryError::Senseless`].
pub fn likeness_is_told(memory: &Memory) -> Result<bool, MemoryError> {
    let Some((socket, sk)) = memory.specimen() else { return Ok(false) };
    let sock = memory.sock(sk)?;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for known in TABLE {
        let Ok(old) = sockopt::get(socket, known.number) else { continue };
        memory.likeness(&sock, &mut before)?;
        // Of what an option can be set to, one of these is something else than it is.
        let is_changed = CHANGES.into_iter().any(|change| {
            let option = SocketOption { name: known.number, value: change(&old) };
            options::set(socket, &option).is_ok()
                && sockopt::get(socket, known.number).is_ok_and(|new| new != old)
        });
        memory.likeness(&sock, &mut after)?;
        // What we may not set, or this kernel refuses to unix sockets, cannot be tried.
        if is_changed && before == after {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes another value out of an option's.
pub(super) type Change = fn(&[u8]) -> Vec<u8>;

/// Ways to do so.
pub(super) const CHANGES: [Change; 4] = [
    |old| first(old, |number| number ^ 1),
    |old| first(old, |number| number.wrapping_add(4096)),
    |old| first(old, |_| 16),
    |old| first(old, |_| 0),
];

/// With another first number.
fn first(old: &[u8], change: fn(i32) -> i32) -> Vec<u8> {
    let mut new = old.to_vec();
    if let Some((number, _)) = new.split_first_chunk_mut::<4>() {
        *number = change(i32::from_ne_bytes(*number)).to_ne_bytes();
    }
    new
}

/// The way to a descriptor, gone at most once.
enum Way<R> {
    Not(R),
    Gone(OwnedFd),
    Lost,
}

impl<E, R: FnOnce() -> Result<OwnedFd, E>> Way<R> {
    fn go(&mut self) -> Result<BorrowedFd<'_>, Unknown<E>> {
        if let Self::Not(_) = self
            && let Self::Not(reach) = std::mem::replace(self, Self::Lost)
        {
            *self = Self::Gone(reach().map_err(Unknown::OutOfReach)?);
        }
        match &*self {
            Self::Gone(descriptor) => Ok(descriptor.as_fd()),
            // Nobody goes on after it failed.
            Self::Not(_) | Self::Lost => {
                Err(MemoryError::Senseless("a socket was lost on the way").into())
            }
        }
    }

    fn gone(self) -> Option<OwnedFd> {
        match self {
            Self::Gone(descriptor) => Some(descriptor),
            Self::Not(_) | Self::Lost => None,
        }
    }
}

#[cfg(test)]
mod tests;
