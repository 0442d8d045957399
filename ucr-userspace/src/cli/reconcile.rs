//! `ucr reconcile`: hold the ledger of attached tracing against the kernel, and repair it.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;

use super::{exit, report::say};
use crate::{
    model::Count,
    render::output::unless_broken_pipe,
    tracer::{pins::PinDirectory, session},
};

/// Hold what was tracked against the kernel, and repair it
///
/// Needed after losses that `ucr status` shows, and for what the backend cannot see. Sockets that were
/// missing are added (without the history that nobody saw), those that are gone are removed, fields
/// that are wrong are corrected.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct ReconcileArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// See [`session::reconcile`].
pub fn run(args: ReconcileArgs, pins: &PinDirectory) -> anyhow::Result<ExitCode> {
    let done = session::reconcile(pins)?;
    for failed in &done.failed {
        say(&format!("warning: {failed}"));
    }
    let mut out = io::stdout().lock();
    let written = if args.json {
        let value = serde_json::to_value(&done).context("put the figures together")?;
        writeln!(out, "{value:#}")
    } else {
        writeln!(
            out,
            "{}: {} added, {} removed, {} repaired",
            Count(done.sockets, "socket"),
            done.added,
            done.removed,
            done.repaired
        )
    };
    unless_broken_pipe(written.and_then(|()| out.flush())).context("write to standard output")?;
    if done.no_room > 0 {
        say(&format!("{} sockets did not fit: attach with a larger --max-sockets", done.no_room));
    }
    if !done.settled {
        say(&format!("after {} passes there still was something to do: run it again", done.passes));
    }
    if done.unreachable > 0 {
        say(&format!(
            "{} sockets are in network namespaces that no task is in; their records were left as they are",
            done.unreachable
        ));
    }
    let whole = done.settled && done.no_room == 0 && done.failed.is_empty();
    Ok(ExitCode::from(if whole { exit::OK } else { exit::FAILED }))
}
