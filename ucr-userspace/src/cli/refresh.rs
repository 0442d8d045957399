//! `ucr refresh`: new sockets for a running program, in the place of those that it has.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use super::collect::{CollectOptions, Collected};
use super::dump::{say_left_out, say_why_not};
use super::exit;
use super::into::{replace, tell};
use super::report::say;
use crate::dump::external::{Policy, Rule, Then};
use crate::lock;
use crate::model::{Pid, View};
use crate::process::{parasite::Known, procfs};
use crate::render::{dump::Table, obstacle::Placed, output::unless_broken_pipe};
use crate::restore::into::Target;
use crate::restore::names::Foreign;
use crate::tracer::pins::PinDirectory;

/// Take the sockets out from under a running program and put new ones in their place
///
/// The process or tree is stopped, its sockets are dumped, made anew, verified, and put under the same descriptor
/// numbers; what watches them (epoll) watches the new ones; then it goes on, and notices nothing. Both ends of a
/// connection are replaced if both are in the process or tree. One with a process outside stays as it is
/// (--external keep, unless said otherwise). If anything is in the way, or fails, or ucr is killed, the old sockets
/// are still there. TCP, UDP and abstract names are refused: their addresses are not free as long as the old sockets
/// live.
#[derive(Clone, Debug, clap::Args)]
pub struct RefreshArgs {
    /// The process
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pid: i32,
    #[command(flatten)]
    collect: CollectOptions,
    /// What was done, as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb. `look` takes a snapshot of the live unix sockets.
///
/// # Errors
///
/// What failed; the old sockets are there and the processes go on.
pub fn run(
    args: &RefreshArgs,
    pins: &PinDirectory,
    look: impl Fn() -> anyhow::Result<View> + Sync,
) -> anyhow::Result<ExitCode> {
    let options = args.collect.or_external(Rule::any(Policy::Keep));
    let mut known = Known::default();
    let pid = Pid(args.pid);
    let likely =
        if args.collect.is_tree() { procfs::tree(pid).unwrap_or_default() } else { vec![pid] };
    known.learn(&likely);
    let collected = options.collect(pid, Then::GoOn, lock::USUAL, pins)?;
    if collected.is_refused() {
        let Collected { dumped, hopeless, .. } = collected;
        let (table, obstacles) = (Table::of(&dumped), Placed::of(&dumped));
        let left_out = dumped.left_out.clone();
        drop(dumped);
        say_left_out(&left_out);
        say_why_not(&table, &obstacles, true, args.collect.verify, "nothing was replaced");
        if let Some(error) = hopeless {
            say(&format!("refused: it could not be restored: {error}; nothing was replaced"));
        }
        return Ok(ExitCode::from(exit::REFUSED));
    }
    let standstill = collected.dumped.stay();
    let pids: Vec<Pid> = standstill.frozen.pids().to_vec();
    let targets: Vec<_> = pids.iter().map(|pid| Target { saved: *pid, pid: *pid }).collect();
    let replaced = match replace(standstill, known, &targets, Foreign::Refuse, look)? {
        Ok(replaced) => replaced,
        Err(status) => return Ok(ExitCode::from(status)),
    };
    if args.json {
        let value = json!({
            "pids": pids.iter().map(|pid| pid.0).collect::<Vec<_>>(),
            "sockets": replaced.sockets,
            "replaced": replaced.sockets - replaced.kept,
            "kept": replaced.kept,
            "descriptors": replaced.placed.descriptors,
            "registrations": replaced.placed.registrations,
            "stopped_ms": replaced.stopped.as_secs_f64() * 1000.0,
        });
        let mut out = io::stdout().lock();
        let written = writeln!(out, "{value:#}").and_then(|()| out.flush());
        unless_broken_pipe(written).context("write to standard output")?;
    }
    tell(&replaced, pids.len());
    Ok(ExitCode::from(exit::OK))
}
