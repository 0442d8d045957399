//! `ucr daemon`: trace for months, keep what is gone, answer questions.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{exit, report::say};
use crate::{
    daemon::{
        config::{Config, DEFAULT_FILE, example},
        log,
        privileges::{KEPT, Table},
        run,
    },
    render::output::unless_broken_pipe,
};

/// Trace for as long as it runs, keep a history of what is gone, and answer questions
///
/// Attaches tracing, or takes over what is attached, and follows it. Runs in the foreground, as a service manager
/// wants it; SIGTERM ends it, SIGHUP makes it read its configuration again. `ucr status`, `ls`, `who`,
/// `history`, `graph` and `trace` ask it by its control socket.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = format!("Capabilities that it keeps:\n{}", Table(&KEPT)))]
pub struct DaemonArgs {
    /// The configuration; without it, /etc/ucr/ucr.toml if there is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print a configuration with all keys, their meaning and their defaults, and end
    #[arg(long, conflicts_with = "check_config")]
    print_config: bool,
    /// Only check the configuration
    #[arg(long)]
    check_config: bool,
}

/// Runs the verb.
///
/// # Errors
/// What is wrong with the configuration; what keeps the daemon from starting.
pub fn run(args: &DaemonArgs) -> anyhow::Result<ExitCode> {
    if args.print_config {
        unless_broken_pipe(io::stdout().write_all(example().as_bytes()))?;
        return Ok(ExitCode::from(exit::OK));
    }
    let config = Config::find(args.config.as_deref())?;
    if args.check_config {
        match (&args.config, Path::new(DEFAULT_FILE).exists()) {
            (Some(file), _) => say(&format!("{} is in order", file.display())),
            (None, true) => say(&format!("{DEFAULT_FILE} is in order")),
            (None, false) => say(&format!("there is no {DEFAULT_FILE}: the defaults hold")),
        }
        return Ok(ExitCode::from(exit::OK));
    }
    log::begin(config.log.level);
    run::run(config, args.config.as_deref())?;
    Ok(ExitCode::from(exit::OK))
}
