//! Follows the ring buffer, live.
//!
//! The programs write events only while a follower's lease runs. It is renewed once a second, so
//! a follower that was killed leaves no buffer to run full and no loss to be counted; unless it means to come
//! back and find everything ([`Keep::Forever`]).

use std::{
    io,
    ops::ControlFlow,
    os::fd::{AsFd as _, OwnedFd},
    process,
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use ucr_common::control::{self, FOREVER, counter};

use super::{TracerError, event::TraceEvent, store::Store};
use crate::{
    kernel::{clock, start::started},
    sys::readiness::watch_readable,
};

/// How long one lease lasts.
const LEASE: Duration = Duration::from_secs(3);
/// How often it is renewed, and how often losses are looked for.
pub const RENEWAL: Duration = Duration::from_secs(1);

/// What a follower is told.
#[derive(Clone, Debug)]
pub enum Told {
    /// Events are being written from now on.
    Begun,
    /// Something happened.
    Event(Box<TraceEvent>),
    /// So many events were lost since the last time, because they came faster than they were read.
    Lost(u64),
    /// For so long nothing was written, because the follower stood still for longer than its lease. Nobody has
    /// counted what happened meanwhile.
    Lapsed(Duration),
    /// An entry of the ring buffer had no known shape.
    Unknown,
    /// All that was there has been told; also once in a while when nothing happens.
    Idle,
}

/// Whether a follower wants more.
pub type Verdict = io::Result<ControlFlow<()>>;

/// What is to become of the events when the follower is gone without having said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// None are written any more.
    WhileHere,
    /// They wait in the ring buffer for the next follower that means to keep them.
    Forever,
}

/// Why following ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The maps.
    #[error(transparent)]
    Tracer(#[from] TracerError),
    /// Waiting for events or signals failed.
    #[error("wait for events")]
    Wait(#[source] io::Error),
    /// The sink failed.
    #[error("write events")]
    Sink(#[source] io::Error),
}

/// Follows until the sink has enough or a signal (SIGINT, SIGTERM) comes.
///
/// # Errors
/// [`TracerError::Followed`] if somebody else follows; the sink's errors.
pub async fn follow(
    store: &mut Store,
    events: RingBuf<MapData>,
    mut sink: impl FnMut(Told) -> Verdict,
) -> Result<(), FollowError> {
    let mut follower = Follower::begin(store, events, Keep::WhileHere)?;
    let outcome = run(store, &mut follower, &mut sink).await;
    follower.end(store)?;
    outcome
}

async fn run(
    store: &mut Store,
    follower: &mut Follower,
    sink: &mut impl FnMut(Told) -> Verdict,
) -> Result<(), FollowError> {
    let mut interrupted = signal(SignalKind::interrupt()).map_err(FollowError::Wait)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(FollowError::Wait)?;
    let mut renewal = interval(RENEWAL);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    if sink(Told::Begun).map_err(FollowError::Sink)?.is_break() {
        return Ok(());
    }
    loop {
        tokio::select! {
            ready = follower.readable() => {
                ready.map_err(FollowError::Wait)?;
                // Whoever has taken over by now reads on from where he is.
                if follower.is_over() && report_loss(&follower.renew(store)?, sink)?.is_break() {
                    return Ok(());
                }
                if follower.drain(usize::MAX, sink).map_err(FollowError::Sink)?.is_break() {
                    return Ok(());
                }
            }
            _ = renewal.tick() => {
                let renewed = follower.renew(store)?;
                let more = report_loss(&renewed, sink)?;
                if more.is_break() || sink(Told::Idle).map_err(FollowError::Sink)?.is_break() {
                    return Ok(());
                }
            }
            _ = interrupted.recv() => break,
            _ = terminated.recv() => break,
        }
    }
    if follower.is_over() && report_loss(&follower.renew(store)?, sink)?.is_break() {
        return Ok(());
    }
    // What was written before the signal came.
    if follower.drain(usize::MAX, sink).map_err(FollowError::Sink)?.is_continue() {
        let _ = report_loss(&follower.renew(store)?, sink)?;
    }
    Ok(())
}

fn report_loss(
    renewed: &Renewed,
    sink: &mut impl FnMut(Told) -> Verdict,
) -> Result<ControlFlow<()>, FollowError> {
    let lost = (renewed.lost > 0).then_some(Told::Lost(renewed.lost));
    for told in lost.into_iter().chain(renewed.lapsed.map(Told::Lapsed)) {
        if sink(told).map_err(FollowError::Sink)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// What went by a follower since the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// So many events had no room.
    pub lost: u64,
    /// For so long none were written at all: the lease had ended.
    pub lapsed: Option<Duration>,
}

/// The right to the ring buffer, which one process has at a time, and its wake-ups.
pub struct Follower {
    ready: AsyncFd<OwnedFd>,
    ring: RingBuf<MapData>,
    lost: u64,
    keep: Keep,
    /// What was there before us: given back, if its owner means to come back.
    before: control::Lease,
    /// What an earlier follower left unread is too old, unless it was kept for us.
    since: u64,
    /// When its own lease ends.
    until: u64,
}

impl Follower {
    /// Takes the right to the ring buffer. Within a tokio runtime.
    ///
    /// # Errors
    /// [`TracerError::Followed`] if somebody else has it; the kernel's.
    pub fn begin(
        store: &mut Store,
        events: RingBuf<MapData>,
        keep: Keep,
    ) -> Result<Self, FollowError> {
        let before = store.lease()?;
        let runs = before.until > clock::boottime();
        // One that was killed has left the rest of its lease behind.
        if runs && before.follower != process::id() && is_there(&before) {
            return Err(TracerError::Followed { pid: before.follower }.into());
        }
        let lost = store.counters()?.get(counter::LOST);
        let ready = events.as_fd().try_clone_to_owned().and_then(watch_readable);
        let ready = ready.map_err(FollowError::Wait)?;
        let is_kept = keep == Keep::Forever && before.until == FOREVER;
        let since = if is_kept { 0 } else { clock::boottime() };
        let mut follower = Self { ready, ring: events, lost, keep, before, since, until: 0 };
        let _now = follower.extend(store)?;
        Ok(follower)
    }

    /// Waits until there is something to read.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn readable(&self) -> io::Result<()> {
        // Cleared before the ring is emptied, so that what comes meanwhile wakes again.
        self.ready.readable().await?.clear_ready();
        Ok(())
    }

    /// Hands over what is there, at most so many events. [`Told::Idle`] comes last, if that was all.
    ///
    /// # Errors
    /// The sink's.
    pub fn drain(&mut self, at_most: usize, sink: &mut impl FnMut(Told) -> Verdict) -> Verdict {
        for _ in 0..at_most {
            let Some(entry) = self.ring.next() else { return sink(Told::Idle) };
            let told = match TraceEvent::decode(&entry) {
                Some(event) if event.raw.time < self.since => continue,
                Some(event) => Told::Event(Box::new(event)),
                None => Told::Unknown,
            };
            if sink(told)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether somebody else may have the right by now.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.until <= clock::boottime()
    }

    /// Renews the right; what was lost since the last time.
    ///
    /// # Errors
    /// [`TracerError::Superseded`]: another one may have taken over, if we were stopped for longer than the
    /// lease. The kernel's.
    pub fn renew(&mut self, store: &mut Store) -> Result<Renewed, TracerError> {
        let follower = store.lease()?.follower;
        if follower != process::id() {
            return Err(TracerError::Superseded { pid: follower });
        }
        let until = self.until;
        let beyond = self.extend(store)?.saturating_sub(until);
        let lapsed = (beyond > 0).then(|| Duration::from_nanos(beyond));
        Ok(Renewed { lost: self.losses(store)?, lapsed })
    }

    /// How many events were lost since the last time.
    ///
    /// # Errors
    /// The kernel's.
    pub fn losses(&mut self, store: &Store) -> Result<u64, TracerError> {
        let now = store.counters()?.get(counter::LOST);
        let new = now.saturating_sub(self.lost);
        self.lost = now;
        Ok(new)
    }

    /// Gives the right back: to one who means to come back, or to nobody.
    ///
    /// # Errors
    /// The kernel's.
    pub fn end(self, store: &mut Store) -> Result<(), TracerError> {
        self.release(store)
    }

    /// The same, and what was written before can still be read.
    ///
    /// # Errors
    /// The kernel's.
    pub fn release(&self, store: &mut Store) -> Result<(), TracerError> {
        if store.lease()?.follower != process::id() {
            return Ok(());
        }
        if self.keep == Keep::WhileHere && self.before.until == FOREVER {
            return store.set_lease(self.before);
        }
        store.set_lease(control::Lease { until: 0, follower: 0, started: 0 })
    }

    /// Ends following, and lets the events wait for the next one that means to keep them.
    pub fn pause(self) {
        drop(self);
    }

    /// Returns the time from which on it holds.
    fn extend(&mut self, store: &mut Store) -> Result<u64, TracerError> {
        let length = u64::try_from(LEASE.as_nanos()).unwrap_or(u64::MAX);
        let now = clock::boottime();
        let until = match self.keep {
            Keep::WhileHere => now.saturating_add(length),
            Keep::Forever => FOREVER,
        };
        let started = started(process::id()).unwrap_or(0);
        store.set_lease(control::Lease { until, follower: process::id(), started })?;
        self.until = until;
        Ok(now)
    }
}

/// Whether the process that has a lease is still there; if that cannot be told, it is.
#[must_use]
pub fn is_there(lease: &control::Lease) -> bool {
    let pid = i32::try_from(lease.follower).ok().and_then(rustix::process::Pid::from_raw);
    let alive = pid
        .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH));
    alive && started(lease.follower).is_none_or(|began| began == lease.started)
}
