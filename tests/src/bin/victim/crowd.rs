//! `victim crowd …`: very many sockets, or very many events, for benchmarks.
//!
//! ```text
//! crowd pairs COUNT                     makes COUNT socketpairs
//! crowd serve FOLDER LISTENERS COUNT    listeners FOLDER/0.sock …, at which it accepts COUNT connections
//! crowd connect FOLDER LISTENERS COUNT  connects COUNT times, to each listener as often as to another
//! crowd busy RATE SECONDS               makes and closes RATE socketpairs a second; 0: as many as it can
//! crowd storm RATE                      the same until standard input ends
//! ```
//!
//! What is made is kept until standard input ends: a line `ready` says that all is there. `serve` says
//! `listening` first; `busy` ends by itself, and `storm` when it is told, with `done COUNT`.

use std::{
    io::{self, Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How many pairs come in one go before the clock is looked at.
const BATCH: u64 = 16;

/// Runs one part of the crowd.
pub(crate) fn run(arguments: &[&str]) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    match arguments {
        ["pairs", count] => keep(&pairs(number(count)?)?),
        ["serve", folder, listeners, count] => {
            keep(&serve(Path::new(folder), number(listeners)?, number(count)?)?)
        }
        ["connect", folder, listeners, count] => {
            keep(&connect(Path::new(folder), number(listeners)?, number(count)?)?)
        }
        ["busy", rate, seconds] => {
            let time = Duration::from_secs(number(seconds)?);
            busy(number(rate)?, |since| since.elapsed() < time)
        }
        ["storm", rate] => storm(number(rate)?),
        _ => Err(io::Error::other("usage: see the head of crowd.rs")),
    }
}

fn number<T: FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| io::Error::other(format!("`{text}` is no number")))
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Holds what was made until nobody wants it any more.
fn keep(_made: &[OwnedFd]) -> io::Result<()> {
    say("ready")?;
    io::stdin().lock().read_to_end(&mut Vec::new()).map(drop)
}

fn pairs(count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut made = Vec::with_capacity(2 * count);
    for _ in 0..count {
        let (a, b) = UnixStream::pair()?;
        made.extend([OwnedFd::from(a), b.into()]);
    }
    Ok(made)
}

/// Each listener's path, and how many connect to it. Both sides go through them in this order.
fn shares(folder: &Path, listeners: usize, count: usize) -> Vec<(PathBuf, usize)> {
    let share = |at: usize| count / listeners + usize::from(at < count % listeners);
    (0..listeners).map(|at| (folder.join(format!("{at}.sock")), share(at))).collect()
}

fn serve(folder: &Path, listeners: usize, count: usize) -> io::Result<Vec<OwnedFd>> {
    let shares = shares(folder, listeners, count);
    let bound = shares.iter().map(|(path, share)| Ok((UnixListener::bind(path)?, *share)));
    let bound = bound.collect::<io::Result<Vec<_>>>()?;
    say("listening")?;
    let mut made = Vec::with_capacity(listeners + count);
    for (listener, share) in bound {
        for _ in 0..share {
            made.push(listener.accept()?.0.into());
        }
        made.push(listener.into());
    }
    Ok(made)
}

fn connect(folder: &Path, listeners: usize, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut made = Vec::with_capacity(count);
    for (path, share) in shares(folder, listeners, count) {
        for _ in 0..share {
            made.push(UnixStream::connect(&path)?.into());
        }
    }
    Ok(made)
}

fn storm(rate: u64) -> io::Result<()> {
    let has_ended = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&has_ended);
    thread::spawn(move || {
        let _told = io::stdin().lock().read_to_end(&mut Vec::new());
        tell.store(true, Ordering::Relaxed);
    });
    busy(rate, |_| !has_ended.load(Ordering::Relaxed))
}

/// Makes and closes pairs, evenly over the time.
fn busy(rate: u64, goes_on: impl Fn(Instant) -> bool) -> io::Result<()> {
    let start = Instant::now();
    let mut made = 0_u64;
    while goes_on(start) {
        for _ in 0..BATCH {
            drop(UnixStream::pair()?);
        }
        made += BATCH;
        if let Some(due) = Duration::from_secs(made).as_nanos().checked_div(rate.into()) {
            let due = Duration::from_nanos(u64::try_from(due).unwrap_or(u64::MAX));
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
    say(&format!("done {made}"))
}
