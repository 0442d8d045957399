//! `ucr status`: what is attached.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde_json::json;
use ucr_common::control::counter;

use super::exit;
use crate::{
    kernel::clock,
    render::{
        json::path,
        output::unless_broken_pipe,
        time::{Duration, Utc},
    },
    tracer::{
        pins::PinDirectory,
        session::{self, Status},
    },
};

/// Say what is attached, since when, how many sockets are tracked and what was lost
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct StatusArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// See [`session::status`]: also that nothing is attached.
pub fn run(args: &StatusArgs, pins: &PinDirectory) -> anyhow::Result<ExitCode> {
    let status = session::status(pins)?;
    let mut out = io::stdout().lock();
    let written = if args.json {
        let counters: serde_json::Map<_, _> =
            status.counters.iter().map(|(name, n)| ((*name).to_owned(), json!(n))).collect();
        let value = json!({
            "attached": true,
            "pin_dir": path(pins.path()),
            "backend": status.backend,
            "attached_at_ns_since_boot": status.attached_at,
            "attached_at": clock::to_realtime(status.attached_at) / 1_000_000_000,
            "attached_by": status.attached_by,
            "hooks": status.hooks,
            "left_out": status.left_out,
            "sockets": status.sockets,
            "follower": status.follower,
            "counters": counters,
            "lost_by_cpu": status.lost_by_cpu,
            "missed": status.missed,
            "reconciled_at_ns_since_boot": (status.reconciled_at > 0).then_some(status.reconciled_at),
            "blind_spots": status.backend.blind_spots(),
        });
        writeln!(out, "{value:#}")
    } else {
        print(&mut out, &status, pins)
    };
    unless_broken_pipe(written.and_then(|()| out.flush()))?;
    Ok(ExitCode::from(exit::OK))
}

fn print(out: &mut impl Write, status: &Status, pins: &PinDirectory) -> io::Result<()> {
    let since = clock::to_realtime(status.attached_at);
    let age = Duration(clock::boottime().saturating_sub(status.attached_at));
    writeln!(out, "tracing   attached at {}", pins.path().display())?;
    writeln!(out, "since     {} ({age}), by process {}", Utc(since), status.attached_by)?;
    writeln!(out, "backend   {}: {}", status.backend.name(), status.hooks.join(", "))?;
    if !status.left_out.is_empty() {
        writeln!(out, "left out  {}", status.left_out.join(", "))?;
    }
    writeln!(out, "sockets   {}", status.sockets)?;
    let follower = status.follower.map_or("nobody".to_owned(), |pid| format!("process {pid}"));
    writeln!(out, "follower  {follower}")?;
    for ((name, value), (_, meaning)) in status.counters.iter().zip(counter::MEANINGS) {
        // What should not happen is shown once it does.
        if *value > 0 || matches!(*name, "emitted" | "lost") {
            writeln!(out, "{name:<9} {value} ({meaning})")?;
        }
    }
    if status.lost_by_cpu.iter().any(|lost| *lost > 0) {
        let by_cpu: Vec<String> = status
            .lost_by_cpu
            .iter()
            .enumerate()
            .filter(|(_, lost)| **lost > 0)
            .map(|(cpu, lost)| format!("{lost} on CPU {cpu}"))
            .collect();
        writeln!(out, "          lost: {}", by_cpu.join(", "))?;
    }
    match status.missed {
        Some(0) => {}
        Some(missed) => writeln!(out, "missed    {missed} (events of interrupted programs)")?,
        None => writeln!(out, "missed    not told by this kernel")?,
    }
    if status.reconciled_at > 0 {
        writeln!(out, "checked   {} (reconciled)", Utc(clock::to_realtime(status.reconciled_at)))?;
    }
    writeln!(out, "cannot see:")?;
    status.backend.blind_spots().iter().try_for_each(|spot| writeln!(out, "  - {spot}"))
}
