//! `ucr refresh`: new sockets for a running program, in the place of those that it has.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;

use super::ahead::{Unmade, make};
use super::collect::{CollectOptions, Collected};
use super::dump::{say_left_out, say_why_not};
use super::exit;
use super::into::{replace, tell};
use super::report::say;
use super::restore::{left_behind, plural, refuse};
use crate::dump::Dump;
use crate::dump::external::{Policy, Rule};
use crate::dump::obstacle::{Obstacle, Reason, are_of_ucr};
use crate::kernel::interrupts::HeldBack;
use crate::model::{Pid, View};
use crate::process::{parasite::Known, procfs, state::NotRestorable};
use crate::render::{dump::Table, obstacle::Placed, output::unless_broken_pipe};
use crate::restore::into::Target;
use crate::restore::into::ahead::{Ahead, alone, is_put_aside};
use crate::restore::names::Foreign;
use crate::sys::guard::Barrier;
use crate::tracer::pins::PinDirectory;

/// Take the sockets out from under a running program and put new ones in their place
///
/// The process or tree is stopped, its sockets are dumped, made anew, verified, and put under the same descriptor
/// numbers; what watches them (epoll) watches the new ones; then it goes on, and notices nothing. Both ends of a
/// unix connection are replaced if both are in the process or tree. One with a process outside stays as it is
/// (--external keep, unless said otherwise). The other end of a TCP connection is kept waiting meanwhile. If anything is in the way, or fails, or ucr is killed, the old sockets
/// are still there. Abstract names are refused: nobody else can have one as long as the old socket lives.
#[derive(Clone, Debug, clap::Args)]
pub struct RefreshArgs {
    /// The process
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pid: i32,
    #[command(flatten)]
    collect: CollectOptions,
    /// What was done, as JSON
    #[arg(long)]
    json: bool,
}

/// How long the program may take to let those in who wait for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it runs until it is looked at again, at first; each time twice as long, up to [`LONGEST`]. (Nothing tells
/// when a queue is empty.)
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(50);
/// How long it runs each time somebody else who is a ucr has to do with its sockets: whoever sets back what one had
/// changed that was killed does so at once, but has to come to a processor.
const UNTIL_SET_BACK: [Duration; 5] = {
    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }
    [ms(25), ms(50), ms(100), ms(200), ms(400)]
};

struct Patience {
    ends: Instant,
    pause: Duration,
}

impl Patience {
    fn begin() -> Self {
        Self { ends: Instant::now() + PATIENCE, pause: PAUSE }
    }

    fn is_left(&self) -> bool {
        Instant::now() < self.ends
    }

    fn pause(&mut self) {
        thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(LONGEST);
    }
}

/// Says why nothing is replaced.
fn refused(args: &RefreshArgs, collected: Collected) -> ExitCode {
    let Collected { dumped, hopeless, .. } = collected;
    let (table, obstacles) = (Table::of(&dumped), Placed::of(&dumped));
    let left_out = dumped.left_out.clone();
    // Before anything is printed: a terminal may be slow.
    drop(dumped);
    say_left_out(&left_out);
    say_why_not(&table, &obstacles, true, args.collect.verify, "nothing was replaced");
    if let Some(error) = hopeless {
        say(&format!("refused: it could not be restored: {error}; nothing was replaced"));
    }
    ExitCode::from(exit::REFUSED)
}

/// Whether something is in the way only because both the old listener and the new one are there.
fn is_its_own(ahead: &Ahead, obstacle: &Obstacle) -> bool {
    let Reason::Setting { setting } = &obstacle.reason else { return false };
    *setting == NotRestorable::ReuseportProgram.to_string() && ahead.has(obstacle.inode)
}

/// How many connections are just being made with the old listeners, of which the program knows nothing yet.
fn half_made(ahead: &Ahead, dumped: &Dump) -> usize {
    let own = dumped.inventory.inet.iter().filter(|stock| ahead.has(stock.held.inode));
    own.map(|stock| usize::try_from(stock.details.half_made).unwrap_or_default()).sum()
}

/// Runs the verb. `look` takes a snapshot of the live unix sockets.
///
/// # Errors
///
/// What failed; the old sockets are there and the processes go on.
pub fn run(
    args: &RefreshArgs,
    pins: &PinDirectory,
    look: impl Fn() -> anyhow::Result<View> + Sync,
) -> anyhow::Result<ExitCode> {
    let options = args.collect.or_external(Rule::any(Policy::Keep));
    let mut known = Known::default();
    let pid = Pid(args.pid);
    let likely =
        if args.collect.is_tree() { procfs::tree(pid).unwrap_or_default() } else { vec![pid] };
    known.learn(&likely);
    // Between two stops as well something may have to be taken back. Before what takes back: it is let go of last.
    let signals = HeldBack::begin().context("hold back signals")?;
    let barrier = Rc::new(Barrier::new().context("make a pipe")?);
    let mut ahead: Option<Ahead> = None;
    let mut patience = Patience::begin();
    let mut until_set_back = UNTIL_SET_BACK.into_iter();
    // By the sockets of a ucr that was killed, which are just closed.
    let mut was_shared = false;
    let (replaced, pids, broken_off) = loop {
        if let Some(signal) = signals.came() {
            bail!("interrupted by {signal}: nothing was replaced");
        }
        let own = ahead.as_ref().map(Ahead::references).unwrap_or_default();
        let mut collected = options.collect_beside(pid, own, pins)?;
        if let Some(ahead) = &ahead {
            collected.overlook(|obstacle| is_its_own(ahead, obstacle));
        }
        let obstacles = &collected.dumped.obstacles;
        if (are_of_ucr(obstacles) || ahead.is_none() && is_put_aside(&collected.dumped.image))
            && let Some(pause) = until_set_back.next()
        {
            drop(collected);
            // Nothing tells when another process lets go of a socket; the program runs.
            thread::sleep(pause);
            continue;
        }
        let is_passing = !obstacles.is_empty() && obstacles.iter().all(Obstacle::is_passing);
        let alone = if ahead.is_none() { alone(&collected.dumped.image) } else { None };
        if collected.is_refused() && !(is_passing && (alone.is_some() || patience.is_left())) {
            return Ok(refused(args, collected));
        }
        let is_refused = collected.is_refused();
        let half_made = ahead.as_ref().map_or(0, |ahead| half_made(ahead, &collected.dumped));
        let standstill = collected.dumped.stay();
        let pids: Vec<Pid> = standstill.frozen.pids().to_vec();
        if known.lacks(&pids) && patience.is_left() {
            drop(standstill);
            patience.pause();
            continue;
        }
        let targets: Vec<_> = pids.iter().map(|pid| Target { saved: *pid, pid: *pid }).collect();
        if let Some(alone) = alone {
            match make(&alone, standstill, &mut known, &targets, &barrier, &look)? {
                Ok(made) => ahead = Some(made),
                Err(Unmade::Shared(_)) if !was_shared => {
                    was_shared = true;
                    // Nothing tells when a socket is gone that no descriptor of ours leads to; the program runs.
                    thread::sleep(LONGEST);
                }
                Err(Unmade::Shared(obstacles)) => {
                    refuse(&obstacles);
                    return Ok(ExitCode::from(exit::REFUSED));
                }
                Err(Unmade::Refused(status)) => return Ok(ExitCode::from(status)),
            }
            continue;
        }
        let is_awaited = ahead.as_ref().is_some_and(|ahead| ahead.is_awaited(&standstill.image));
        if is_refused || (is_awaited || half_made > 0) && patience.is_left() {
            // The program takes what waits for it. It is not stopped in vain: each time its connections lose packets.
            drop(standstill);
            patience.pause();
            while let Some(ahead) = &ahead
                && patience.is_left()
                && ahead.is_awaited_now().context("poll the old sockets")?
            {
                patience.pause();
            }
            continue;
        }
        if is_awaited {
            drop(standstill);
            say("refused: the program does not take what waits at one of its sockets");
            return Ok(ExitCode::from(exit::REFUSED));
        }
        let done = replace(
            standstill,
            &mut known,
            &targets,
            Foreign::Refuse,
            ahead.as_mut(),
            &barrier,
            look,
        )?;
        match done {
            Ok(replaced) => break (replaced, pids, half_made),
            Err(status) => return Ok(ExitCode::from(status)),
        }
    };
    // With it go our own descriptors, before anything is printed.
    let left = ahead.take().map(|mut ahead| ahead.restored.finish()).unwrap_or_default();
    drop(signals);
    if broken_off > 0 {
        let count = plural(broken_off, "connection");
        say(&format!("warning: {count} not made in time: who asked for it has to ask again"));
    }
    left_behind(&left);
    if args.json {
        let value = json!({
            "pids": pids.iter().map(|pid| pid.0).collect::<Vec<_>>(),
            "sockets": replaced.sockets,
            "replaced": replaced.sockets - replaced.kept,
            "kept": replaced.kept,
            "descriptors": replaced.placed.descriptors,
            "registrations": replaced.placed.registrations,
            "stopped_ms": replaced.stopped.as_secs_f64() * 1000.0,
        });
        let mut out = io::stdout().lock();
        let written = writeln!(out, "{value:#}").and_then(|()| out.flush());
        unless_broken_pipe(written).context("write to standard output")?;
    }
    tell(&replaced, pids.len());
    Ok(ExitCode::from(exit::OK))
}
