//! What the daemon says of itself: to standard error, with a level that a reload can change.

use std::{
    io::{self, IsTerminal as _},
    sync::OnceLock,
};

use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::{
    Registry, filter::Targets, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

static LEVEL: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// What we say ourselves is said from this level on; of what libraries say, only warnings.
fn from(level: Level) -> Targets {
    Targets::new().with_default(LevelFilter::WARN).with_target("ucr", level)
}

/// Begins to say things. A service manager writes the time itself.
pub fn begin(level: Level) {
    let (filter, handle) = reload::Layer::new(from(level));
    let has_own_clock = std::env::var_os("JOURNAL_STREAM").is_some();
    let lines = fmt::layer()
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_writer(io::stderr)
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter);
    // A second call, as in tests, keeps the first one's.
    let begun = if has_own_clock {
        registry.with(lines.without_time()).try_init()
    } else {
        registry.with(lines).try_init()
    };
    if begun.is_ok() {
        LEVEL.set(handle).ok();
    }
}

/// Says more or less from now on.
pub fn set_level(level: Level) {
    if let Some(handle) = LEVEL.get() {
        // It fails only once nobody says anything any more.
        handle.modify(|filter| *filter = from(level)).ok();
    }
}
