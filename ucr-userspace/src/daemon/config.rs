//! What the daemon is told by its configuration file: one TOML file, all of whose keys are in one table
//! ([`keys::KEYS`]).
//!
//! The table gives the defaults, the checks, the documented example and what a reload changes.

mod error;
mod example;
mod file;
pub mod keys;
mod rule;
mod text;
mod value;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use self::keys::{KEYS, Reload};
pub use self::{
    error::{ConfigError, Problem, Wrong},
    example::example,
};
use crate::tracer::hooks::Backend;

/// Where the file is if nobody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/ucr/ucr.toml";

/// All that can be configured. What each value means, and what is allowed, is in [`keys::KEYS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The socket that questions are asked on.
    pub control: Control,
    /// How tracing is attached and kept right.
    pub tracing: Tracing,
    /// What is kept of closed sockets and past events.
    pub history: History,
    /// Who follows the events.
    pub followers: Followers,
    /// Figures for Prometheus.
    pub metrics: Metrics,
    /// What the daemon says of itself.
    pub log: Log,
}

/// `[control]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Where the socket is.
    pub socket: PathBuf,
    /// A group whose members may ask, too, by its name or number.
    pub group: Option<String>,
    /// Most clients at once.
    pub max_clients: u32,
    /// Longest request, in bytes.
    pub max_request: u64,
    /// How long a client may take for a request, once begun, and for taking its answer.
    pub request_timeout: Duration,
    /// How long a client may be silent.
    pub idle_timeout: Duration,
}

/// `[tracing]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Where maps and links are pinned.
    pub pin_dir: PathBuf,
    /// How to trace; `None`: the best that the kernel has.
    pub backend: Option<Backend>,
    /// Size of the event ring buffer, in bytes: a power of two.
    pub ring_bytes: u32,
    /// Most sockets that the ledger holds.
    pub max_sockets: u32,
    /// What becomes of tracing when the daemon ends.
    pub on_stop: OnStop,
    /// How often the ledger is held against the kernel; `None`: never.
    pub reconcile_every: Option<Duration>,
    /// Whether that is also done after events were lost.
    pub reconcile_after_loss: bool,
}

/// What becomes of tracing when the daemon is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// It goes on in the kernel, for the next daemon or for `ucr dump`.
    Keep,
    /// It ends.
    Detach,
}

/// `[history]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Whether there is one.
    pub enabled: bool,
    /// The database.
    pub file: PathBuf,
    /// Its largest size, in bytes.
    pub max_size: u64,
    /// How old an entry can become.
    pub max_age: Duration,
    /// Whether events are kept beside closed sockets.
    pub events: bool,
    /// How long an entry may wait until it is written.
    pub flush_every: Duration,
}

/// `[followers]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followers {
    /// Events that are held for one that is slow.
    pub queue: u32,
}

/// `[metrics]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where to serve them by HTTP; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important that is said.
    pub level: tracing::Level,
}

/// What differs between two configurations, as `section.key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What a running daemon takes over.
    pub applied: Vec<String>,
    /// What a running daemon cannot change: it goes on with the old value.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, that somebody else could have written, or that holds anything that
    /// makes no sense: see [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&file::read(path)?, path)
    }

    /// Reads the file that was chosen, or else [`DEFAULT_FILE`] if there is one, or else takes the
    /// defaults.
    ///
    /// # Errors
    /// See [`Config::load`]. A chosen file has to be there.
    pub fn find(chosen: Option<&Path>) -> Result<Self, ConfigError> {
        match chosen {
            Some(path) => Self::load(path),
            None => or_default(Self::load(Path::new(DEFAULT_FILE))),
        }
    }

    /// Takes the text of a file; its path is for errors only.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`], with everything that is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let problems = text::apply(text, &mut config);
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Invalid { path: path.to_owned(), problems })
        }
    }

    /// What another configuration has otherwise.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Changes {
        let (mut old, mut new) = (self.clone(), new.clone());
        let mut changes = Changes::default();
        for key in KEYS.iter().filter(|key| key.rule.differs(&mut old, &mut new)) {
            match key.reload {
                Reload::Applies => changes.applied.push(key.to_string()),
                Reload::NeedsRestart => changes.needs_restart.push(key.to_string()),
            }
        }
        changes
    }

    /// This configuration as far as a running daemon can take it over: what needs a restart stays as it
    /// was.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Self {
        let (mut old, mut taken) = (self.clone(), new.clone());
        let kept = KEYS.iter().filter(|key| key.reload == Reload::NeedsRestart);
        kept.for_each(|key| key.rule.copy(&mut old, &mut taken));
        taken
    }

    /// No value that means anything: each is set from the table before anybody sees it.
    fn blank() -> Self {
        Self {
            control: Control {
                socket: PathBuf::new(),
                group: None,
                max_clients: 0,
                max_request: 0,
                request_timeout: Duration::ZERO,
                idle_timeout: Duration::ZERO,
            },
            tracing: Tracing {
                pin_dir: PathBuf::new(),
                backend: None,
                ring_bytes: 0,
                max_sockets: 0,
                on_stop: OnStop::Keep,
                reconcile_every: None,
                reconcile_after_loss: false,
            },
            history: History {
                enabled: false,
                file: PathBuf::new(),
                max_size: 0,
                max_age: Duration::ZERO,
                events: false,
                flush_every: Duration::ZERO,
            },
            followers: Followers { queue: 0 },
            metrics: Metrics { listen: None },
            log: Log { level: tracing::Level::ERROR },
        }
    }
}

impl Default for Config {
    /// The defaults of the table.
    fn default() -> Self {
        let mut config = Self::blank();
        // That each default is taken is seen by a test: nobody could be told here.
        for key in &KEYS {
            key.set_default(&mut config);
        }
        config
    }
}

fn or_default(loaded: Result<Config, ConfigError>) -> Result<Config, ConfigError> {
    match loaded {
        Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Config::default())
        }
        loaded => loaded,
    }
}

#[cfg(test)]
mod tests;
