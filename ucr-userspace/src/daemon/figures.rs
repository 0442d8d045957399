//! Gathers the figures for Prometheus at the moment in which somebody asks.

use std::sync::{PoisonError, atomic::Ordering};

use super::{
    metrics::{Control, Figures, Followers, History, Reconciled, Ring, exposition as written},
    shared::Shared,
};
use crate::{
    causes::one_line,
    process::own,
    tracer::{event::KINDS, session},
};

/// The figures as text.
///
/// # Errors
/// What could not be found out, in words.
pub fn exposition(shared: &Shared) -> Result<String, String> {
    let said = |error: &(dyn std::error::Error + 'static)| one_line(error);
    let status = session::status(&shared.pins).map_err(|error| said(&error))?;
    let mut figures = Figures::new(status.backend);
    (figures.sockets, figures.internet) = shared.programs.count().map_err(|error| said(&error))?;
    let counts = &shared.counts;
    let kinds = KINDS.into_iter().chain(["unknown"]);
    figures.events =
        kinds.zip(&counts.events).map(|(kind, n)| (kind, n.load(Ordering::Relaxed))).collect();
    figures.lost = counts.lost.load(Ordering::Relaxed);
    figures.missed = status.missed;
    let (waiting, size) = shared.ring.depth();
    figures.ring = Ring { waiting, size };
    figures.followers = Followers {
        now: u64::try_from(shared.hub.followers()).unwrap_or(u64::MAX),
        missed: shared.hub.missed(),
    };
    figures.control = control(shared);
    figures.reconciled = reconciled(shared);
    figures.history = shared.config().history.enabled.then(|| history(shared));
    figures.counters = status.counters;
    figures.own = own::own().map_err(|error| said(&error))?;
    written(&figures).map_err(|error| said(&error))
}

fn control(shared: &Shared) -> Control {
    let counts = &shared.counts;
    let refused = counts.refused.lock().unwrap_or_else(PoisonError::into_inner);
    let requests = counts.requests.lock().unwrap_or_else(PoisonError::into_inner);
    Control {
        clients: counts.clients.load(Ordering::Relaxed),
        requests: requests.iter().map(|(kind, n)| (*kind, *n)).collect(),
        refused: refused.iter().map(|(why, n)| (*why, *n)).collect(),
    }
}

fn reconciled(shared: &Shared) -> Reconciled {
    let sum = shared.reconciliation.lock().unwrap_or_else(PoisonError::into_inner);
    Reconciled {
        passes: sum.count,
        failed: sum.failures,
        added: sum.added,
        removed: sum.removed,
        repaired: sum.repaired,
        last: sum.last,
    }
}

fn history(shared: &Shared) -> History {
    let history = shared.history.lock().unwrap_or_else(PoisonError::into_inner);
    let figures = history.figures.unwrap_or_default();
    let (gone, events) = (figures.gone, figures.events);
    History {
        size: figures.file_bytes,
        entries: vec![("sockets", gone.entries), ("events", events.entries)],
        oldest: gone.oldest.into_iter().chain(events.oldest).min(),
        forgotten: gone.forgotten + events.forgotten,
        gaps: figures.gaps,
        write_errors: history.failures.iter().map(|(why, n)| (*why, *n)).collect(),
        damaged: u64::try_from(history.damaged.len()).unwrap_or(u64::MAX),
    }
}
