//! `ucr dump`: write the sockets of a process or tree to an image.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;

use super::{
    collect::{CollectOptions, Collected},
    exit,
    report::say,
};
use crate::{
    dump::{Dump, Verify, assemble::LeftOut, external::Then},
    image::file,
    kernel::interrupts::HeldBack,
    model::{Count, Pid},
    render::{
        dump::{Outcome, Table, UNPAIRED, json},
        obstacle::{Placed, hints},
        output::unless_broken_pipe,
    },
    tracer::pins::PinDirectory,
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
    /// The image to be written; an image that is there is replaced
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    collect: CollectOptions,
    /// End the process or tree once the image is safely written
    #[arg(long, conflicts_with = "leave_running")]
    kill: bool,
    /// Let the process or tree go on (the default)
    #[arg(long)]
    leave_running: bool,
    /// Leave the process or tree stopped (SIGSTOP) once the image is safely written, for `ucr restore --into`
    #[arg(long, conflicts_with_all = ["kill", "leave_running"])]
    leave_stopped: bool,
    /// For how long TCP connections stay locked at most: with --kill and --leave-stopped, until they are restored. The other end is
    /// kept waiting and learns nothing; when the time is over, what it sends is answered with a reset. As 90s, 10m, 2h
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    lock_for: Duration,
    /// Verdicts, obstacles and figures as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// See [`crate::dump::dump`] and [`file::write`]; the process goes on.
pub fn run(args: &DumpArgs, pins: &PinDirectory) -> anyhow::Result<ExitCode> {
    let pid = Pid(args.pid);
    let then = if args.kill { Then::End } else { Then::GoOn };
    let collected = args.collect.collect(pid, then, args.lock_for, pins)?;
    let is_refused = collected.is_refused();
    let Collected { dumped, hopeless, .. } = collected;
    let result = if is_refused { Ok(None) } else { write_image(args, &dumped).map(Some) };
    let shown = Table::of(&dumped);
    let mut inet = dumped.image.sockets.iter().filter_map(|socket| socket.inet.as_deref());
    let has_connections = inet.any(|inet| inet.tcp.is_some());
    let (obstacles, left_out) = (Placed::of(&dumped), dumped.left_out.clone());
    // Before anything is printed: a terminal may be slow, and the processes stand still.
    let stopped = match &result {
        Ok(Some(_)) if args.kill => {
            let _signals = HeldBack::begin().context("hold back signals")?;
            dumped.kill().with_context(|| format!("end process {pid}"))?
        }
        Ok(Some(_)) if args.leave_stopped => {
            dumped.leave_stopped().with_context(|| format!("leave process {pid} stopped"))?
        }
        _ => dumped.go_on(),
    };
    let outcome = Outcome {
        path: args.output.clone(),
        bytes: *result.as_ref().unwrap_or(&None),
        stopped,
        obstacles,
        left_out,
        locked_for: Some(args.lock_for).filter(|_| args.leave_stopped && has_connections),
    };
    print(args, &shown, &outcome)?;
    if let Some(error) = hopeless {
        say(&format!("refused: it could not be restored: {error}; nothing was written"));
    }
    let bytes = result?;
    Ok(ExitCode::from(if bytes.is_some() { exit::OK } else { exit::REFUSED }))
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("a lock of no time is none".to_owned()),
        result => result.map_err(|error| error.to_string()),
    }
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
    if let Some(why) = shown.unpaired() {
        say(&format!("note: {UNPAIRED} could not be looked up: {why}"));
    }
    say_left_out(&outcome.left_out);
    let is_refused = outcome.bytes.is_none();
    say_why_not(shown, &outcome.obstacles, is_refused, args.collect.verify, "nothing was written");
    if args.collect.verify == Verify::Warn && shown.has_conflicts() {
        say("warning: written as the kernel has it, in spite of the conflicts");
    }
    if let Some(bytes) = outcome.bytes {
        say(&shown.summary(&outcome.path, bytes, outcome.stopped));
        if let Some(time) = outcome.locked_for {
            let time = humantime::format_duration(time);
            say(&format!(
                "note: its TCP connections stay locked until `ucr restore --into`, or for {time}"
            ));
        }
    } else {
        say(&format!("stopped for {}", millis(outcome.stopped)));
    }
    Ok(())
}

/// Says what the user did not want.
pub(super) fn say_left_out(left_out: &[LeftOut]) {
    for LeftOut { local, remote } in left_out {
        say(&format!(
            "note: left out (--external): the connection from {remote} that {local} has not accepted"
        ));
    }
}

/// Says what is in the way of an image, with hints, and what follows.
pub(super) fn say_why_not(
    shown: &Table,
    obstacles: &[Placed],
    is_refused: bool,
    verify: Verify,
    outcome: &str,
) {
    for obstacle in obstacles {
        say(&format!("cannot dump {obstacle}"));
    }
    for (hint, others) in hints(obstacles) {
        let more = match others {
            0 => String::new(),
            others => format!(" ({others} more like it: `ucr check` has a hint for each)"),
        };
        say(&format!("hint: {hint}{more}"));
    }
    if !obstacles.is_empty() {
        let obstacles = Count(obstacles.len(), "obstacle");
        say(&format!("refused: {obstacles}; {outcome}"));
    } else if is_refused && is_refused_by_verdict(shown, verify) {
        say(&format!("refused: what was tracked and what the kernel says disagree; {outcome}"));
        say(
            "hint: `ucr reconcile` repairs what was tracked; --verify warn goes on as the kernel has it",
        );
    }
}

fn is_refused_by_verdict(shown: &Table, verify: Verify) -> bool {
    verify == Verify::Strict && shown.has_conflicts()
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
