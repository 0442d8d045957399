//! The daemon's life: from opening everything, while it has all rights, to its end.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock, mpsc},
    thread,
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use ucr_common::record::Record;

use super::{
    config::{Config, OnStop},
    follow::{Following, Order},
    http::{self, Page, Unavailable},
    keeper::{self, Keeper},
    notify::Notifier,
    privileges::{KEPT, drop_privileges},
    server::{self, Door},
    shared::{Counts, History, Shared},
};
use crate::{
    causes::one_line,
    history::{Attachment, Opened, Store as HistoryStore},
    kernel::clock,
    process::procfs,
    sys::heap,
    tracer::{
        TracerError, follow::FollowError, hooks::Choice, object::Sizes, pins::PinDirectory,
        programs::Programs, ring::Ring, session, store,
    },
};

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
    prepared.live(&notifier)
}

/// Everything that takes rights which are given up then.
struct Prepared {
    shared: Arc<Shared>,
    file: Option<PathBuf>,
    door: Door,
    metrics: Option<std::net::TcpListener>,
    history: Option<HistoryStore>,
    attachment: Attachment,
    removed: (mpsc::Sender<Vec<Record>>, mpsc::Receiver<Vec<Record>>),
}

impl Prepared {
    fn new(config: Config, file: Option<&Path>) -> anyhow::Result<Self> {
        let door = Door::open(&config.control)?;
        let history = match &config.history {
            history if history.enabled => {
                if let Some(folder) = history.file.parent() {
                    make_private(folder)?;
                }
                Some(HistoryStore::open(&history.file, keeper::limits(history))?)
            }
            _ => None,
        };
        let pins = PinDirectory::new(config.tracing.pin_dir.clone());
        attach(&config, &pins)?;
        let control = session::open(&pins)?.control()?;
        let attachment =
            Attachment { boot_id: procfs::boot_id()?, attached_at: control.attached_at };
        let metrics = match config.metrics.listen {
            Some(address) => Some(std::net::TcpListener::bind(address).map_err(|source| {
                anyhow::Error::new(source).context(format!("listen at {address} for metrics"))
            })?),
            None => None,
        };
        let shared = Arc::new(Shared {
            programs: Programs::open(&pins)?,
            ring: Ring::open(&pins)?,
            pins,
            config: RwLock::new(Arc::new(config)),
            hub: super::hub::Hub::default(),
            since: clock::realtime(),
            counts: Counts::default(),
            reconciliation: Mutex::default(),
            history: Mutex::new(History::default()),
        });
        let history = history.map(|Opened { store, damaged }| {
            if let Some(aside) = damaged {
                keeper::put_aside(&shared, &aside);
            }
            store
        });
        let file = file.map(Path::to_owned);
        let removed = mpsc::channel();
        Ok(Self { shared, file, door, metrics, history, attachment, removed })
    }

    /// From here on with few rights.
    fn live(self, notifier: &Notifier) -> Outcome {
        let Self { shared, file, door, metrics, history, attachment, removed } = self;
        let (removed, taken) = removed;
        let store = session::open(&shared.pins)?;
        let ring = store::open_events(&shared.pins.maps())?;
        let expected = match &history {
            Some(history) => history.sequences(&attachment)?,
            None => Vec::new(),
        };
        let following = Following {
            store,
            ring,
            keeper: history.map(|store| Keeper::start(store, Arc::clone(&shared))),
            expected,
            attachment,
            removed: taken,
            ring_bytes: shared.ring.depth().1,
            shared: Arc::clone(&shared),
        };
        let (orders, heard) = watch::channel(Order::GoOn);
        let (ended, end) = tokio::sync::oneshot::channel();
        let thread = thread::spawn(move || {
            // If nobody waits any more, the daemon is ending.
            ended.send(following.run(heard)).ok();
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(4)
            .build()?;
        let ending = runtime.block_on(async {
            let main = Main { shared: &shared, file, door: &door, notifier, removed };
            main.run(metrics, end).await
        });
        runtime.shutdown_timeout(Duration::from_secs(5));
        notifier.stopping().ok();
        let on_stop = shared.config().tracing.on_stop;
        orders.send_replace(match on_stop {
            OnStop::Keep => Order::Pause,
            OnStop::Detach => Order::Stop,
        });
        thread.join().ok();
        if on_stop == OnStop::Detach {
            session::detach(&shared.pins)?;
        }
        ending
    }
}

/// Attaches tracing, or takes over what is attached.
fn attach(config: &Config, pins: &PinDirectory) -> anyhow::Result<()> {
    let wanted = config.tracing.backend;
    match session::open_as(pins, wanted) {
        Ok(store) => {
            tracing::info!("takes over tracing that is attached since before");
            drop(store);
            return Ok(());
        }
        Err(TracerError::NotAttached { .. }) => {}
        // Nobody can read it any more, and a daemon has to come up after an update by itself.
        Err(error @ (TracerError::Incomplete { .. } | TracerError::OtherVersion { .. })) => {
            tracing::warn!("tracing is begun anew: {}", one_line(&error));
            session::detach(pins)?;
        }
        Err(error) => return Err(error.into()),
    }
    let sizes = Sizes {
        ring_bytes: config.tracing.ring_bytes,
        sockets: config.tracing.max_sockets,
        found: config.tracing.max_sockets,
        ..Sizes::default()
    };
    let choice = Choice { backend: wanted, ..Choice::default() };
    let attached = session::attach(pins, &choice, sizes)?;
    if let Some((better, why)) = &attached.refused.backend {
        tracing::info!("not with the {} backend: {}", better.name(), one_line(why));
    }
    for failed in &attached.seeded.failed {
        tracing::warn!("{}", one_line(failed));
    }
    tracing::info!(
        "attached with the {} backend; {} sockets known from before",
        attached.backend.name(),
        attached.sockets
    );
    Ok(())
}

fn make_private(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| {
        anyhow::Error::new(source).context(format!("create directory {}", folder.display()))
    })
}

/// What the main thread does: everything but following.
struct Main<'a> {
    shared: &'a Arc<Shared>,
    file: Option<PathBuf>,
    door: &'a Door,
    notifier: &'a Notifier,
    removed: mpsc::Sender<Vec<Record>>,
}

impl Main<'_> {
    async fn run(
        self,
        metrics: Option<std::net::TcpListener>,
        mut end: tokio::sync::oneshot::Receiver<Result<(), FollowError>>,
    ) -> Outcome {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut hung_up = signal(SignalKind::hangup())?;
        tokio::spawn(server::serve(self.door.listener()?, Arc::clone(self.shared)));
        if let Some(listener) = metrics {
            let shared = Arc::clone(self.shared);
            tokio::spawn(http::serve(listener, http::Limits::default(), move |page| {
                let shared = Arc::clone(&shared);
                async move { given(page, shared).await }
            }));
        }
        let mut watchdog = interval(self.notifier.watchdog().unwrap_or(Duration::from_secs(30)));
        watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut losses = interval(Duration::from_secs(1));
        losses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lost_before = 0;
        let mut due = self.next_reconciliation(Instant::now());
        let mut reconciling = None;
        tracing::info!("ready: answers at {}", self.shared.config().control.socket.display());
        self.notifier.ready("follows and answers")?;
        loop {
            tokio::select! {
                _ = terminated.recv() => return Ok(()),
                _ = interrupted.recv() => return Ok(()),
                _ = hung_up.recv() => self.reload(),
                outcome = &mut end => {
                    return match outcome {
                        Ok(Err(error)) => Err(error.into()),
                        _ => Err(anyhow::anyhow!("following the events ended by itself")),
                    };
                }
                _ = watchdog.tick() => {
                    self.notifier.alive().ok();
                }
                _ = losses.tick() => {
                    let lost = self.shared.counts.lost.load(std::sync::atomic::Ordering::Relaxed);
                    if lost > lost_before && self.shared.config().tracing.reconcile_after_loss {
                        // Once it has calmed down.
                        due = Some(Instant::now() + Duration::from_secs(2));
                    }
                    lost_before = lost;
                }
                () = sleep_until(due.unwrap_or_else(far)), if due.is_some() && reconciling.is_none() => {
                    due = None;
                    reconciling = Some(self.reconcile());
                }
                () = finished(&mut reconciling) => {
                    reconciling = None;
                    due = due.or_else(|| self.next_reconciliation(Instant::now()));
                }
            }
        }
    }

    fn next_reconciliation(&self, now: Instant) -> Option<Instant> {
        self.shared.config().tracing.reconcile_every.map(|every| now + every)
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

async fn finished(task: &mut Option<tokio::task::JoinHandle<()>>) {
    match task {
        // It has said itself what went wrong.
        Some(task) => drop(task.await),
        None => std::future::pending().await,
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}
