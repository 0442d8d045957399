//! `ucr attach`: start tracing, and leave no process behind.

use std::process::ExitCode;

use super::{
    exit,
    report::{self, say},
};
use crate::{
    causes::one_line,
    model::Count,
    tracer::{
        hooks::Choice,
        object::Sizes,
        pins::{Mounted, PinDirectory},
        session,
    },
};

/// Start tracing; it goes on in the kernel, and no process stays behind
#[derive(Clone, Debug, clap::Args)]
pub struct AttachArgs {
    #[command(flatten)]
    choice: Choice,
    /// Size of the event ring buffer in bytes: a power of two, at least 4096
    #[arg(long, value_name = "N", default_value_t = Sizes::default().ring_bytes, value_parser = ring_size)]
    ring_bytes: u32,
    /// Most sockets that the ledger holds
    #[arg(long, value_name = "N", default_value_t = Sizes::default().sockets, value_parser = clap::value_parser!(u32).range(1..))]
    max_sockets: u32,
}

fn ring_size(text: &str) -> Result<u32, String> {
    let size: u32 = text.parse().map_err(|e| format!("{e}"))?;
    if size.is_power_of_two() && size >= 4096 {
        Ok(size)
    } else {
        Err("it must be a power of two and at least 4096".to_owned())
    }
}

/// Runs the verb.
///
/// # Errors
/// See [`session::attach`].
pub fn run(args: &AttachArgs, pins: &PinDirectory) -> anyhow::Result<ExitCode> {
    let sizes = Sizes {
        ring_bytes: args.ring_bytes,
        sockets: args.max_sockets,
        found: args.max_sockets,
        ..Sizes::default()
    };
    let attached = session::attach(pins, &args.choice, sizes)?;
    if attached.mounted == Mounted::ByUs {
        say("mounted a bpf file system at /sys/fs/bpf");
    }
    report::refused(&attached.refused);
    for failed in &attached.seeded.failed {
        say(&format!("warning: {}", one_line(failed)));
    }
    say(&format!(
        "tracing is attached at {} with the {} backend; {} in {} known from before",
        pins.path().display(),
        attached.backend.name(),
        Count(attached.sockets, "socket"),
        Count(attached.seeded.namespaces.len(), "network namespace"),
    ));
    Ok(ExitCode::from(exit::OK))
}
