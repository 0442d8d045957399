//! `ucr check`: would a dump succeed?

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;

use super::{collect::CollectOptions, exit};
use crate::{
    causes::one_line,
    dump::external::Then,
    image, lock,
    model::Pid,
    render::{check::Report, dump::Table, obstacle::Placed, output::unless_broken_pipe},
    tracer::pins::PinDirectory,
};

/// Say whether a dump would succeed, and what to do about everything that is in its way
///
/// Does what `ucr dump` does, up to and without writing the image: the process stands still for a moment and
/// goes on. Exit status: 0 a dump would succeed, 3 it would be refused, 1 the process cannot be looked at.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// The process
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    pid: i32,
    #[command(flatten)]
    collect: CollectOptions,
    /// As if the dump were to end the process or tree (it ends nothing): then it cannot keep sockets for itself
    #[arg(long)]
    kill: bool,
    /// Sockets, obstacles with hints, and verdicts as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// See [`crate::dump::dump`]; an image that is too large. The process goes on.
pub fn run(args: &CheckArgs, pins: &PinDirectory) -> anyhow::Result<ExitCode> {
    let then = if args.kill { Then::End } else { Then::GoOn };
    let collected = args.collect.collect(Pid(args.pid), then, lock::USUAL, pins)?;
    // The last thing at which a dump can fail, but for the file.
    let encoded = match collected.is_refused() {
        true => None,
        false => Some(image::encode(&collected.dumped.image).context("encode the image")?),
    };
    let table = Table::of(&collected.dumped);
    let obstacles = Placed::of(&collected.dumped);
    // Before anything is printed: a terminal may be slow, and the processes stand still.
    let stopped = collected.dumped.go_on();
    let report = Report {
        table,
        obstacles,
        hopeless: collected.hopeless.map(|error| one_line(&error)),
        verify: args.collect.verify,
        bytes: encoded.map(|image| u64::try_from(image.len()).unwrap_or(u64::MAX)),
        stopped,
    };
    let mut out = io::stdout().lock();
    let written = match args.json {
        true => writeln!(out, "{:#}", report.json()),
        false => write!(out, "{report}"),
    };
    unless_broken_pipe(written.and_then(|()| out.flush())).context("write to standard output")?;
    Ok(ExitCode::from(if report.bytes.is_some() { exit::OK } else { exit::REFUSED }))
}
