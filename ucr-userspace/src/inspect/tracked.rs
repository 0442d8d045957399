//! What was tracked of a live socket, and how much that is worth.

use serde::{Deserialize, Serialize};

use crate::{
    ledger::{Origin, Tracked},
    tracer::{programs::Sight, store::Store},
};

/// How a socket is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Tracing saw it from its beginning.
    SeenLive,
    /// Tracing was on, and saw it first in the middle of its life.
    SeenLate,
    /// It is older than the tracer.
    Predates,
    /// Tracing was on and saw nothing of it: a reconciliation found it.
    Found,
    /// Tracing is on and does not know it.
    NotTracked,
    /// Tracing is not attached: only the kernel was asked.
    Snapshot,
}

impl Source {
    /// All of them, as they are called.
    pub const NAMES: [&'static str; 6] =
        ["seen-live", "seen-late", "predates", "found", "not-tracked", "snapshot"];

    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SeenLive => "seen-live",
            Self::SeenLate => "seen-late",
            Self::Predates => "predates",
            Self::Found => "found",
            Self::NotTracked => "not-tracked",
            Self::Snapshot => "snapshot",
        }
    }
}

impl From<Origin> for Source {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Socket | Origin::Pair | Origin::Connection => Self::SeenLive,
            Origin::Accept | Origin::Late => Self::SeenLate,
            Origin::Seed => Self::Predates,
            Origin::Found => Self::Found,
        }
    }
}

/// What is known beside what the kernel says now.
#[derive(Clone, Debug)]
pub struct Known {
    /// How.
    pub source: Source,
    /// What was tracked.
    pub tracked: Option<Tracked>,
}

/// Looks it up. A record of another socket that had this address before is none.
pub(super) fn of(store: Option<&Store>, sight: &Sight) -> Known {
    let Some(store) = store else { return Known { source: Source::Snapshot, tracked: None } };
    let id = &sight.raw.socket;
    let record = store.record(id.sk).ok().flatten().filter(|record| {
        let known = &record.socket;
        if known.cookie != 0 && id.cookie != 0 {
            known.cookie == id.cookie
        } else {
            known.inode == 0 || known.inode == id.inode
        }
    });
    let tracked = record.and_then(|record| {
        let paths = store.bind_paths(id.sk).ok().flatten();
        Tracked::new(&record, paths.as_ref()).ok()
    });
    let source = tracked.as_ref().map_or(Source::NotTracked, |tracked| tracked.origin.into());
    Known { source, tracked }
}
