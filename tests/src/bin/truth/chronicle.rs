//! What was heard of each sock: the events of the ring buffer, the last few for each address. It is
//! told when something is wrong, and reading it makes the tracer report events at all.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ucr::{
    model::name::Escaped,
    tracer::{event::TraceEvent, store},
};
use ucr_common::control::Lease;

use crate::judge::Tracing;

/// How many events of an address are remembered.
const REMEMBERED: usize = 24;

/// Keeps it, in a thread of its own.
pub(crate) struct Chronicle {
    pages: Arc<Mutex<Pages>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Chronicle {
    /// Begins to follow the events.
    pub(crate) fn begin(tracing: &mut Tracing) -> Result<Self> {
        let events =
            store::take_events(&mut tracing.private.object).context("take the ring buffer")?;
        let ready = events.as_fd().try_clone_to_owned().context("watch the ring buffer")?;
        // Never to be renewed: tracing ends with this process.
        let lease = Lease { until: u64::MAX, follower: std::process::id(), started: 0 };
        tracing.private.store.set_lease(lease)?;
        let pages =
            Arc::new(Mutex::new(Pages { events, notes: HashMap::new(), heard: BTreeMap::new() }));
        let stop = Arc::new(AtomicBool::new(false));
        let reader = {
            let (pages, stop) = (Arc::clone(&pages), Arc::clone(&stop));
            thread::spawn(move || read(&pages, &stop, &ready))
        };
        Ok(Self { pages, stop, reader: Some(reader) })
    }

    /// Everything remembered of an address, oldest first; whoever had it.
    pub(crate) fn of(&self, sk: u64) -> Vec<String> {
        let mut pages = lock(&self.pages);
        pages.read();
        let notes = pages.notes.get(&sk);
        notes.map(|notes| notes.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    /// What was heard altogether, on the whole machine: each kind of event, how often, and how often it
    /// failed.
    pub(crate) fn summary(&self) -> String {
        let mut pages = lock(&self.pages);
        pages.read();
        let heard = pages.heard.iter();
        let words = heard.map(|(kind, (all, failed))| format!("{kind} {all} ({failed} failed)"));
        words.collect::<Vec<_>>().join(", ")
    }
}

impl Drop for Chronicle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // If it panicked it has said so itself.
            reader.join().ok();
        }
    }
}

fn lock(pages: &Mutex<Pages>) -> MutexGuard<'_, Pages> {
    pages.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(pages: &Mutex<Pages>, stop: &AtomicBool, ready: &OwnedFd) {
    while !stop.load(Ordering::Relaxed) {
        let mut wanted = [PollFd::new(ready.as_fd(), PollFlags::POLLIN)];
        // Interrupted or not: it is looked.
        poll(&mut wanted, PollTimeout::from(50_u8)).ok();
        lock(pages).read();
    }
}

struct Pages {
    events: RingBuf<MapData>,
    notes: HashMap<u64, VecDeque<Note>>,
    /// How often, and how often of these it failed.
    heard: BTreeMap<&'static str, (u64, u64)>,
}

impl Pages {
    fn read(&mut self) {
        while let Some(entry) = self.events.next() {
            let Some(event) = TraceEvent::decode(&entry) else { continue };
            let raw = &event.raw;
            let (all, failed) = self.heard.entry(event.kind()).or_default();
            *all += 1;
            *failed += u64::from(raw.result < 0);
            let note = Note {
                time: raw.time,
                kind: event.kind(),
                result: raw.result,
                pid: raw.actor.pid,
                tid: raw.actor.tid,
                comm: raw.actor.comm,
                fds: [raw.fd, raw.fd2],
                socket: raw.socket.sk,
                cookie: raw.socket.cookie,
                peer: raw.peer.sk,
                argument: raw.argument,
            };
            let mut told = [raw.socket.sk, raw.peer.sk, raw.listener.sk];
            told.sort_unstable();
            let mut before = 0;
            for sk in told {
                if sk != before {
                    let notes = self.notes.entry(sk).or_default();
                    if notes.len() == REMEMBERED {
                        notes.pop_front();
                    }
                    notes.push_back(note);
                }
                before = sk;
            }
        }
    }
}

/// One event, as far as it is remembered.
#[derive(Clone, Copy)]
struct Note {
    time: u64,
    kind: &'static str,
    result: i32,
    pid: u32,
    tid: u32,
    comm: [u8; 16],
    fds: [i32; 2],
    socket: u64,
    cookie: u64,
    peer: u64,
    argument: u32,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comm: Vec<u8> = self.comm.iter().copied().take_while(|byte| *byte != 0).collect();
        write!(
            f,
            "{} {} = {} by {}[{}/{}] fds {:?} socket {:#x} cookie {} peer {:#x} argument {}",
            self.time,
            self.kind,
            self.result,
            Escaped(&comm),
            self.pid,
            self.tid,
            self.fds,
            self.socket,
            self.cookie,
            self.peer,
            self.argument
        )
    }
}
