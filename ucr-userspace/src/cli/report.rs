//! What goes to standard error: one way of saying that something failed, and what to do about it.

use std::{
    error::Error,
    io::{IsTerminal as _, Write as _},
};

use tracing_subscriber::EnvFilter;

use super::exit;
use crate::{
    causes::{causes, one_line, verifier_log},
    daemon::{client::ClientError, config::ConfigError, protocol::Refusal},
    dump::DumpError,
    history::StoreError,
    query::listing::RequestError,
    restore::{obstacle::Obstacle, reserve::ReserveError},
    snapshot::diag::DiagError,
    tracer::{TracerError, session::Refused},
};

/// Sends the log (`UCR_LOG`, by default warnings) to standard error.
pub fn log_to_stderr() {
    // What the eBPF programs log has a switch of its own (`trace --ebpf-log`).
    let usual = || EnvFilter::new("warn,ucr_ebpf=trace");
    let filter = EnvFilter::try_from_env("UCR_LOG").unwrap_or_else(|_| usual());
    // A second call, as in tests, keeps the first one's.
    tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // They would go to standard error, too, and panic where that cannot be written.
        .log_internal_errors(false)
        .try_init()
        .ok();
}

/// One line: `ucr: …`. That standard error is gone is nothing that could be reported.
pub fn say(message: &str) {
    writeln!(std::io::stderr().lock(), "ucr: {message}").ok();
}

/// An error with its causes on one line, and what to do about it on a second; with the exit code.
pub fn error(error: &anyhow::Error) -> u8 {
    say(&format!("error: {}", one_line(error.as_ref())));
    let request = causes(error.as_ref()).find_map(request);
    if let Some(pointed) = request.and_then(RequestError::pointed) {
        for line in pointed.lines() {
            say(&format!("    {line}"));
        }
    }
    if log_of_verifier(error.as_ref()) {
        say("hint: UCR_LOG=debug shows the verifier's log");
    }
    if let Some(hint) = causes(error.as_ref()).find_map(hint) {
        say(&format!("hint: {hint}"));
    }
    if request.is_some() { exit::USAGE } else { exit::FAILED }
}

/// What somebody has typed that makes no sense, if that is what went wrong; also if it is the daemon that
/// noticed.
fn request<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a RequestError> {
    match error.downcast_ref::<Refusal>() {
        Some(Refusal::Request(error)) => Some(error),
        _ => error.downcast_ref::<RequestError>(),
    }
}

/// Logs what the verifier said, if it was asked.
pub fn log_of_verifier(error: &(dyn Error + 'static)) -> bool {
    let log = verifier_log(error);
    if let Some(log) = &log {
        tracing::debug!("the verifier's log: {log}");
    }
    log.is_some()
}

/// What could not be attached, and why.
pub fn refused(refused: &Refused) {
    if let Some((better, why)) = &refused.backend {
        say(&format!("not with the {} backend: {}", better.name(), one_line(why)));
        log_of_verifier(why);
    }
    for (hook, why) in &refused.hooks {
        say(&format!("left out {hook}: {}", one_line(why)));
        log_of_verifier(why);
    }
}

/// What to do about an error, if there is anything. Its causes are not looked at.
pub fn hint(error: &(dyn Error + 'static)) -> Option<String> {
    fixed_hint(error)
        .map(str::to_owned)
        .or_else(|| error.downcast_ref::<Refusal>().and_then(Refusal::hint))
        .or_else(|| error.downcast_ref::<RequestError>().and_then(RequestError::hint))
}

/// Hints that are the same words each time.
fn fixed_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    error
        .downcast_ref::<TracerError>()
        .and_then(TracerError::hint)
        .or_else(|| error.downcast_ref::<DumpError>().and_then(DumpError::hint))
        .or_else(|| error.downcast_ref::<DiagError>().and_then(DiagError::hint))
        .or_else(|| error.downcast_ref::<ReserveError>().and_then(ReserveError::hint))
        .or_else(|| error.downcast_ref::<Obstacle>().and_then(Obstacle::hint))
        .or_else(|| error.downcast_ref::<StoreError>().and_then(StoreError::hint))
        .or_else(|| error.downcast_ref::<ClientError>().and_then(ClientError::hint))
        .or_else(|| error.downcast_ref::<ConfigError>().and_then(ConfigError::hint))
}
