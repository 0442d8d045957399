//! What keeps the network from the TCP connections that are dumped, and has their end go unnoticed.

use std::{os::fd::AsFd as _, time::Duration};

use super::{external::Then, inet::InetStock};
use crate::{
    causes::one_line,
    lock::{Connection, Lock, LockError, kept::Kept},
    sys::repair,
};

/// Shut once there is a connection.
#[derive(Debug)]
pub struct Locking {
    duration: Duration,
    then: Then,
    lock: Option<Lock>,
    answered: Option<String>,
}

impl Locking {
    /// `then` is what becomes of the sockets while it is shut.
    pub(super) fn new(duration: Duration, then: Then) -> Self {
        Self { duration, then, lock: None, answered: None }
    }

    /// Loads what it takes, which takes milliseconds. If that fails, it is tried again when it is needed.
    pub(super) fn prepare(&mut self) {
        match Lock::prepare(self.duration) {
            Ok(lock) => self.lock = Some(lock),
            Err(error) => tracing::debug!(%error, "connections could not be locked"),
        }
    }

    /// Nothing comes through this connection any more, as long as this lives.
    pub(super) fn shut(&mut self, connection: Connection) -> Result<(), LockError> {
        let lock = match &mut self.lock {
            Some(lock) => lock,
            none => none.insert(Lock::prepare(self.duration)?),
        };
        if self.then == Then::End && connection.is_over_ipv6() && self.answered.is_none() {
            self.answered = lock.silence().err().map(|error| one_line(&error));
        }
        lock.add(connection)
    }

    /// Why the kernel will answer what comes for a connection over IPv6 whose socket is gone, if it will.
    pub(super) fn answered(&self) -> Option<String> {
        self.answered.clone()
    }

    /// What keeps it shut.
    pub(super) fn into_lock(self) -> Option<Lock> {
        self.lock.filter(|lock| !lock.is_empty())
    }

    /// Keeps it shut when this process has ended.
    ///
    /// # Errors
    /// Those of [`Lock::keep`]; nothing is kept then.
    pub(super) fn keep(self) -> Result<Option<Kept>, LockError> {
        self.into_lock().map(Lock::keep).transpose()
    }
}

/// Has the connections of processes that were killed closed without a word: only our own duplicates hold them by now.
/// That it is done after the kill leaves no living process with a socket in repair mode, whatever happens to ucr.
pub(super) fn silence(stocks: &[InetStock]) {
    for socket in stocks.iter().filter_map(|stock| stock.connection.as_ref()) {
        if let Err(error) = repair::enter(socket.as_fd()) {
            // What it says now is dropped by the lock.
            tracing::warn!(%error, "a TCP connection cannot be put into repair mode: it is closed as usual");
        }
    }
}
