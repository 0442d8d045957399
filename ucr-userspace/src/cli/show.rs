//! `ucr show`: what an image holds.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::exit;
use crate::image::file;
use crate::render::{image, json, output};

/// Show what an image holds
#[derive(Clone, Debug, clap::Args)]
pub struct ShowArgs {
    /// The image
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print everything, exactly, as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the verb.
///
/// # Errors
///
/// A file that is no usable image; standard output that cannot be written.
pub fn run(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let image = file::read(&args.file)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if args.json {
        let whole = serde_json::to_writer_pretty(&mut out, &json::Image(&image));
        whole.map_err(io::Error::from).and_then(|()| writeln!(out))
    } else {
        write!(out, "{}", image::Shown(&image))
    };
    output::unless_broken_pipe(written.and_then(|()| out.flush()))
        .context("write to standard output")?;
    Ok(ExitCode::from(exit::OK))
}
