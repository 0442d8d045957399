//! `ucr features`: what this kernel offers.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;

use super::exit;
use crate::{
    features,
    render::{features::Shown, output::unless_broken_pipe},
};

/// Find out by trying what this kernel offers, and which backend would be used
///
/// Never fails for lack of a feature; what cannot be found out is said to be unknown.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct FeaturesArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// Standard output that cannot be written.
pub fn run(args: &FeaturesArgs) -> anyhow::Result<ExitCode> {
    let report = features::probe();
    let mut out = io::stdout().lock();
    let written = if args.json {
        let text = serde_json::to_string_pretty(&report).context("turn the report into JSON")?;
        writeln!(out, "{text}")
    } else {
        write!(out, "{}", Shown(&report))
    };
    unless_broken_pipe(written.and_then(|()| out.flush())).context("write to standard output")?;
    Ok(ExitCode::from(exit::OK))
}
