//! Becomes the perl that forks.

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

const PROGRAM: &str = include_str!("forker.pl");

/// Executes it: the signal that comes when our parent dies is kept.
pub(crate) fn run(folder: &Path, seed: u64) -> Result<()> {
    let mut perl = Command::new("perl");
    perl.args(["-e", PROGRAM]).arg(folder).arg((seed >> 32).to_string()).stdin(Stdio::null());
    Err(perl.exec()).context("execute perl")
}
