//! `ucr dump`: write the sockets of a process or tree to an image.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;

use super::{exit, report::say};
use crate::{
    dump::{
        Dump, dump,
        external::{Rule, Rules},
    },
    image::file,
    kernel::interrupts::HeldBack,
    model::{Count, Pid},
    process::freeze::Scope,
    render::{
        dump::{Outcome, Table, json},
        output::unless_broken_pipe,
    },
    restore::plan::plan,
    tracer::{hooks::Backend, pins::PinDirectory},
};

/// Write the sockets of a process to an image, checked against what was tracked
///
/// The process stands still meanwhile and goes on afterwards. Each socket gets a verdict:
/// confirmed (seen live, and the kernel agrees), predates the tracer, only tracked, only in the
/// snapshot, or conflict. What cannot be dumped is listed, all of it, and then nothing is written.
#[derive(Clone, Debug, clap::Args)]
pub struct DumpArgs {
    /// The process
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pid: i32,
    /// With all its descendants
    #[arg(long)]
    tree: bool,
    /// The image to be written; an image that is there is replaced
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What a disagreement between what was tracked and what the kernel says means
    #[arg(long, value_enum, default_value_t)]
    verify: Verify,
    /// Check against what this backend has tracked; snapshot: against nothing, only the kernel is asked
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    /// What becomes of connections with processes that are not dumped: refuse (the default), reconnect (by
    /// the peer's name), dangling (the peer seems to have closed), keep (the very socket, from a process
    /// that still has it); also NAME=POLICY with * in the peer's name, or inode:N=POLICY
    #[arg(long, value_name = "[NAME=]POLICY")]
    external: Vec<Rule>,
    /// End the process or tree once the image is safely written
    #[arg(long, conflicts_with = "leave_running")]
    kill: bool,
    /// Let the process or tree go on (the default)
    #[arg(long)]
    leave_running: bool,
    /// Verdicts, obstacles and figures as JSON
    #[arg(long)]
    json: bool,
}

/// What a conflict means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Verify {
    /// Refuse: nothing is written
    #[default]
    Strict,
    /// Say so and write the image as the kernel has it
    Warn,
    /// Write the image as the kernel has it
    Off,
}

/// Runs the verb.
///
/// # Errors
/// See [`dump`] and [`file::write`]; the process goes on.
pub fn run(args: &DumpArgs, pins: &PinDirectory) -> anyhow::Result<ExitCode> {
    let scope = if args.tree { Scope::Tree } else { Scope::Process };
    let pid = Pid(args.pid);
    let rules = Rules::from(args.external.clone());
    let mut dumped = dump(pid, scope, pins, args.backend, &rules)
        .with_context(|| format!("dump process {pid}"))?;
    let refused = !dumped.obstacles.is_empty() || is_disputed(&dumped, args.verify);
    // What cannot be brought back is not ended.
    let result = match plan(&dumped.image) {
        _ if refused => Ok(None),
        Ok(_) => write_image(args, &dumped).map(Some),
        Err(impossible) => {
            Err(impossible).context("find an order in which all of it can come back")
        }
    };
    let shown = Table::of(&dumped);
    let obstacles = std::mem::take(&mut dumped.obstacles);
    // Before anything is printed: a terminal may be slow, and the processes stand still.
    let stopped = match &result {
        Ok(Some(_)) if args.kill => dumped.kill().with_context(|| format!("end process {pid}"))?,
        _ => dumped.go_on(),
    };
    let outcome = Outcome {
        path: args.output.clone(),
        bytes: *result.as_ref().unwrap_or(&None),
        stopped,
        obstacles,
    };
    print(args, &shown, &outcome)?;
    let bytes = result?;
    Ok(ExitCode::from(if bytes.is_some() { exit::OK } else { exit::REFUSED }))
}

/// Whether the verdicts forbid to write: somebody has it wrong, or lacks it.
fn is_disputed(dumped: &Dump, verify: Verify) -> bool {
    verify == Verify::Strict
        && dumped.is_checked()
        && dumped.judged.iter().any(|judged| judged.verdict.is_disagreement())
}

/// Writes the image. Signals wait meanwhile, so that Ctrl-C leaves no temporary file behind.
fn write_image(args: &DumpArgs, dumped: &Dump) -> anyhow::Result<u64> {
    let _signals = HeldBack::begin().context("hold back signals")?;
    file::write(&args.output, &dumped.image)
        .with_context(|| format!("write image {}", args.output.display()))
}

fn print(args: &DumpArgs, shown: &Table, outcome: &Outcome) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = if args.json {
        writeln!(out, "{:#}", json(shown, outcome))
    } else {
        write!(out, "{shown}")
    };
    unless_broken_pipe(written.and_then(|()| out.flush())).context("write to standard output")?;
    for obstacle in &outcome.obstacles {
        say(&format!("cannot dump {obstacle}"));
    }
    if !outcome.obstacles.is_empty() {
        let obstacles = Count(outcome.obstacles.len(), "obstacle");
        say(&format!("refused: {obstacles}; nothing was written"));
    } else if outcome.bytes.is_none() && is_refused_by_verdict(shown, args.verify) {
        say("refused: what was tracked and what the kernel says disagree; nothing was written");
        say(
            "hint: `ucr reconcile` repairs what was tracked; --verify warn writes the image as the \
             kernel has it",
        );
    }
    if args.verify == Verify::Warn && shown.has_conflicts() {
        say("warning: written as the kernel has it, in spite of the conflicts");
    }
    if let Some(bytes) = outcome.bytes {
        say(&shown.summary(&outcome.path, bytes, outcome.stopped));
    } else {
        say(&format!("stopped for {}", millis(outcome.stopped)));
    }
    Ok(())
}

fn is_refused_by_verdict(shown: &Table, verify: Verify) -> bool {
    verify == Verify::Strict && shown.has_conflicts()
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
