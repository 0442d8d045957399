//! `ucr detach`: stop tracing.

use std::process::ExitCode;

use super::{exit, report::say};
use crate::{
    lock::kept,
    tracer::{pins::PinDirectory, session},
};

/// Stop tracing and forget what was tracked
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct DetachArgs {}

/// Runs the verb.
///
/// # Errors
/// See [`session::detach`].
pub fn run(_args: &DetachArgs, pins: &PinDirectory) -> anyhow::Result<ExitCode> {
    kept::take_off_old();
    session::detach(pins)?;
    say(&format!("tracing is detached from {}", pins.path().display()));
    Ok(ExitCode::from(exit::OK))
}
