//! What the parts of the daemon have in common: counters, the hub, the configuration in force.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{config::Config, hub::Hub, status::HistoryStatus};
use crate::{
    history::Figures,
    tracer::{
        event::KINDS, pins::PinDirectory, programs::Programs, reconcile::Reconciled, ring::Ring,
    },
};

/// Shared by all threads.
pub struct Shared {
    /// In force; a reload puts another one there.
    pub config: RwLock<Arc<Config>>,
    /// Where tracing is pinned.
    pub pins: PinDirectory,
    /// What is run when somebody asks.
    pub programs: Programs,
    /// How full the ring buffer is.
    pub ring: Ring,
    /// Who follows.
    pub hub: Hub,
    /// When the daemon began, in nanoseconds since the epoch.
    pub since: u64,
    /// What was counted.
    pub counts: Counts,
    /// How the ledger was last held against the kernel.
    pub reconciliation: Mutex<Reconciliations>,
    /// How the history is.
    pub history: Mutex<History>,
    /// When the thread that reads the ring buffer was last seen at work, `CLOCK_BOOTTIME`, nanoseconds.
    pub beat: AtomicU64,
}

/// Counters.
#[derive(Debug, Default)]
pub struct Counts {
    /// Events read, by their kind's place in [`KINDS`]; the last one counts all others.
    pub events: [AtomicU64; KINDS.len() + 1],
    /// Events of which the numbers tell that they did not come.
    pub lost: AtomicU64,
    /// Clients that are connected.
    pub clients: AtomicU64,
    /// Questions that were answered, by kind.
    pub requests: Mutex<BTreeMap<&'static str, u64>>,
    /// Questions that were refused, by reason.
    pub refused: Mutex<BTreeMap<&'static str, u64>>,
}

/// What reconciliations have done.
#[derive(Debug, Default)]
pub struct Reconciliations {
    /// How many.
    pub count: u64,
    /// Sockets added, removed, repaired.
    pub added: u64,
    /// See above.
    pub removed: u64,
    /// See above.
    pub repaired: u64,
    /// When the last one was, in nanoseconds since the epoch.
    pub last: Option<u64>,
    /// How many failed.
    pub failures: u64,
    /// Why the last one failed.
    pub failed: Option<String>,
}

/// What the keeper of the history says of it.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// As the database says.
    pub figures: Option<Figures>,
    /// What goes wrong now.
    pub trouble: Option<String>,
    /// Entries that could not be kept.
    pub unkept: u64,
    /// The same by reason.
    pub failures: BTreeMap<&'static str, u64>,
    /// Databases that were moved aside.
    pub damaged: Vec<String>,
}

impl Shared {
    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes note of a reconciliation.
    pub fn reconciled(&self, now: u64, done: &Reconciled) {
        let mut sum = self.reconciliation.lock().unwrap_or_else(PoisonError::into_inner);
        sum.count += 1;
        sum.added += done.added;
        sum.removed += done.removed;
        sum.repaired += done.repaired;
        sum.last = Some(now);
        sum.failed = None;
    }

    /// Takes note of one that failed.
    pub fn not_reconciled(&self, why: String) {
        let mut sum = self.reconciliation.lock().unwrap_or_else(PoisonError::into_inner);
        sum.failures += 1;
        sum.failed = Some(why);
    }

    /// How the history is, if there is one.
    #[must_use]
    pub fn history_status(&self) -> Option<HistoryStatus> {
        let config = self.config();
        if !config.history.enabled {
            return None;
        }
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let figures = history.figures.unwrap_or_default();
        let (gone, events) = (figures.gone, figures.events);
        Some(HistoryStatus {
            file: config.history.file.display().to_string(),
            entries: gone.entries + events.entries,
            bytes: figures.file_bytes,
            oldest: gone.oldest.into_iter().chain(events.oldest).min(),
            forgotten: gone.forgotten + events.forgotten,
            gaps: figures.gaps,
            trouble: history.trouble,
            unkept: history.unkept,
            damaged: history.damaged,
        })
    }
}

impl Counts {
    /// Counts an event.
    pub fn event(&self, kind: u32) {
        // Kinds are numbered from 1 on.
        let place = usize::try_from(kind).unwrap_or(0).wrapping_sub(1).min(KINDS.len());
        if let Some(count) = self.events.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts an entry of the ring buffer that is no event. One is told of: there may be thousands.
    pub fn unknown(&self) {
        let Some(count) = self.events.last() else { return };
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("an event of unknown shape was skipped; more are only counted");
        }
    }

    /// All events read.
    #[must_use]
    pub fn all_events(&self) -> u64 {
        self.events.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Counts a question that was answered.
    pub fn answered(&self, kind: &'static str) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry(kind).or_default() += 1;
    }

    /// Counts a question that was refused.
    pub fn refuse(&self, reason: &'static str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.entry(reason).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use ucr_common::event::kind;

    use super::*;

    #[test]
    fn each_kind_is_counted_in_its_place() {
        let counts = Counts::default();
        for kind in [kind::SOCKET, kind::STATE, kind::STATE, 0, 99] {
            counts.event(kind);
        }
        let values: Vec<u64> = counts.events.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        assert_eq!(values.first(), Some(&1));
        assert_eq!(values.get(KINDS.len() - 1), Some(&2), "state is the last kind");
        assert_eq!((values.last(), counts.all_events()), (Some(&2), 5));
    }
}
