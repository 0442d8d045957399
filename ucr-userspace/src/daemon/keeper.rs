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
    history::{Batch, Gap, GapReason, Limits, Opened, Store, StoreError, store::Aside},
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
        let limits = Some(limits(&shared.config().history));
        let mut writer = Writer { store: Some(store), shared, missing: None, limits };
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
    /// None while it cannot be opened.
    store: Option<Store>,
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
                    let empty =
                        Batch::new(batch.attachment.clone(), batch.now, batch.realtime_offset);
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
        batch.gaps.extend(self.missing);
        match self.append(&batch) {
            Ok(()) => {
                if self.missing.take().is_some() {
                    tracing::warn!("the history is written again");
                }
                self.trouble(None);
            }
            Err(error) => self.miss(&batch, &error),
        }
    }

    fn append(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let config = self.shared.config();
        let wanted = limits(&config.history);
        let store = match &mut self.store {
            Some(store) => store,
            none => {
                let Opened { store, damaged } = Store::open(&config.history.file, wanted)?;
                if let Some(aside) = damaged {
                    put_aside(&self.shared, &aside);
                }
                none.insert(store)
            }
        };
        if self.limits != Some(wanted) {
            self.limits = Some(wanted);
            store.set_limits(wanted)?;
        }
        store.append(batch).map(drop)
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
        if !error.is_passing() {
            // A damaged one is moved aside, and another one begun, when it is opened anew.
            self.store = None;
        }
    }

    fn trouble(&self, trouble: Option<String>) {
        self.shared.history.lock().unwrap_or_else(PoisonError::into_inner).trouble = trouble;
    }

    fn report(&self) {
        let figures = self.store.as_ref().and_then(|store| store.figures().ok());
        let mut history = self.shared.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.figures = figures.or(history.figures);
    }
}

/// Takes note of a damaged database that was moved aside.
pub fn put_aside(shared: &Shared, aside: &Aside) {
    let path = aside.path.display();
    tracing::warn!("the history was damaged ({}): it is now {path}", one_line(&aside.why));
    let mut history = shared.history.lock().unwrap_or_else(PoisonError::into_inner);
    history.damaged.push(path.to_string());
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
