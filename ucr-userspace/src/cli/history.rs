//! `ucr history`: sockets that are gone, and past events.

use std::{path::PathBuf, process::ExitCode, time::SystemTime};

use super::{
    access::{DEFAULT_CONTROL, Via},
    ask,
    listing::{ListingArgs, all_of, any_of},
};
use crate::{
    daemon::{
        answer,
        client::{Client, ClientError},
        config::{Config, DEFAULT_FILE},
        protocol::{About, Gone},
    },
    history::{
        Reader, Span,
        columns::{self, events},
    },
    tracer::event::KINDS,
};

/// List sockets that are gone: who had them, when, how long, with whom
///
/// Asks the daemon, or, if none runs, reads its database. With --events the events themselves. What is
/// missing, since it came too fast, or while no daemon ran, is said after the list.
#[derive(Clone, Debug, clap::Args)]
pub struct HistoryArgs {
    /// From this moment on: a date and time (2026-11-25T10:00:00Z), or how long ago (2h, 3d)
    #[arg(long, value_name = "TIME", value_parser = moment, help_heading = "Which entries")]
    since: Option<u64>,
    /// Until this moment
    #[arg(long, value_name = "TIME", value_parser = moment, help_heading = "Which entries")]
    until: Option<u64>,
    /// Made, bound, opened or closed by this process; with --events: by this process
    #[arg(long, value_name = "PID", help_heading = "Which entries")]
    pid: Vec<u32>,
    /// By a command with such a name
    #[arg(long, value_name = "GLOB", help_heading = "Which entries")]
    comm: Vec<String>,
    /// With such a name (an abstract one begins with @; odd bytes are written as \xNN)
    #[arg(long, value_name = "GLOB", help_heading = "Which entries")]
    name: Vec<String>,
    /// Whose other end such a command, or this process, had
    #[arg(long, value_name = "GLOB|PID", help_heading = "Which entries")]
    peer: Vec<String>,
    /// Of this type
    #[arg(long = "type", value_name = "TYPE", value_parser = ["stream", "dgram", "seqpacket"], help_heading = "Which entries")]
    types: Vec<String>,
    /// In this network namespace, by its inode number
    #[arg(long, value_name = "INODE", help_heading = "Which entries")]
    netns: Vec<u32>,
    /// Events instead of sockets
    #[arg(long, help_heading = "Which entries")]
    events: bool,
    /// Only such events (implies --events)
    #[arg(long, value_name = "KIND", value_parser = KINDS, help_heading = "Which entries")]
    event: Vec<String>,
    #[command(flatten)]
    listing: ListingArgs,
    /// The daemon's control socket
    #[arg(long, env = "UCR_CONTROL", default_value = DEFAULT_CONTROL, value_name = "SOCKET")]
    control: PathBuf,
    /// Ask the daemon; or read its database, which root may
    #[arg(
        long,
        value_enum,
        default_value_t,
        env = "UCR_VIA",
        hide_possible_values = true,
        value_name = "auto|daemon|kernel"
    )]
    via: Via,
    /// The database to read; without it, what the daemon's configuration says
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// A moment, in nanoseconds since the epoch.
fn moment(text: &str) -> Result<u64, String> {
    let now = SystemTime::now();
    let moment = match humantime::parse_duration(text) {
        Ok(ago) => now.checked_sub(ago).ok_or("that is before time began")?,
        Err(_) => humantime::parse_rfc3339_weak(text)
            .map_err(|_| "give a time like 2026-11-25T10:00:00Z, or how long ago, like 2h")?,
    };
    let since = moment.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.map_err(|_| "that is before 1970".to_owned())?;
    u64::try_from(since.as_nanos()).map_err(|_| "that is too far away".to_owned())
}

impl HistoryArgs {
    fn kind(&self) -> Gone {
        if self.events || !self.event.is_empty() { Gone::Events } else { Gone::Sockets }
    }

    fn conditions(&self) -> Option<String> {
        let numbers = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>();
        let (pids, netns) = (numbers(&self.pid), numbers(&self.netns));
        let whoever = |part: &str, operator: &str, values: &[String]| {
            let deeds = ["creator", "binder", "opener", "closer"];
            let each = deeds.map(|deed| any_of(&format!("{deed}.{part}"), operator, values));
            let each: Vec<String> = each.into_iter().flatten().collect();
            (!each.is_empty()).then(|| format!("({})", each.join(" or ")))
        };
        let (numbers, words): (Vec<String>, Vec<String>) =
            self.peer.iter().cloned().partition(|value| value.parse::<u32>().is_ok());
        let by = match self.kind() {
            Gone::Sockets => [
                whoever("pid", "==", &pids),
                whoever("comm", "=~", &self.comm),
                any_of("peer.pid", "==", &numbers),
                any_of("peer.comm", "=~", &words),
            ],
            Gone::Events => [
                any_of("pid", "==", &pids),
                any_of("comm", "=~", &self.comm),
                any_of("event", "==", &self.event),
                None,
            ],
        };
        all_of(by.into_iter().chain([
            any_of("name", "=~", &self.name),
            any_of("type", "==", &self.types),
            any_of("netns", "==", &netns),
        ]))
    }

    /// The database: as it was given, else as the daemon's configuration has it.
    fn database(&self) -> anyhow::Result<PathBuf> {
        match &self.file {
            Some(file) => Ok(file.clone()),
            None => Ok(Config::find(None)?.history.file),
        }
    }
}

/// Runs the verb.
///
/// # Errors
/// A listing that makes no sense; no daemon and no database.
pub fn run(args: &HistoryArgs) -> anyhow::Result<ExitCode> {
    let kind = args.kind();
    if args.listing.columns {
        return match kind {
            Gone::Sockets => args.listing.print_columns(columns::all()),
            Gone::Events => args.listing.print_columns(events::all()),
        };
    }
    let defaults = match kind {
        Gone::Sockets => columns::DEFAULT.as_slice(),
        Gone::Events => events::DEFAULT.as_slice(),
    };
    match kind {
        Gone::Sockets => args.listing.check(columns::all(), defaults)?,
        Gone::Events => args.listing.check(events::all(), defaults)?,
    }
    let listing = args.listing.request(defaults, args.conditions());
    let (since, until) = (args.since, args.until);
    let client = match (args.via, &args.file) {
        (Via::Kernel, _) | (_, Some(_)) => None,
        (Via::Daemon, None) => Some(Client::connect(&args.control)?),
        (Via::Auto, None) => match Client::connect(&args.control) {
            Ok(client) => Some(client),
            Err(ClientError::NotThere { .. }) => None,
            Err(error) => return Err(error.into()),
        },
    };
    let (found, notes) = match client {
        Some(client) => ask::listing(client, About::History { kind, since, until, listing })?,
        None => {
            let reader = Reader::open(&args.database()?).map_err(|error| {
                anyhow::Error::new(error)
                    .context(format!("no daemon runs (its configuration is {DEFAULT_FILE})"))
            })?;
            answer::past(&reader, kind, Span { since, until }, &listing)?
        }
    };
    args.listing.print_listing(found, &notes)
}
