//! The table of all keys: where each stands, what it is by default, what is allowed, what it means, and
//! whether a reload changes it.

use std::fmt;

use toml::de::DeValue;

use super::{
    Config,
    rule::{
        Rule, address, backend, count, group, level, on_stop, path, power_of_two, size,
        socket_path, span, span_or_never, switch,
    },
};

/// One key of the file.
#[derive(Debug)]
pub struct Key {
    /// The table of the file that it is in.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// What it is if it is not in the file, as TOML.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Whether a running daemon takes a change over.
    pub reload: Reload,
    /// What is allowed, and where it goes.
    pub(super) rule: &'static dyn Rule,
}

/// Whether a reload (SIGHUP) changes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// It does.
    Applies,
    /// The daemon has to be started anew.
    NeedsRestart,
}

impl fmt::Display for Key {
    /// `section.name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.section, self.name)
    }
}

impl Key {
    /// What is allowed, and in which unit, as words that follow "it must be".
    #[must_use]
    pub fn allowed(&self) -> String {
        self.rule.allowed()
    }

    /// Sets it to its default; `None` if that is not allowed, which is a mistake in the table.
    pub(super) fn set_default(&self, config: &mut Config) -> Option<()> {
        let value = DeValue::parse(self.default).ok()?;
        self.rule.set(config, value.get_ref())
    }
}

/// The sections, and what each is about.
pub const SECTIONS: [(&str, &str); 6] = [
    ("control", "The socket that `ucr` asks its questions on."),
    ("tracing", "How tracing is attached, and how the ledger is kept right."),
    ("history", "What is kept of closed sockets and past events."),
    ("followers", "Who follows the events live (`ucr trace`)."),
    ("metrics", "Figures for Prometheus."),
    ("log", "What the daemon says of itself, to standard error."),
];

/// All keys, by section.
pub const KEYS: [Key; 22] = [
    Key {
        section: "control",
        name: "socket",
        default: r#""/run/ucr/control.sock""#,
        meaning: "Where the socket is.",
        reload: Reload::NeedsRestart,
        rule: &socket_path(|config| &mut config.control.socket),
    },
    Key {
        section: "control",
        name: "group",
        default: r#""""#,
        meaning: "A group whose members may ask, too. What they are told concerns all users of the \
                  machine. Empty: root alone.",
        reload: Reload::NeedsRestart,
        rule: &group(|config| &mut config.control.group),
    },
    Key {
        section: "control",
        name: "max_clients",
        default: "64",
        meaning: "Clients that can be connected at once. More are told so and turned away.",
        reload: Reload::Applies,
        rule: &count(["1", "10000"], |config| &mut config.control.max_clients),
    },
    Key {
        section: "control",
        name: "max_request",
        default: r#""64KiB""#,
        meaning: "Longest request. A client that sends a longer one is told so and turned away.",
        reload: Reload::Applies,
        rule: &size(["1KiB", "16MiB"], |config| &mut config.control.max_request),
    },
    Key {
        section: "control",
        name: "request_timeout",
        default: r#""10s""#,
        meaning: "How long a client may take to send a request that it has begun, and to take what it \
                  is sent.",
        reload: Reload::Applies,
        rule: &span(["100ms", "1h"], |config| &mut config.control.request_timeout),
    },
    Key {
        section: "control",
        name: "idle_timeout",
        default: r#""5m""#,
        meaning: "How long a client may stay connected without asking anything. Who follows events \
                  may for ever.",
        reload: Reload::Applies,
        rule: &span(["1s", "7d"], |config| &mut config.control.idle_timeout),
    },
    Key {
        section: "tracing",
        name: "pin_dir",
        default: r#""/sys/fs/bpf/ucr""#,
        meaning: "Where the maps and links of attached tracing are pinned, on a bpf file system. \
                  Other verbs find it by --pin-dir or UCR_PIN_DIR.",
        reload: Reload::NeedsRestart,
        rule: &path(|config| &mut config.tracing.pin_dir),
    },
    Key {
        section: "tracing",
        name: "backend",
        default: r#""auto""#,
        meaning: "How to trace. auto: as tracing is attached already, or else the best that this \
                  kernel has; `ucr features` lists what it has and what each cannot see.",
        reload: Reload::NeedsRestart,
        rule: &backend(|config| &mut config.tracing.backend),
    },
    Key {
        section: "tracing",
        name: "ring_bytes",
        default: r#""4MiB""#,
        meaning: "Size of the ring buffer that events wait in. Events that find it full are lost, and \
                  counted. Tracing that is attached already keeps its size.",
        reload: Reload::NeedsRestart,
        rule: &power_of_two(["4KiB", "1GiB"], |config| &mut config.tracing.ring_bytes),
    },
    Key {
        section: "tracing",
        name: "max_sockets",
        default: "262144",
        meaning: "Sockets that the ledger holds at most. More are not recorded, and counted. Tracing \
                  that is attached already keeps its size.",
        reload: Reload::NeedsRestart,
        rule: &count(["1", "16777216"], |config| &mut config.tracing.max_sockets),
    },
    Key {
        section: "tracing",
        name: "on_stop",
        default: r#""keep""#,
        meaning: "What becomes of tracing when the daemon ends. keep: it goes on in the kernel, so \
                  that the next daemon and `ucr dump` know what has happened meanwhile. detach: it \
                  ends.",
        reload: Reload::Applies,
        rule: &on_stop(|config| &mut config.tracing.on_stop),
    },
    Key {
        section: "tracing",
        name: "reconcile_every",
        default: r#""10m""#,
        meaning: "How often the ledger is held against the sockets that the kernel has, and corrected. \
                  0s: never.",
        reload: Reload::Applies,
        rule: &span_or_never(["1s", "30d"], |config| &mut config.tracing.reconcile_every),
    },
    Key {
        section: "tracing",
        name: "reconcile_after_loss",
        default: "true",
        meaning: "Whether that is done, too, as soon as events or records were lost.",
        reload: Reload::Applies,
        rule: &switch(|config| &mut config.tracing.reconcile_after_loss),
    },
    Key {
        section: "history",
        name: "enabled",
        default: "true",
        meaning: "Whether anything is kept of what is gone.",
        reload: Reload::NeedsRestart,
        rule: &switch(|config| &mut config.history.enabled),
    },
    Key {
        section: "history",
        name: "file",
        default: r#""/var/lib/ucr/history.db""#,
        meaning: "The database. Readable for root only, as it tells what all users did.",
        reload: Reload::NeedsRestart,
        rule: &path(|config| &mut config.history.file),
    },
    Key {
        section: "history",
        name: "max_size",
        default: r#""1GiB""#,
        meaning: "Largest size of the database, together with its log. The oldest entries are \
                  forgotten, and counted.",
        reload: Reload::Applies,
        rule: &size(["1MiB", "16TiB"], |config| &mut config.history.max_size),
    },
    Key {
        section: "history",
        name: "max_age",
        default: r#""30d""#,
        meaning: "How long an entry is kept.",
        reload: Reload::Applies,
        rule: &span(["1m", "36500d"], |config| &mut config.history.max_age),
    },
    Key {
        section: "history",
        name: "events",
        default: "true",
        meaning: "Whether events are kept, too, and not only closed sockets.",
        reload: Reload::Applies,
        rule: &switch(|config| &mut config.history.events),
    },
    Key {
        section: "history",
        name: "flush_every",
        default: r#""1s""#,
        meaning: "How long an entry may wait until it is written: what a power failure can take.",
        reload: Reload::Applies,
        rule: &span(["10ms", "1m"], |config| &mut config.history.flush_every),
    },
    Key {
        section: "followers",
        name: "queue",
        default: "8192",
        meaning: "Events that are held for a follower that is slow. What comes on top it misses, and \
                  is told how many.",
        reload: Reload::Applies,
        rule: &count(["16", "1048576"], |config| &mut config.followers.queue),
    },
    Key {
        section: "metrics",
        name: "listen",
        default: r#""""#,
        meaning: "Address at which they are served by HTTP, as /metrics, to whoever asks. They are \
                  counts, and name nobody. Empty: nowhere.",
        reload: Reload::NeedsRestart,
        rule: &address(|config| &mut config.metrics.listen),
    },
    Key {
        section: "log",
        name: "level",
        default: r#""info""#,
        meaning: "The least important that is said. The variable UCR_LOG prevails.",
        reload: Reload::Applies,
        rule: &level(|config| &mut config.log.level),
    },
];
