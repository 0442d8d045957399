//! `ucr trace`: follow what happens, live.

use std::{ops::ControlFlow, process::ExitCode};

use anyhow::Context as _;
use globset::{Glob, GlobMatcher};

use super::{
    exit,
    report::{self, say},
};
use crate::{
    causes::one_line,
    model::{Pid, SocketType},
    render::{
        event,
        output::{Writer, Written, unless_broken_pipe},
    },
    tracer::{
        TracerError,
        event::KINDS,
        filter::{EventFilter, Failed},
        follow::{Told, follow},
        hooks::{Backend, Choice},
        object::{LogLevel, Sizes},
        pins::PinDirectory,
        session,
        store::{self, Store},
    },
};

/// Follow unix sockets being made, named, connected, accepted, shut down and closed
///
/// Follows attached tracing if there is one; otherwise traces for as long as it runs and leaves
/// nothing behind. A condition given several times is met by any of its values; all conditions
/// must be met.
#[derive(Clone, Debug, clap::Args)]
pub struct TraceArgs {
    /// How to trace; if not given, as tracing is attached, or else the best that this kernel has
    #[arg(long, value_enum, env = "UCR_BACKEND")]
    backend: Option<Backend>,
    /// One JSON object for each event, a line each
    #[arg(long)]
    json: bool,
    /// Only by this process (by its pid in the initial pid namespace)
    #[arg(long, value_name = "PID")]
    pid: Vec<i32>,
    /// Only by threads with such a name
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    comm: Vec<GlobMatcher>,
    /// Only about such a name (an abstract one begins with @; odd bytes are written as \xNN)
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    name: Vec<GlobMatcher>,
    /// Only in this network namespace, by its inode number
    #[arg(long, value_name = "INODE")]
    netns: Vec<u32>,
    /// Only about sockets of this type
    #[arg(long = "type", value_name = "TYPE", value_parser = socket_type)]
    types: Vec<SocketType>,
    /// Only such events
    #[arg(long, value_name = "KIND", value_parser = KINDS)]
    event: Vec<String>,
    /// Also calls that failed
    #[arg(long)]
    failed: bool,
    /// End after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Show what the eBPF programs themselves log (only where tracing is not attached)
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    ebpf_log: LogLevel,
}

fn glob(text: &str) -> Result<GlobMatcher, globset::Error> {
    Glob::new(text).map(|glob| glob.compile_matcher())
}

fn socket_type(text: &str) -> Result<SocketType, String> {
    [SocketType::Stream, SocketType::Dgram, SocketType::Seqpacket]
        .into_iter()
        .find(|kind| kind.to_string() == text)
        .ok_or_else(|| "it must be stream, dgram or seqpacket".to_owned())
}

impl TraceArgs {
    fn filter(&self) -> EventFilter {
        EventFilter {
            pids: self.pid.iter().copied().map(Pid).collect(),
            comms: self.comm.clone(),
            names: self.name.clone(),
            netns: self.netns.clone(),
            types: self.types.clone(),
            kinds: self.event.clone(),
            failed: if self.failed { Failed::Shown } else { Failed::Hidden },
        }
    }
}

/// Runs the verb.
///
/// # Errors
/// See [`session::open`], [`session::trace_privately`] and [`follow`].
pub fn run(args: &TraceArgs, pins: &PinDirectory) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    match session::open_as(pins, args.backend) {
        Ok(mut store) => {
            if args.ebpf_log != LogLevel::Off {
                say("--ebpf-log shows nothing: tracing was attached without logging");
            }
            let events = store::open_events(&pins.maps())?;
            runtime.block_on(show(args, &mut store, events, None))?;
        }
        Err(TracerError::NotAttached { .. }) => {
            let choice = Choice { backend: args.backend, ..Choice::default() };
            let mut private = session::trace_privately(&choice, Sizes::default(), args.ebpf_log)?;
            report::refused(&private.refused);
            for failed in &private.seeded.failed {
                say(&format!("warning: {}", one_line(failed)));
            }
            let events = store::take_events(&mut private.object)?;
            let log = match args.ebpf_log {
                LogLevel::Off => None,
                _ => Some(private.object.logger()?),
            };
            runtime.block_on(show(args, &mut private.store, events, log))?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::from(exit::OK))
}

type EbpfLog = aya_log::EbpfLogger<&'static dyn log::Log>;

async fn show(
    args: &TraceArgs,
    store: &mut Store,
    events: aya::maps::RingBuf<aya::maps::MapData>,
    mut log: Option<EbpfLog>,
) -> anyhow::Result<()> {
    let filter = args.filter();
    let mut out = Writer::start();
    let (mut shown, mut lost) = (0_u64, 0_u64);
    let outcome = follow(store, events, |told| {
        match told {
            Told::Begun => say("following"),
            Told::Event(told) if filter.wants(&told) => {
                let line = if args.json {
                    event::json(&told).to_string()
                } else {
                    event::Line(&told).to_string()
                };
                match out.write(line) {
                    Written::Taken => shown += 1,
                    Written::TooMany => lost += 1,
                    Written::Closed => return Ok(ControlFlow::Break(())),
                }
                if args.count == Some(shown) {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Told::Event(_) => {}
            Told::Lost(events) => {
                lost += events;
                say(&format!("{events} events were lost: they came faster than they were read"));
            }
            Told::Unknown => say("an event of unknown shape was skipped"),
            Told::Idle => {
                if let Some(log) = &mut log {
                    log.flush();
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    })
    .await;
    let (unwritten, written) = out.finish();
    say(&format!("{} events, {} lost", shown - unwritten, lost + unwritten));
    outcome?;
    unless_broken_pipe(written).context("write events")
}
