//! `ucr trace`: follow what happens, live.

use std::{ops::ControlFlow, process::ExitCode, time::Duration};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    access::{AccessArgs, Via},
    exit,
    report::{self, say},
};
use crate::{
    causes::one_line,
    daemon::{
        answer,
        client::{Client, ClientError},
        frame,
        protocol::{About, LONGEST_REPLY, Reply, Wanted},
    },
    render::{
        event,
        output::{Writer, Written, unless_broken_pipe},
    },
    tracer::{
        TracerError,
        error::may_load,
        event::{KINDS, TraceEvent},
        filter::{Kind, pattern},
        follow::{Told, follow},
        hooks::{Backend, Choice},
        object::{LogLevel, Sizes},
        pins::PinDirectory,
        session,
        store::{self, Store},
    },
};

/// Follow unix, TCP and UDP sockets being made, named, connected, accepted, shut down and closed
///
/// Follows the daemon if one follows attached tracing, which several can at once; else attached tracing itself,
/// which one can; otherwise traces for as long as it runs and leaves
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
    comm: Vec<String>,
    /// Only about such a name (an abstract one begins with @; odd bytes are written as \xNN), or such an address
    /// with its port, at either end
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    name: Vec<String>,
    /// Only in this network namespace, by its inode number
    #[arg(long, value_name = "INODE")]
    netns: Vec<u32>,
    /// Only about unix sockets of this type, or internet sockets with this protocol
    #[arg(long = "type", value_name = "TYPE", value_parser = Kind::ALL.map(|(name, _)| name))]
    types: Vec<String>,
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
    #[command(flatten)]
    access: AccessArgs,
}

fn glob(text: &str) -> Result<String, globset::Error> {
    pattern(text).map(|_| text.to_owned())
}

impl TraceArgs {
    fn wanted(&self) -> Wanted {
        Wanted {
            pids: self.pid.clone(),
            comms: self.comm.clone(),
            names: self.name.clone(),
            netns: self.netns.clone(),
            types: self.types.clone(),
            kinds: self.event.clone(),
            failed: self.failed,
        }
    }
}

/// Runs the verb.
///
/// # Errors
/// See [`session::open`], [`session::trace_privately`] and [`follow`]; the daemon's refusal.
pub fn run(args: &TraceArgs, pins: &PinDirectory) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    if let Some(client) = daemon(args, pins)? {
        unread_log(args);
        runtime.block_on(hear(args, client))?;
        return Ok(ExitCode::from(exit::OK));
    }
    match session::open_as(pins, args.backend) {
        Ok(mut store) => {
            unread_log(args);
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

fn unread_log(args: &TraceArgs) {
    if args.ebpf_log != LogLevel::Off {
        say("--ebpf-log shows nothing: tracing was attached without logging");
    }
}

/// The daemon, if it is the one who has the events: who may read the pins asks only the one that follows
/// there.
fn daemon(args: &TraceArgs, pins: &PinDirectory) -> anyhow::Result<Option<Client>> {
    // What backend the daemon has, only it knows: then the pins are asked, which say it if it is another.
    if args.access.via == Via::Kernel || args.backend.is_some() && args.access.via == Via::Auto {
        return Ok(None);
    }
    let client = match (args.access.via, Client::connect(&args.access.control)) {
        (_, Ok(client)) => client,
        (Via::Auto, Err(ClientError::NotThere { .. })) => return Ok(None),
        (Via::Auto, Err(_)) if may_load() => return Ok(None),
        (_, Err(error)) => return Err(error.into()),
    };
    if args.access.via == Via::Daemon || !may_load() {
        return Ok(Some(client));
    }
    let follower = session::status(pins).ok().and_then(|status| status.follower);
    Ok((follower.is_some() && follower == client.daemon()).then_some(client))
}

type EbpfLog = aya_log::EbpfLogger<&'static dyn log::Log>;

/// What is shown, and what was counted.
struct Screen<'a> {
    args: &'a TraceArgs,
    out: Writer,
    shown: u64,
    lost: u64,
}

impl<'a> Screen<'a> {
    fn new(args: &'a TraceArgs) -> Self {
        Self { args, out: Writer::start(), shown: 0, lost: 0 }
    }

    /// Shows an event that is wanted; whether more are.
    fn show(&mut self, told: &TraceEvent) -> ControlFlow<()> {
        let line = if self.args.json {
            event::json(told).to_string()
        } else {
            event::Line(told).to_string()
        };
        match self.out.write(line) {
            Written::Taken => self.shown += 1,
            Written::TooMany => self.lost += 1,
            Written::Closed => return ControlFlow::Break(()),
        }
        if self.args.count == Some(self.shown) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn lose(&mut self, events: u64, why: &str) {
        self.lost += events;
        say(&format!("{events} events were lost: {why}"));
    }

    fn miss(&mut self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let time = humantime::format_duration(Duration::from_millis(millis));
        say(&format!(
            "for up to {time} no events were written, since this follower, or the whole machine, stood still: what \
             happened then is neither shown nor counted"
        ));
    }

    fn finish(self) -> anyhow::Result<()> {
        let (unwritten, written) = self.out.finish();
        say(&format!("{} events, {} lost", self.shown - unwritten, self.lost + unwritten));
        unless_broken_pipe(written).context("write events")
    }
}

const TOO_FAST: &str = "they came faster than they were read";

async fn show(
    args: &TraceArgs,
    store: &mut Store,
    events: aya::maps::RingBuf<aya::maps::MapData>,
    mut log: Option<EbpfLog>,
) -> anyhow::Result<()> {
    let filter = answer::filter(&args.wanted())?;
    let mut screen = Screen::new(args);
    let outcome = follow(store, events, |told| {
        match told {
            Told::Begun => say("following"),
            Told::Event(told) if filter.wants(&told) => return Ok(screen.show(&told)),
            Told::Event(_) => {}
            Told::Lost(events) => screen.lose(events, TOO_FAST),
            Told::Lapsed(time) => screen.miss(time),
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
    let shown = screen.finish();
    outcome?;
    shown
}

/// Shows what the daemon tells, until it has told enough, or a signal comes.
async fn hear(args: &TraceArgs, client: Client) -> anyhow::Result<()> {
    let socket = client.ask(About::Trace(args.wanted()))?.into_socket();
    socket.set_nonblocking(true).context("listen to the daemon")?;
    let socket = tokio::net::UnixStream::from_std(socket).context("listen to the daemon")?;
    let mut socket = tokio::io::BufReader::new(socket);
    let mut interrupted = signal(SignalKind::interrupt()).context("wait for signals")?;
    let mut terminated = signal(SignalKind::terminate()).context("wait for signals")?;
    let limit = u64::try_from(LONGEST_REPLY).unwrap_or(u64::MAX);
    let mut screen = Screen::new(args);
    let outcome = loop {
        let reply = tokio::select! {
            reply = frame::read::<Reply>(&mut socket, limit) => reply,
            // A message that was begun is of no more interest.
            _ = interrupted.recv() => break Ok(()),
            _ = terminated.recv() => break Ok(()),
        };
        let more = match reply {
            Ok(Reply::Following) => {
                say("following (by the daemon)");
                ControlFlow::Continue(())
            }
            Ok(Reply::Event(sent)) => match sent.event() {
                Some(told) => screen.show(&told),
                None => break Err(ClientError::OffTopic),
            },
            Ok(Reply::Lost(events)) => {
                screen.lose(events, TOO_FAST);
                ControlFlow::Continue(())
            }
            Ok(Reply::Missed(events)) => {
                screen.lose(events, "this reader was too slow");
                ControlFlow::Continue(())
            }
            Ok(Reply::Refused(refusal)) => break Err(ClientError::Refused(refusal)),
            Ok(_) => break Err(ClientError::OffTopic),
            Err(error) => break Err(error.into()),
        };
        if more.is_break() {
            break Ok(());
        }
    };
    let shown = screen.finish();
    outcome?;
    shown
}
