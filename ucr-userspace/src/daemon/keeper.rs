//! Keeps the history: a thread that writes what it is handed. It never keeps the others waiting for long, and
//! what it cannot write becomes a gap that says so, once there is room again.

use std::{
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    config::{self, Config},
    shared::Shared,
};
use crate::{
    causes::one_line,
    history::{Appended, Batch, Gap, GapReason, Limits, Opened, Store, StoreError, store::Aside},
};

/// Batches that wait to be written.
const WAITING: usize = 4;
/// How often the figures are looked at, and a gap is tried to be written, when nothing else happens.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a history that could not be opened is left alone: all of it is read each time.
const REST: Duration = Duration::from_secs(10);

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
    /// Starts it. Without a store it tries to open one. `owed` is missing in it, and not written yet.
    #[must_use]
    pub fn start(store: Option<Store>, owed: Vec<Gap>, shared: Arc<Shared>) -> Self {
        let (batches, waiting) = sync_channel(WAITING);
        let limits = limits(&shared.config().history);
        let mut writer = Writer { store, shared, missing: None, owed, limits, refused: None };
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
    /// Gaps of unknown size that are to be written.
    owed: Vec<Gap>,
    limits: Limits,
    /// When it could not be opened, and why.
    refused: Option<(Instant, Failure)>,
}

/// Why nothing can be written.
#[derive(Clone, Debug)]
struct Failure {
    reason: &'static str,
    message: String,
}

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Self {
        Self { reason: reason(error), message: one_line(error) }
    }
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
        let mut written = self.append(&mut batch);
        if self.store.is_none() && self.refused.is_none() {
            // It was damaged. The batch is not, and another one has room for it.
            written = self.append(&mut batch);
            if let (None, Err(failure)) = (&self.store, &written) {
                self.refused = Some((Instant::now(), failure.clone()));
            }
        }
        match written {
            Ok(Appended { refused, .. }) => {
                if self.missing.take().is_some() {
                    tracing::warn!("the history is written again");
                }
                self.owed.clear();
                let mut history = self.history();
                history.trouble = None;
                if refused > 0 {
                    history.unkept += refused;
                    *history.failures.entry("too_long").or_default() += refused;
                }
            }
            Err(failure) => self.miss(batch, failure),
        }
    }

    /// Appends a batch and the gaps that are to be written, which are in the batch only for that time.
    fn append(&mut self, batch: &mut Batch) -> Result<Appended, Failure> {
        let config = self.shared.config();
        self.open(&config, batch.now)?;
        let Some(store) = &mut self.store else { return Err(unopened()) };
        let own = batch.gaps.len();
        batch.gaps.extend(self.owed.iter().copied().chain(self.missing));
        let wanted = limits(&config.history);
        let changed = if self.limits == wanted { Ok(()) } else { store.set_limits(wanted) };
        self.limits = wanted;
        let written = changed.and_then(|()| store.append(batch));
        batch.gaps.truncate(own);
        written.map_err(|error| {
            if !error.is_passing() {
                // A damaged one is moved aside, and another one begun, when it is opened anew.
                tracing::warn!("the history is opened anew: {}", one_line(&error));
                self.store = None;
            }
            Failure::from(&error)
        })
    }

    /// Sees to it that there is a store, unless it was tried just now.
    fn open(&mut self, config: &Config, now: u64) -> Result<(), Failure> {
        if self.store.is_some() {
            return Ok(());
        }
        if let Some((when, failure)) = &self.refused
            && when.elapsed() < REST
        {
            return Err(failure.clone());
        }
        match Store::open(&config.history.file, limits(&config.history)) {
            Ok(Opened { store, damaged }) => {
                self.store = Some(store);
                self.refused = None;
                if let Some(aside) = damaged {
                    put_aside(&self.shared, &aside);
                    self.owed.push(in_damaged(now));
                }
                Ok(())
            }
            Err(error) => {
                let failure = Failure::from(&error);
                self.refused = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    /// Nothing of the batch is kept: its entries are missing, and its numbers count as covered, since they
    /// are gone from the ring buffer.
    fn miss(&mut self, batch: Batch, failure: Failure) {
        let entries = batch.gone.len() + batch.events.len();
        let entries = u64::try_from(entries).unwrap_or(u64::MAX);
        let first = batch.gone.iter().map(|gone| gone.closed_at);
        let first = first.chain(batch.events.iter().map(|event| event.time)).min();
        let (counted, unknown): (Vec<Gap>, Vec<Gap>) =
            batch.gaps.into_iter().partition(|gap| gap.lost.is_some());
        self.owed.extend(unknown);
        let before = counted.iter().chain(&self.missing);
        let lost = before.clone().filter_map(|gap| gap.lost).sum::<u64>();
        let from = before.map(|gap| gap.from).chain(first).min().unwrap_or(batch.now);
        if self.missing.is_none() {
            tracing::warn!("what happens is not kept: {}", failure.message);
        }
        self.missing = Some(Gap {
            from,
            until: batch.now,
            reason: GapReason::Unwritten,
            lost: Some(lost + entries),
        });
        let mut history = self.history();
        history.unkept += entries;
        *history.failures.entry(failure.reason).or_default() += entries;
        history.trouble = Some(failure.message);
    }

    fn history(&self) -> std::sync::MutexGuard<'_, super::shared::History> {
        self.shared.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self) {
        let figures = self.store.as_ref().and_then(|store| store.figures().ok());
        let mut history = self.history();
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

/// What was kept before this moment of this boot, in a file that is damaged.
#[must_use]
pub fn in_damaged(now: u64) -> Gap {
    Gap { from: 0, until: now, reason: GapReason::Damaged, lost: None }
}

/// Takes note of a history that could not be opened, and will be tried again.
pub fn not_opened(shared: &Shared, error: &StoreError) {
    let message = one_line(error);
    tracing::warn!("what happens is not kept: {message}");
    let mut history = shared.history.lock().unwrap_or_else(PoisonError::into_inner);
    history.trouble = Some(message);
    history.failures.entry(reason(error)).or_default();
}

fn unopened() -> Failure {
    Failure { reason: "other", message: "the history is not open".to_owned() }
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
