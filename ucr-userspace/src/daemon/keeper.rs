//! Keeps the history: a thread that writes what it is handed. It never keeps the others waiting for long, and
//! what it cannot write becomes a gap that says so, once there is room again.

use std::{
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{config, shared::Shared};
use crate::{
    causes::one_line,
    history::{Batch, Gap, GapReason, Limits, Store, StoreError},
};

/// Batches that wait to be written. Each has at most what the ring buffer holds.
const WAITING: usize = 4;
/// How often the figures are looked at, and a gap is tried to be written, when nothing else happens.
const PAUSE: Duration = Duration::from_secs(2);

/// The way to the thread.
#[derive(Debug)]
pub struct Keeper {
    batches: SyncSender<Batch>,
    thread: JoinHandle<()>,
}

/// What became of a batch that was handed over.
#[derive(Debug)]
pub enum Handed {
    /// It will be written.
    Taken,
    /// Others wait already: it is given back.
    Later(Box<Batch>),
    /// The thread is gone: nothing is kept any more.
    Gone,
}

/// Bounds as the configuration has them: events have a quarter of the room for themselves.
#[must_use]
pub fn limits(history: &config::History) -> Limits {
    Limits {
        max_bytes: history.max_size,
        max_age: history.max_age,
        events_bytes: history.max_size / 4,
    }
}

impl Keeper {
    /// Starts it.
    #[must_use]
    pub fn start(store: Store, shared: Arc<Shared>) -> Self {
        let (batches, waiting) = sync_channel(WAITING);
        let mut writer = Writer { store, shared, missing: None, limits: None };
        let thread = thread::spawn(move || writer.run(&waiting));
        Self { batches, thread }
    }

    /// Hands over a batch; does not wait.
    pub fn hand(&self, batch: Batch) -> Handed {
        match self.batches.try_send(batch) {
            Ok(()) => Handed::Taken,
            Err(TrySendError::Full(batch)) => Handed::Later(Box::new(batch)),
            Err(TrySendError::Disconnected(_)) => Handed::Gone,
        }
    }

    /// Hands over the last batch, and waits until everything is written.
    pub fn finish(self, last: Batch) {
        // If the thread is gone, it has said why.
        self.batches.send(last).ok();
        drop(self.batches);
        self.thread.join().ok();
    }
}

struct Writer {
    store: Store,
    shared: Arc<Shared>,
    /// What could not be written: from when until when, and how many entries.
    missing: Option<Gap>,
    limits: Option<Limits>,
}

impl Writer {
    fn run(&mut self, waiting: &Receiver<Batch>) {
        self.report();
        let mut last: Option<Batch> = None;
        loop {
            match waiting.recv_timeout(PAUSE) {
                Ok(batch) => {
                    let empty = Batch::new(
                        batch.attachment.clone(),
                        batch.now,
                        batch.realtime_offset,
                    );
                    self.write(batch);
                    last = Some(empty);
                }
                // What is missing is written down as soon as there is room again.
                Err(RecvTimeoutError::Timeout) if self.missing.is_some() => {
                    if let Some(batch) = last.clone() {
                        self.write(batch);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.report();
        }
    }

    fn write(&mut self, mut batch: Batch) {
        let wanted = limits(&self.shared.config().history);
        if self.limits != Some(wanted) {
            self.store.set_limits(wanted);
            self.limits = Some(wanted);
        }
        batch.gaps.extend(self.missing);
        match self.store.append(&batch) {
            Ok(_) => {
                if self.missing.take().is_some() {
                    tracing::warn!("the history is written again");
                }
                self.trouble(None);
            }
            Err(error) => self.miss(&batch, &error),
        }
    }

    /// Nothing of the batch is kept: its entries are missing, and its numbers count as covered, since they
    /// are gone from the ring buffer.
    fn miss(&mut self, batch: &Batch, error: &StoreError) {
        let entries = batch.gone.len() + batch.events.len();
        let entries = u64::try_from(entries).unwrap_or(u64::MAX);
        let first = batch.gone.iter().map(|gone| gone.closed_at);
        let first = first.chain(batch.events.iter().map(|event| event.time)).min();
        let before = batch.gaps.iter().filter_map(|gap| gap.lost).sum::<u64>();
        let from = batch.gaps.iter().map(|gap| gap.from).chain(first).min().unwrap_or(batch.now);
        if self.missing.is_none() {
            tracing::warn!("what happens is not kept: {}", one_line(error));
        }
        self.missing = Some(Gap {
            from,
            until: batch.now,
            reason: GapReason::Unwritten,
            lost: Some(before + entries),
        });
        let mut history = self.shared.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.unkept += entries;
        *history.failures.entry(reason(error)).or_default() += 1;
        drop(history);
        self.trouble(Some(one_line(error)));
        if matches!(error, StoreError::Damaged { .. }) {
            self.begin_anew();
        }
    }

    /// A damaged database is moved aside, and another one begun.
    fn begin_anew(&mut self) {
        let config = self.shared.config();
        match self.store.reopen(limits(&config.history)) {
            Ok(damaged) => {
                let mut history =
                    self.shared.history.lock().unwrap_or_else(PoisonError::into_inner);
                history.damaged.extend(damaged.map(|path| path.display().to_string()));
                tracing::warn!("the history was damaged: it was moved aside, and begun anew");
            }
            Err(error) => tracing::warn!("begin the history anew: {}", one_line(&error)),
        }
    }

    fn trouble(&self, trouble: Option<String>) {
        self.shared.history.lock().unwrap_or_else(PoisonError::into_inner).trouble = trouble;
    }

    fn report(&self) {
        let figures = self.store.figures().ok();
        let mut history = self.shared.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.figures = figures.or(history.figures);
    }
}

/// How a failure is counted.
fn reason(error: &StoreError) -> &'static str {
    match error {
        StoreError::Full { .. } => "full",
        StoreError::Unwritable { .. } => "unwritable",
        StoreError::HeldBack { .. } => "held_back",
        StoreError::Damaged { .. } => "damaged",
        _ => "other",
    }
}
