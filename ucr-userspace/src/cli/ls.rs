//! `ucr ls`: live sockets and who holds them.

use std::{mem::ManuallyDrop, process::ExitCode};

use clap::builder::PossibleValuesParser;

use super::{
    access::{Access, AccessArgs, Kernel},
    ask,
    listing::{ListingArgs, all_of, any_of},
};
use crate::{
    daemon::protocol::About,
    inspect::{
        columns::{DEFAULTS, columns},
        picture::{Condition, Picture},
    },
    kernel::clock,
    query::listing::{Request, list_into},
    tracer::{pins::PinDirectory, programs::Scope},
};

/// List live unix sockets with both ends and who holds them
///
/// Asks the kernel at this moment; what was tracked (who made it, when: `-o +created,creator.comm`) is there
/// if tracing is attached. A condition given several times is met by any of its values; all conditions must
/// be met.
#[derive(Clone, Debug, clap::Args)]
pub struct LsArgs {
    #[command(flatten)]
    conditions: Conditions,
    #[command(flatten)]
    listing: ListingArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// Which live sockets.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Which sockets")]
pub struct Conditions {
    /// Held by this process (by its pid in the initial pid namespace)
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// Held by a command with such a name
    #[arg(long, value_name = "GLOB")]
    comm: Vec<String>,
    /// With such a name (an abstract one begins with @; odd bytes are written as \xNN)
    #[arg(long, value_name = "GLOB")]
    name: Vec<String>,
    /// Whose other end is held by such a command, or by this process
    #[arg(long, value_name = "GLOB|PID")]
    peer: Vec<String>,
    /// In this state
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(Condition::NAMES))]
    state: Vec<String>,
    /// Of this type
    #[arg(long = "type", value_name = "TYPE", value_parser = ["stream", "dgram", "seqpacket"])]
    types: Vec<String>,
    /// In this network namespace, by its inode number (implies --all-netns)
    #[arg(long, value_name = "INODE")]
    netns: Vec<u32>,
    /// Held by a process in such a control group
    #[arg(long, value_name = "GLOB")]
    cgroup: Vec<String>,
    /// Held by this user's process
    #[arg(long, value_name = "NAME|UID")]
    user: Vec<String>,
    /// Sockets of all network namespaces
    #[arg(long)]
    all_netns: bool,
}

impl Conditions {
    /// As a filter over the columns of live sockets.
    #[must_use]
    pub fn filter(&self) -> Option<String> {
        let numbers = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>();
        all_of([
            any_of("pid", "==", &numbers(&self.pid)),
            any_of("comm", "=~", &self.comm),
            any_of("name", "=~", &self.name),
            either("peer.pid", "peer.comm", "=~", &self.peer),
            any_of("state", "==", &self.state),
            any_of("type", "==", &self.types),
            any_of("netns", "==", &numbers(&self.netns)),
            any_of("cgroup", "=~", &self.cgroup),
            either("uid", "user", "==", &self.user),
        ])
    }

    /// Which namespaces are looked at.
    #[must_use]
    pub fn scope(&self) -> Scope {
        // What a process holds is asked for, wherever it is: what it accepts is in its client's namespace.
        if self.all_netns || !self.netns.is_empty() || !self.pid.is_empty() {
            Scope::AllNamespaces
        } else {
            Scope::OwnNamespace
        }
    }
}

/// Values that are numbers are meant for one column, all others for another.
fn either(number: &str, word: &str, operator: &str, values: &[String]) -> Option<String> {
    let (numbers, words): (Vec<String>, Vec<String>) =
        values.iter().cloned().partition(|value| value.parse::<u32>().is_ok());
    match (any_of(number, "==", &numbers), any_of(word, operator, &words)) {
        (Some(numbers), Some(words)) => Some(format!("({numbers} or {words})")),
        (numbers, words) => numbers.or(words),
    }
}

/// Runs the verb.
///
/// # Errors
/// A listing that makes no sense; nobody who answers.
pub fn run(args: &LsArgs, pins: &PinDirectory) -> anyhow::Result<ExitCode> {
    if args.listing.columns {
        return args.listing.print_columns(&columns());
    }
    args.listing.check(&columns(), &DEFAULTS)?;
    let request = args.listing.request(&DEFAULTS, args.conditions.filter());
    let scope = args.conditions.scope();
    match args.access.open(pins)? {
        Access::Kernel(kernel) => taken(&kernel, &request, scope, &args.listing),
        Access::Daemon(client) => {
            let about = About::Live { listing: request, scope };
            let (found, notes) = ask::listing(client, about)?;
            args.listing.print_listing(found, &notes)
        }
    }
}

/// Looks, and prints what is there.
fn taken(
    kernel: &Kernel,
    request: &Request,
    scope: Scope,
    listing: &ListingArgs,
) -> anyhow::Result<ExitCode> {
    let picture = Picture::take(&kernel.programs, kernel.store.as_ref(), scope)?;
    // The process is about to end: to free every socket would only take time.
    let picture = ManuallyDrop::new(picture);
    let mut output = listing.sink();
    let extent = list_into(picture.entries(), &columns(), request, clock::realtime(), &mut output)?;
    let output = ManuallyDrop::new(output.with(extent));
    listing.print(&output, extent, &picture.incomplete)
}
