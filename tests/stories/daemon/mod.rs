//! The daemon, which must not lose the truth, and has to run for months: killed, short of room, with a
//! damaged database, with hostile clients; and what it tells of all that.

mod damaged;
mod ending;
mod figures;
mod full_disk;
mod hostile;
mod killed;
mod losing;
mod reloading;
mod rights;
mod second;
mod service;

use std::{
    collections::BTreeSet,
    io::Read as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use ucr::{
    daemon::{
        client::Client,
        protocol::{About, Reply},
        status::{HistoryStatus, Status},
    },
    history::{Gap, GapReason, Gone, Order, Past, Reader, Span},
    tracer::store::Store,
};
use ucr_tests::{World, daemon::Daemon, wait};

/// Events of a pair of sockets: it is made, and two ends are closed.
const EVENTS_OF_PAIR: u64 = 3;

/// A process that makes and closes pairs of sockets until it is told to end.
struct Storm {
    child: Child,
}

impl Drop for Storm {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Storm {
    /// So many pairs a second; 0: as many as it can.
    fn start(rate: u32) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_victim"));
        command.args(["crowd", "storm", &rate.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self { child: command.spawn().expect("start a storm") }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it; how many pairs it has made.
    fn calm(mut self) -> u64 {
        drop(self.child.stdin.take());
        assert!(wait::for_end(&mut self.child).success());
        let mut said = String::new();
        let mut pipe = self.child.stdout.take().expect("its output");
        pipe.read_to_string(&mut said).expect("what it said");
        let made = said.trim().strip_prefix("done ").and_then(|made| made.parse().ok());
        made.unwrap_or_else(|| panic!("{said}"))
    }
}

/// All that a history has.
struct Kept {
    gone: Vec<Gone>,
    events: Vec<Past>,
    gaps: Vec<Gap>,
}

impl Kept {
    fn read(history: &Path) -> Self {
        let reader = Reader::open(history).expect("open the history");
        let gone = reader.gone(Span::ALL, Order::OldestFirst).expect("search the history");
        let events = reader.events(Span::ALL, Order::OldestFirst).expect("search the history");
        Self {
            gone: gone.map(|found| found.expect("a closed socket").entry).collect(),
            events: events.map(|found| found.expect("an event").entry).collect(),
            gaps: gaps(history),
        }
    }

    /// How many events of a process there are.
    fn events_of(&self, pid: u32) -> u64 {
        self.events.iter().filter(|event| event.actor.pid == pid).count() as u64
    }

    /// How many sockets there are that a process had made.
    fn gone_of(&self, pid: u32) -> u64 {
        let is_its = |gone: &&Gone| gone.creator.as_ref().is_some_and(|creator| creator.pid == pid);
        self.gone.iter().filter(is_its).count() as u64
    }

    /// That no event and no end of a socket was written down twice.
    fn has_nothing_twice(&self) {
        let mut seen = BTreeSet::new();
        for event in &self.events {
            let Past { time, actor, kind, fd, .. } = event;
            assert!(seen.insert((*time, actor.tid, *kind, *fd)), "twice: {event:?}");
        }
        let mut seen = BTreeSet::new();
        for gone in self.gone.iter().filter(|gone| gone.inode.is_some()) {
            assert!(seen.insert((gone.closed_at, gone.inode, gone.cookie)), "twice: {gone:?}");
        }
    }
}

fn gaps(history: &Path) -> Vec<Gap> {
    let reader = Reader::open(history).expect("open the history");
    let gaps = reader.gaps(Span::ALL).expect("read the gaps");
    gaps.into_iter().map(|found| found.entry).collect()
}

/// How many events gaps say to be missing, for one reason.
fn missing(gaps: &[Gap], reason: GapReason) -> u64 {
    gaps.iter().filter(|gap| gap.reason == reason).filter_map(|gap| gap.lost).sum()
}

/// How many events there were while somebody followed, or meant to: each has a number.
fn numbered(ledger: &Store) -> u64 {
    ledger.next_numbers().expect("read the numbers").iter().map(|(_, next)| next).sum()
}

/// Waits until the history of a daemon that has seen all of a tracing has come to the end of what there is:
/// each event that had a number is there, or in a gap. So none is in it twice, either.
fn settled(world: &World, daemon: &Daemon<'_>) {
    let ledger = world.ucr.ledger();
    let history = daemon.history();
    let mut seen = (0, 0, 0);
    let is_whole = wait::holds(|| {
        let all = numbered(&ledger);
        let figures = Reader::open(&history).and_then(|reader| reader.figures());
        let kept = figures.expect("the history's figures").events.entries;
        seen = (all, kept, missing(&gaps(&history), GapReason::Lost));
        seen.1 + seen.2 == all && numbered(&ledger) == all
    });
    assert!(is_whole, "{} events, {} in the history, {} in gaps", seen.0, seen.1, seen.2);
}

/// How a daemon is.
fn status(daemon: &Daemon<'_>) -> Status {
    daemon.status().expect("the daemon's answer")
}

/// How its history is.
fn history(daemon: &Daemon<'_>) -> HistoryStatus {
    status(daemon).history.expect("a history")
}

/// Its figures, as text.
fn metrics(daemon: &Daemon<'_>) -> String {
    let client = Client::connect(&daemon.control()).expect("connect to the daemon");
    let mut answers = client.ask(About::Metrics).expect("ask the daemon");
    match answers.hear().expect("hear the daemon") {
        Some(Reply::Text(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// A figure, by its name and labels; 0 if it is not told.
fn figure(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap_or_else(|_| panic!("{name} {value}")))
}

/// Resident memory of a process, in bytes.
fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number") << 10
}
