//! The command line: one file for each verb. They decide nothing: they read arguments, call the
//! library, and print.

pub mod access;
pub mod ahead;
pub mod ask;
pub mod attach;
pub mod check;
pub mod collect;
pub mod daemon;
pub mod detach;
pub mod dump;
pub mod exit;
pub mod features;
pub mod generate;
pub mod graph;
pub mod history;
pub mod into;
pub mod listing;
pub mod ls;
pub mod reconcile;
pub mod refresh;
pub mod report;
pub mod restore;
pub mod show;
pub mod status;
pub mod trace;
pub mod who;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{
    snapshot::diag::unix_sockets,
    tracer::pins::{self, PinDirectory},
};

/// Watch unix sockets being born, named and paired; dump the sockets of a process to an image;
/// bring them back
///
/// Exit status: 0 done, 1 failed, 2 the command line makes no sense, 3 refused (what is in the way
/// has been listed).
#[derive(Debug, Parser)]
#[command(name = "ucr", version, arg_required_else_help = true)]
struct Cli {
    /// Where the maps and links of attached tracing are pinned, on a bpf file system
    #[arg(long, global = true, env = "UCR_PIN_DIR", default_value = pins::DEFAULT, value_name = "DIR")]
    pin_dir: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Features(features::FeaturesArgs),
    Attach(attach::AttachArgs),
    Detach(detach::DetachArgs),
    Status(status::StatusArgs),
    Daemon(daemon::DaemonArgs),
    Ls(ls::LsArgs),
    Who(who::WhoArgs),
    History(history::HistoryArgs),
    Graph(graph::GraphArgs),
    Reconcile(reconcile::ReconcileArgs),
    Trace(trace::TraceArgs),
    Check(check::CheckArgs),
    Dump(dump::DumpArgs),
    Show(show::ShowArgs),
    Restore(restore::RestoreArgs),
    Refresh(refresh::RefreshArgs),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
}

/// Runs the program: what `main` does.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // The daemon has a way of its own.
    if !matches!(cli.verb, Verb::Daemon(_)) {
        report::log_to_stderr();
    }
    let pins = PinDirectory::new(cli.pin_dir);
    let outcome = match &cli.verb {
        Verb::Features(args) => features::run(args),
        Verb::Attach(args) => attach::run(args, &pins),
        Verb::Detach(args) => detach::run(args, &pins),
        Verb::Status(args) => status::run(args, &pins),
        Verb::Daemon(args) => daemon::run(args),
        Verb::History(args) => history::run(args),
        Verb::Graph(args) => graph::run(args, &pins),
        Verb::Ls(args) => ls::run(args, &pins),
        Verb::Who(args) => who::run(args, &pins),
        Verb::Reconcile(args) => reconcile::run(*args, &pins),
        Verb::Trace(args) => trace::run(args, &pins),
        Verb::Check(args) => check::run(args, &pins),
        Verb::Dump(args) => dump::run(args, &pins),
        Verb::Show(args) => show::run(args),
        Verb::Restore(args) => restore::run(args, &pins, || Ok(unix_sockets()?)),
        Verb::Refresh(args) => refresh::run(args, &pins, || Ok(unix_sockets()?)),
        Verb::Completions(args) => generate::completions(*args, Cli::command()),
        Verb::Man(args) => generate::man(args, Cli::command()),
    };
    outcome.unwrap_or_else(|error| ExitCode::from(report::error(&error)))
}
