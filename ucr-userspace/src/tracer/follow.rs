//! Follows the ring buffer, live.
//!
//! The programs write events only while a follower's lease runs. It is renewed once a second, so
//! a follower that was killed leaves no buffer to run full and no loss to be counted.

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
use ucr_common::control::{self, counter};

use super::{TracerError, event::TraceEvent, store::Store};
use crate::{kernel::clock, sys::readiness::watch_readable};

/// How long one lease lasts.
const LEASE: Duration = Duration::from_secs(3);
/// How often it is renewed, and how often losses are looked for.
const RENEWAL: Duration = Duration::from_secs(1);

/// What a follower is told.
#[derive(Clone, Debug)]
pub enum Told {
    /// Events are being written from now on.
    Begun,
    /// Something happened.
    Event(Box<TraceEvent>),
    /// So many events were lost since the last time, because they came faster than they were read.
    Lost(u64),
    /// An entry of the ring buffer had no known shape.
    Unknown,
    /// All that was there has been told; also once in a while when nothing happens.
    Idle,
}

/// Whether a follower wants more.
pub type Verdict = io::Result<ControlFlow<()>>;

/// Follows until the sink has enough or a signal (SIGINT, SIGTERM) comes.
///
/// # Errors
/// [`TracerError::Followed`] if somebody else follows; the sink's errors.
pub async fn follow(
    store: &mut Store,
    mut events: RingBuf<MapData>,
    mut sink: impl FnMut(Told) -> Verdict,
) -> Result<(), FollowError> {
    let mut lease = Lease::take(store)?;
    let mut lost = lease.lost()?;
    let ready = events.as_fd().try_clone_to_owned().and_then(watch_readable);
    let mut reader = Reader {
        ready: ready.map_err(FollowError::Wait)?,
        ring: &mut events,
        begun_at: clock::boottime(),
    };
    let outcome = run(&mut lease, &mut reader, &mut lost, &mut sink).await;
    lease.give_back()?;
    outcome
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

async fn run(
    lease: &mut Lease<'_>,
    reader: &mut Reader<'_>,
    lost: &mut u64,
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
            guard = reader.ready.readable() => {
                // Cleared before the ring is emptied, so that what comes meanwhile wakes again.
                guard.map_err(FollowError::Wait)?.clear_ready();
                if reader.drain(sink).map_err(FollowError::Sink)?.is_break() {
                    return Ok(());
                }
            }
            _ = renewal.tick() => {
                lease.renew()?;
                let more = report_loss(lease, lost, sink)?;
                if more.is_break() || sink(Told::Idle).map_err(FollowError::Sink)?.is_break() {
                    return Ok(());
                }
            }
            _ = interrupted.recv() => break,
            _ = terminated.recv() => break,
        }
    }
    // What was written before the signal came.
    if reader.drain(sink).map_err(FollowError::Sink)?.is_continue() {
        let _ = report_loss(lease, lost, sink)?;
    }
    Ok(())
}

fn report_loss(
    lease: &Lease<'_>,
    lost: &mut u64,
    sink: &mut impl FnMut(Told) -> Verdict,
) -> Result<ControlFlow<()>, FollowError> {
    let now = lease.lost()?;
    let new = now.saturating_sub(*lost);
    *lost = now;
    if new == 0 {
        return Ok(ControlFlow::Continue(()));
    }
    sink(Told::Lost(new)).map_err(FollowError::Sink)
}

/// The ring buffer with its wake-ups.
struct Reader<'a> {
    ready: AsyncFd<OwnedFd>,
    ring: &'a mut RingBuf<MapData>,
    begun_at: u64,
}

impl Reader<'_> {
    /// Hands over all that is there; what an earlier follower left unread is too old.
    fn drain(&mut self, sink: &mut impl FnMut(Told) -> Verdict) -> Verdict {
        while let Some(entry) = self.ring.next() {
            let told = match TraceEvent::decode(&entry) {
                Some(event) if event.raw.time < self.begun_at => continue,
                Some(event) => Told::Event(Box::new(event)),
                None => Told::Unknown,
            };
            if sink(told)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        sink(Told::Idle)
    }
}

/// Whether there is such a process; if that cannot be told, there is.
fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// The right to the ring buffer.
struct Lease<'a> {
    store: &'a mut Store,
}

impl<'a> Lease<'a> {
    fn take(store: &'a mut Store) -> Result<Self, TracerError> {
        let before = store.lease()?;
        let runs = before.until > clock::boottime();
        // One that was killed has left the rest of its lease behind.
        if runs && before.follower != process::id() && is_alive(before.follower) {
            return Err(TracerError::Followed { pid: before.follower });
        }
        let mut lease = Self { store };
        lease.extend()?;
        Ok(lease)
    }

    /// Another one may have followed meanwhile, if we were stopped for longer than the lease.
    fn renew(&mut self) -> Result<(), TracerError> {
        let follower = self.store.lease()?.follower;
        if follower != process::id() {
            return Err(TracerError::Superseded { pid: follower });
        }
        self.extend()
    }

    fn extend(&mut self) -> Result<(), TracerError> {
        let length = u64::try_from(LEASE.as_nanos()).unwrap_or(u64::MAX);
        self.set(clock::boottime().saturating_add(length), process::id())
    }

    fn give_back(&mut self) -> Result<(), TracerError> {
        if self.store.lease()?.follower == process::id() {
            self.set(0, 0)?;
        }
        Ok(())
    }

    fn set(&mut self, until: u64, follower: u32) -> Result<(), TracerError> {
        self.store.set_lease(control::Lease { until, follower, reserved: 0 })
    }

    fn lost(&self) -> Result<u64, TracerError> {
        Ok(self.store.counters()?.get(counter::LOST))
    }
}
