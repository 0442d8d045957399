//! The daemon's beginning: all that takes rights which it gives up then.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock, atomic::AtomicU64, mpsc},
};

use ucr_common::record::Record;

use super::{
    config::Config,
    hub::Hub,
    keeper,
    server::Door,
    shared::{Counts, History, Shared},
};
use crate::{
    causes::one_line,
    history::{Attachment, Gap, Opened, Store as HistoryStore, StoreError},
    kernel::clock,
    process::procfs,
    tracer::{
        TracerError, follow::is_there, hooks::Choice, object::Sizes, pins::PinDirectory,
        programs::Programs, ring::Ring, session, store::Store,
    },
};

/// Everything that takes rights which are given up then.
pub(super) struct Prepared {
    pub(super) shared: Arc<Shared>,
    pub(super) file: Option<PathBuf>,
    pub(super) door: Door,
    pub(super) metrics: Option<std::net::TcpListener>,
    pub(super) history: Option<Kept>,
    pub(super) attachment: Attachment,
    pub(super) removed: (mpsc::Sender<Vec<Record>>, mpsc::Receiver<Vec<Record>>),
}

/// The history as it was found.
pub(super) struct Kept {
    /// None if it cannot be opened yet.
    pub(super) store: Option<HistoryStore>,
    /// What is missing in it.
    pub(super) owed: Vec<Gap>,
}

impl Prepared {
    /// Opens and attaches everything.
    ///
    /// # Errors
    /// What keeps the daemon from starting. Who is refused since another one runs has changed nothing.
    pub(super) fn new(config: Config, file: Option<&Path>) -> anyhow::Result<Self> {
        // What others could have comes first.
        let door = Door::open(&config.control)?;
        let opened = open_history(&config)?;
        let metrics = match config.metrics.listen {
            Some(address) => Some(std::net::TcpListener::bind(address).map_err(|source| {
                anyhow::Error::new(source).context(format!("listen at {address} for metrics"))
            })?),
            None => None,
        };
        let pins = PinDirectory::new(config.tracing.pin_dir.clone());
        let store = attach(&config, &pins)?;
        let attachment =
            Attachment { boot_id: procfs::boot_id()?, attached_at: store.control()?.attached_at };
        let shared = Arc::new(Shared {
            programs: Programs::open(&pins)?,
            ring: Ring::open(&pins)?,
            pins,
            config: RwLock::new(Arc::new(config)),
            hub: Hub::default(),
            since: clock::realtime(),
            counts: Counts::default(),
            reconciliation: Mutex::default(),
            history: Mutex::new(History::default()),
            beat: AtomicU64::new(clock::boottime()),
        });
        let history = opened.map(|opened| Kept::new(opened, &shared));
        let file = file.map(Path::to_owned);
        let removed = mpsc::channel();
        Ok(Self { shared, file, door, metrics, history, attachment, removed })
    }
}

impl Kept {
    fn new(opened: Result<Opened, StoreError>, shared: &Shared) -> Self {
        match opened {
            Ok(Opened { store, damaged }) => {
                let gap = damaged.map(|aside| {
                    keeper::put_aside(shared, &aside);
                    keeper::in_damaged(clock::boottime())
                });
                Self { store: Some(store), owed: gap.into_iter().collect() }
            }
            Err(error) => {
                keeper::not_opened(shared, &error);
                Self { store: None, owed: Vec::new() }
            }
        }
    }
}

/// Opens the history, if one is to be kept. That the disk is full keeps nobody from following: it is tried
/// again.
fn open_history(config: &Config) -> anyhow::Result<Option<Result<Opened, StoreError>>> {
    let history = &config.history;
    if !history.enabled {
        return Ok(None);
    }
    if let Some(folder) = history.file.parent() {
        make_private(folder)?;
    }
    match HistoryStore::open(&history.file, keeper::limits(history)) {
        Err(error) if !error.is_passing() => Err(error.into()),
        opened => Ok(Some(opened)),
    }
}

/// Attaches tracing, or takes over what is attached.
fn attach(config: &Config, pins: &PinDirectory) -> anyhow::Result<Store> {
    let wanted = config.tracing.backend;
    match session::open_as(pins, wanted) {
        Ok(store) => {
            let lease = store.lease()?;
            if lease.until > clock::boottime() && is_there(&lease) {
                return Err(TracerError::Followed { pid: lease.follower }.into());
            }
            tracing::info!("takes over tracing that is attached since before");
            return Ok(store);
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
    Ok(session::open(pins)?)
}

fn make_private(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| {
        anyhow::Error::new(source).context(format!("create directory {}", folder.display()))
    })
}
