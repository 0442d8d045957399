//! Looks after what can go wrong with tracing while the daemon follows: something is lost, or somebody takes
//! it away.

use std::{fs, os::unix::fs::MetadataExt as _, sync::atomic::Ordering};

use ucr_common::control::counter;

use super::shared::Shared;
use crate::{
    causes::one_line,
    tracer::{TracerError, pins::PinDirectory, store::Store},
};

/// What is missing in the ledger counts here.
const LOST_SOCKETS: [u32; 2] = [counter::LEDGER_FULL, counter::NO_MEMORY];

/// What was found when it was looked at last.
pub(super) struct Guard {
    store: Store,
    /// Inode of the pin directory: another one is other tracing.
    directory: u64,
    lost_sockets: u64,
    lost_events: u64,
}

impl Guard {
    /// What was lost before is nothing new.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn new(pins: &PinDirectory, store: Store) -> Result<Self, TracerError> {
        let directory = directory(pins)?;
        let mut guard = Self { store, directory, lost_sockets: 0, lost_events: 0 };
        guard.has_lost_sockets()?;
        Ok(guard)
    }

    /// Whether tracing is still what we follow.
    ///
    /// # Errors
    /// It is not attached any more, or is another one: what we read is at its end.
    pub(super) fn require(&self, pins: &PinDirectory) -> Result<(), TracerError> {
        match pins.require() {
            Ok(()) => {}
            Err(gone @ (TracerError::NotAttached { .. } | TracerError::Incomplete { .. })) => {
                return Err(gone);
            }
            // That it cannot be told says nothing.
            Err(error) => {
                tracing::warn!("look at the pins: {}", one_line(&error));
                return Ok(());
            }
        }
        if directory(pins)? == self.directory { Ok(()) } else { Err(gone(pins)) }
    }

    /// Whether events or sockets were lost since this was asked last.
    pub(super) fn has_lost(&mut self, shared: &Shared) -> bool {
        let events = shared.counts.lost.load(Ordering::Relaxed);
        let has_lost_events = events > self.lost_events;
        self.lost_events = events;
        let has_lost_sockets = self.has_lost_sockets().unwrap_or_else(|error| {
            tracing::warn!("look at the counters: {}", one_line(&error));
            false
        });
        has_lost_events || has_lost_sockets
    }

    /// A pass over all sockets counts those for which there is no room: they are nothing new.
    pub(super) fn overlook_sockets(&mut self) {
        // What cannot be read now is seen the next time.
        self.has_lost_sockets().ok();
    }

    fn has_lost_sockets(&mut self) -> Result<bool, TracerError> {
        let counters = self.store.counters()?;
        let lost = LOST_SOCKETS.into_iter().map(|counter| counters.get(counter)).sum();
        let before = std::mem::replace(&mut self.lost_sockets, lost);
        Ok(lost > before)
    }
}

fn directory(pins: &PinDirectory) -> Result<u64, TracerError> {
    fs::symlink_metadata(pins.path()).map(|facts| facts.ino()).map_err(|_| gone(pins))
}

fn gone(pins: &PinDirectory) -> TracerError {
    TracerError::NotAttached { path: pins.path().to_owned() }
}
