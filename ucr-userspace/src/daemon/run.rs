//! The daemon's life: from opening everything, while it has all rights, to its end.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
    time::{MissedTickBehavior, interval, sleep_until},
};
use ucr_common::record::Record;

use super::{
    book::{Book, Known},
    config::{Config, OnStop},
    follow::{Following, Order, Stopped, now},
    guard::Guard,
    http::{self, Page, Unavailable},
    keeper::Keeper,
    notify::Notifier,
    prepare::{Kept, Prepared},
    privileges::{KEPT, drop_privileges},
    schedule::Schedule,
    server::{self, Door},
    shared::Shared,
};
use crate::{
    causes::one_line,
    history::{Attachment, Store as HistoryStore},
    kernel::clock,
    sys::heap,
    tracer::{
        session,
        store::{self, Store},
    },
};

/// Whoever reads the ring buffer looks up several times a second; after so long, something holds it for good.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// What goes wrong at the beginning or at the end.
pub type Outcome = anyhow::Result<()>;

/// Runs the daemon until a signal ends it (SIGTERM, SIGINT); SIGHUP reads the configuration again.
///
/// # Errors
/// What keeps it from starting; that following ended by itself.
pub fn run(config: Config, file: Option<&Path>) -> Outcome {
    let notifier = Notifier::from_environment()?;
    let prepared = Prepared::new(config, file)?;
    let kept = drop_privileges(&KEPT)?;
    for missing in &kept.missing {
        tracing::warn!("{} is missing ({})", missing.name, missing.reason);
    }
    heap::give_back();
    live(prepared, &notifier)
}

/// From here on with few rights.
fn live(prepared: Prepared, notifier: &Notifier) -> Outcome {
    let Prepared { shared, file, door, metrics, mut history, attachment, removed } = prepared;
    let (removed, taken) = removed;
    let store = session::open(&shared.pins)?;
    let ring = store::open_events(&shared.pins.maps())?;
    let guard = Guard::new(&shared.pins, session::open(&shared.pins)?)?;
    let known = match &mut history {
        Some(Kept { store: Some(history), .. }) => known(history, &attachment, &store)?,
        _ => Known::default(),
    };
    let following = Following {
        store,
        ring,
        keeper: history.map(|kept| Keeper::start(kept.store, kept.owed, Arc::clone(&shared))),
        known,
        attachment,
        removed: taken,
        ring_bytes: shared.ring.depth().1,
        shared: Arc::clone(&shared),
    };
    let (orders, heard) = watch::channel(Order::GoOn);
    let (begins, begun) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    let thread = thread::spawn(move || {
        if let Err(error) = following.run(heard, begins)
            && let Err(error) = ended.send(error)
        {
            // Nobody waits any more: the daemon is ending.
            tracing::warn!("end following: {}", one_line(&error));
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()?;
    let ending = runtime.block_on(async {
        let main = Main { shared: &shared, file, door: &door, notifier, removed, guard };
        main.run(metrics, begun, end).await
    });
    notifier.stopping().ok();
    runtime.shutdown_timeout(Duration::from_secs(5));
    let on_stop = shared.config().tracing.on_stop;
    // After a failure the next daemon goes on; and what is attached need not be ours any more.
    let is_last = ending.is_ok() && on_stop == OnStop::Detach;
    orders.send_replace(if is_last { Order::Stop } else { Order::Pause });
    if thread.join().is_err() {
        tracing::error!("the thread that reads the ring buffer has panicked");
    }
    if is_last {
        session::detach(&shared.pins)?;
    }
    ending
}

/// What the history knows of this tracing. From the first moment on it knows some: whatever the end, the next
/// daemon can tell how much is missing.
fn known(
    history: &mut HistoryStore,
    attachment: &Attachment,
    store: &Store,
) -> anyhow::Result<Known> {
    let until = history.last_stamp(&attachment.boot_id)?.unwrap_or(0);
    let next = history.sequences(attachment)?;
    if !next.is_empty() {
        return Ok(Known { next, until });
    }
    let (next, now) = (store.next_numbers()?, now());
    let mut book = Book::new(attachment.clone(), usize::MAX);
    book.begin(Known { next: Vec::new(), until }, next.clone(), now.boottime);
    match history.append(&book.hand_over(now)) {
        Ok(_) => Ok(Known { next, until: now.boottime }),
        // It will be tried again, with what happens until then.
        Err(error) if error.is_passing() => Ok(Known { next: Vec::new(), until }),
        Err(error) => Err(error.into()),
    }
}

/// What the main thread does: everything but following.
struct Main<'a> {
    shared: &'a Arc<Shared>,
    file: Option<PathBuf>,
    door: &'a Door,
    notifier: &'a Notifier,
    removed: mpsc::Sender<Vec<Record>>,
    guard: Guard,
}

impl Main<'_> {
    async fn run(
        mut self,
        metrics: Option<std::net::TcpListener>,
        begun: oneshot::Receiver<()>,
        mut end: oneshot::Receiver<Stopped>,
    ) -> Outcome {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut hung_up = signal(SignalKind::hangup())?;
        if begun.await.is_err() {
            return Err(why(end.await));
        }
        let (group, shared) = (self.door.group(), Arc::clone(self.shared));
        tokio::spawn(server::serve(self.door.listener()?, group, shared));
        if let Some(listener) = metrics {
            let shared = Arc::clone(self.shared);
            tokio::spawn(http::serve(listener, http::Limits::default(), move |page| {
                let shared = Arc::clone(&shared);
                async move { given(page, shared).await }
            }));
        }
        let mut watchdog = interval(self.notifier.watchdog().unwrap_or(Duration::from_secs(30)));
        watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut glance = interval(Duration::from_secs(1));
        glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut schedule = Schedule::new(self.every(), std::time::Instant::now());
        let mut reconciling = None;
        tracing::info!("ready: answers at {}", self.shared.config().control.socket.display());
        self.notifier.ready("follows and answers")?;
        loop {
            let now = std::time::Instant::now();
            tokio::select! {
                _ = terminated.recv() => return Ok(()),
                _ = interrupted.recv() => return Ok(()),
                _ = hung_up.recv() => {
                    self.reload();
                    schedule.change(self.every(), now);
                }
                stopped = &mut end => return Err(why(stopped)),
                _ = watchdog.tick() => self.say_alive(),
                _ = glance.tick() => {
                    self.guard.require(&self.shared.pins).context("tracing was taken away")?;
                    let is_wanted = self.shared.config().tracing.reconcile_after_loss;
                    if self.guard.has_lost(self.shared) && is_wanted {
                        schedule.lost(now);
                    }
                }
                () = until(schedule.due()), if reconciling.is_none() => {
                    schedule.begin();
                    reconciling = Some(self.reconcile());
                }
                () = finished(&mut reconciling) => {
                    reconciling = None;
                    self.guard.overlook_sockets();
                    schedule.end(std::time::Instant::now());
                }
            }
        }
    }

    fn every(&self) -> Option<Duration> {
        self.shared.config().tracing.reconcile_every
    }

    /// As long as the ring buffer is being read: without that, all else is worth nothing.
    fn say_alive(&self) {
        let beat = self.shared.beat.load(Ordering::Relaxed);
        let silent = Duration::from_nanos(clock::boottime().saturating_sub(beat));
        if silent >= LONGEST_SILENCE {
            tracing::error!("nobody has read the ring buffer for {} s", silent.as_secs());
        } else if self.notifier.watchdog().is_some() {
            self.notifier.alive().ok();
        }
    }

    /// Holds the ledger against the kernel, on a thread of its own.
    fn reconcile(&self) -> tokio::task::JoinHandle<()> {
        let (shared, removed) = (Arc::clone(self.shared), self.removed.clone());
        tokio::task::spawn_blocking(move || match session::reconcile(&shared.pins) {
            Ok(mut done) => {
                let gone = std::mem::take(&mut done.gone);
                shared.reconciled(clock::realtime(), &done);
                // If nobody listens, the daemon is ending.
                removed.send(gone).ok();
            }
            Err(error) => {
                tracing::warn!("reconcile the ledger: {}", one_line(&error));
                shared.not_reconciled(one_line(&error));
            }
        })
    }

    fn reload(&self) {
        self.notifier.reloading().ok();
        let now = self.shared.config();
        match Config::find(self.file.as_deref()) {
            Ok(new) => {
                let changes = now.changes(&new);
                let next = now.reloaded(&new);
                if !changes.applied.is_empty() {
                    tracing::info!(
                        "configuration read again: {} changed",
                        changes.applied.join(", ")
                    );
                }
                if !changes.needs_restart.is_empty() {
                    tracing::warn!("needs a restart: {}", changes.needs_restart.join(", "));
                }
                super::log::set_level(next.log.level);
                let mut config =
                    self.shared.config.write().unwrap_or_else(std::sync::PoisonError::into_inner);
                *config = Arc::new(next);
            }
            Err(error) => tracing::warn!("configuration not read again: {}", one_line(&error)),
        }
        self.notifier.ready("follows and answers").ok();
    }
}

/// A page for who asks by HTTP. The figures are taken on a thread of its own.
async fn given(page: Page, shared: Arc<Shared>) -> Result<String, Unavailable> {
    match page {
        Page::Health => Ok("ok\n".to_owned()),
        Page::Metrics => {
            let taken =
                tokio::task::spawn_blocking(move || super::figures::exposition(&shared)).await;
            taken.map_err(|panic| panic.to_string()).and_then(|text| text).map_err(Unavailable)
        }
    }
}

fn why(stopped: Result<Stopped, oneshot::error::RecvError>) -> anyhow::Error {
    match stopped {
        Ok(stopped) => stopped.into(),
        Err(_) => anyhow::anyhow!("following the events ended by itself"),
    }
}

async fn finished(task: &mut Option<tokio::task::JoinHandle<()>>) {
    match task {
        // It has said itself what went wrong.
        Some(task) => drop(task.await),
        None => std::future::pending().await,
    }
}

async fn until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
