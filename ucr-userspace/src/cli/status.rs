//! `ucr status`: what is attached.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde_json::json;
use ucr_common::control::counter;

use super::{
    access::{AccessArgs, Via},
    ask, exit,
    report::say,
};
use crate::{
    causes::one_line,
    daemon::{
        client::{Client, ClientError},
        status::Status as Daemon,
    },
    kernel::clock,
    model::{Count, name::Escaped},
    render::{
        json::path,
        output::unless_broken_pipe,
        time::{Duration, Utc},
    },
    tracer::{
        error::may_load,
        pins::PinDirectory,
        session::{self, Status},
    },
};

/// Say what is attached, since when, how many sockets are tracked and what was lost; and how the daemon is
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the verb.
///
/// # Errors
/// See [`session::status`]: also that nothing is attached. That no daemon runs is none, unless it was asked
/// for.
pub fn run(args: &StatusArgs, pins: &PinDirectory) -> anyhow::Result<ExitCode> {
    let asked = match args.access.via {
        Via::Kernel => None,
        Via::Auto | Via::Daemon => {
            Some(Client::connect(&args.access.control).and_then(ask::status))
        }
    };
    let daemon = match asked {
        None => None,
        Some(Ok(status)) => Some(status),
        Some(Err(ClientError::NotThere { .. })) if args.access.via == Via::Auto => None,
        // What the kernel says is wanted most when the daemon does not answer.
        Some(Err(error)) if args.access.via == Via::Auto && may_load() => {
            say(&format!("warning: the daemon: {}", one_line(&error)));
            None
        }
        Some(Err(error)) => return Err(error.into()),
    };
    // Who may not look at the pins is told what the daemon says.
    let status = match (session::status(pins), &daemon) {
        (Err(_), Some(daemon)) if args.access.via == Via::Daemon || !may_load() => {
            let mut out = io::stdout().lock();
            let written = if args.json {
                writeln!(out, "{:#}", json!({ "daemon": daemon_json(daemon) }))
            } else {
                print_daemon(&mut out, daemon)
            };
            unless_broken_pipe(written.and_then(|()| out.flush()))?;
            return Ok(ExitCode::from(exit::OK));
        }
        (status, _) => status?,
    };
    let mut out = io::stdout().lock();
    let written = if args.json {
        let counters: serde_json::Map<_, _> =
            status.counters.iter().map(|(name, n)| ((*name).to_owned(), json!(n))).collect();
        let value = json!({
            "attached": true,
            "pin_dir": path(pins.path()),
            "backend": status.backend,
            "attached_at_ns_since_boot": status.attached_at,
            "attached_at": clock::to_realtime(status.attached_at) / 1_000_000_000,
            "attached_by": status.attached_by,
            "hooks": status.hooks,
            "left_out": status.left_out,
            "sockets": status.sockets,
            "follower": status.follower,
            "kept_for_later": status.kept_for_later,
            "counters": counters,
            "lost_by_cpu": status.lost_by_cpu,
            "missed": status.missed,
            "reconciled_at_ns_since_boot": (status.reconciled_at > 0).then_some(status.reconciled_at),
            "blind_spots": status.backend.blind_spots(),
            "daemon": daemon.as_ref().map(daemon_json),
        });
        writeln!(out, "{value:#}")
    } else {
        print(&mut out, &status, pins).and_then(|()| match &daemon {
            Some(daemon) => print_daemon(&mut out, daemon),
            None => Ok(()),
        })
    };
    unless_broken_pipe(written.and_then(|()| out.flush()))?;
    Ok(ExitCode::from(exit::OK))
}

fn print(out: &mut impl Write, status: &Status, pins: &PinDirectory) -> io::Result<()> {
    let since = clock::to_realtime(status.attached_at);
    let age = Duration(clock::boottime().saturating_sub(status.attached_at));
    writeln!(out, "tracing   attached at {}", pins.path().display())?;
    writeln!(out, "since     {} ({age}), by process {}", Utc(since), status.attached_by)?;
    writeln!(out, "backend   {}: {}", status.backend.name(), status.hooks.join(", "))?;
    if !status.left_out.is_empty() {
        writeln!(out, "left out  {}", status.left_out.join(", "))?;
    }
    writeln!(out, "sockets   {}", status.sockets)?;
    let follower = match status.follower {
        Some(pid) => format!("process {pid}"),
        None if status.kept_for_later => "nobody; events wait for the next daemon".to_owned(),
        None => "nobody".to_owned(),
    };
    writeln!(out, "follower  {follower}")?;
    for ((name, value), (_, meaning)) in status.counters.iter().zip(counter::MEANINGS) {
        // What should not happen is shown once it does.
        if *value > 0 || matches!(*name, "emitted" | "lost") {
            writeln!(out, "{name:<9} {value} ({meaning})")?;
        }
    }
    if status.lost_by_cpu.iter().any(|lost| *lost > 0) {
        let by_cpu: Vec<String> = status
            .lost_by_cpu
            .iter()
            .enumerate()
            .filter(|(_, lost)| **lost > 0)
            .map(|(cpu, lost)| format!("{lost} on CPU {cpu}"))
            .collect();
        writeln!(out, "          lost: {}", by_cpu.join(", "))?;
    }
    match status.missed {
        Some(0) => {}
        Some(missed) => writeln!(out, "missed    {missed} (events of interrupted programs)")?,
        None => writeln!(out, "missed    not told by this kernel")?,
    }
    if status.reconciled_at > 0 {
        writeln!(out, "checked   {} (reconciled)", Utc(clock::to_realtime(status.reconciled_at)))?;
    }
    writeln!(out, "cannot see:")?;
    status.backend.blind_spots().iter().try_for_each(|spot| writeln!(out, "  - {spot}"))
}

fn print_daemon(out: &mut impl Write, daemon: &Daemon) -> io::Result<()> {
    let age = Duration(clock::realtime().saturating_sub(daemon.since));
    writeln!(out, "daemon    process {}, ucr {}", daemon.pid, daemon.version)?;
    writeln!(out, "  since     {} ({age})", Utc(daemon.since))?;
    let cpu = std::time::Duration::from_nanos(daemon.cpu);
    let mib = daemon.memory / (1 << 20);
    writeln!(out, "  uses      {mib} MiB, {:.1} s of processor time", cpu.as_secs_f64())?;
    writeln!(out, "  events    {} read, {} lost", daemon.events, daemon.lost)?;
    let (waiting, size) = daemon.ring;
    writeln!(out, "  ring      {waiting} of {size} bytes wait to be read")?;
    writeln!(
        out,
        "  followers {}; {} missed by slow ones",
        daemon.followers,
        Count(daemon.missed, "event")
    )?;
    let refused: u64 = daemon.refused.iter().map(|(_, count)| count).sum();
    writeln!(
        out,
        "  clients   {}; {} answered, {refused} refused",
        daemon.clients,
        Count(daemon.requests, "question")
    )?;
    for (why, count) in &daemon.refused {
        writeln!(out, "            refused: {count} ({})", why.replace('_', " "))?;
    }
    match (daemon.reconciled_at, &daemon.reconciliation_failed) {
        (_, Some(why)) => writeln!(out, "  checked   could not be: {}", Escaped(why.as_bytes()))?,
        (Some(at), None) => {
            let times = Count(daemon.reconciliations, "time");
            writeln!(out, "  checked   {} ({times})", Utc(at))?;
        }
        (None, None) => writeln!(out, "  checked   not yet")?,
    }
    let Some(history) = &daemon.history else {
        return writeln!(out, "  history   none is kept");
    };
    writeln!(out, "  history   {}", Escaped(history.file.as_bytes()))?;
    let oldest = history.oldest.map_or_else(String::new, |at| format!(" since {}", Utc(at)));
    writeln!(
        out,
        "            {} in {}{oldest}; {} forgotten, {}",
        Count(history.entries, "entry"),
        Count(history.bytes, "byte"),
        history.forgotten,
        Count(history.gaps, "gap")
    )?;
    if let Some(trouble) = &history.trouble {
        writeln!(out, "            not written now: {}", Escaped(trouble.as_bytes()))?;
    }
    if history.unkept > 0 {
        writeln!(out, "            {} could not be kept", Count(history.unkept, "entry"))?;
    }
    history.damaged.iter().try_for_each(|path| {
        writeln!(out, "            was damaged, and moved to {}", Escaped(path.as_bytes()))
    })
}

fn daemon_json(daemon: &Daemon) -> serde_json::Value {
    let mut value = json!(daemon);
    let time = |nanoseconds: u64| json!(Utc(nanoseconds).to_string());
    if let Some(fields) = value.as_object_mut() {
        let (waiting, size) = daemon.ring;
        fields.insert("since".to_owned(), time(daemon.since));
        fields.insert("ring".to_owned(), json!({ "waiting": waiting, "size": size }));
        let refused = daemon.refused.iter().map(|(why, n)| (why.clone(), json!(n)));
        fields.insert("refused".to_owned(), refused.collect::<serde_json::Map<_, _>>().into());
        fields.insert("reconciled_at".to_owned(), json!(daemon.reconciled_at.map(time)));
        if let (Some(history), Some(oldest)) = (
            fields.get_mut("history").and_then(serde_json::Value::as_object_mut),
            daemon.history.as_ref().and_then(|history| history.oldest),
        ) {
            history.insert("oldest".to_owned(), time(oldest));
        }
    }
    value
}
