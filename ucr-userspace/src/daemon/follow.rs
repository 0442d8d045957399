//! The thread that reads the ring buffer: hands each event to who follows, makes entries of the history of
//! them, and knows by their numbers what is missing.

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use tokio::sync::watch;
use ucr_common::{event::kind, record::Record};

use super::{
    keeper::{Handed, Keeper},
    shared::Shared,
};
use crate::{
    history::{
        Attachment, Batch, Closing, Gap, GapReason, Gone, Past,
        entry::{End, How, Identity, Partner, PeerThen},
    },
    kernel::clock,
    ledger::{
        Tracked,
        sequence::{Missing, Sequences},
    },
    model::Who,
    tracer::{
        event::TraceEvent,
        follow::{FollowError, Follower, Keep, RENEWAL, Told},
        store::Store,
    },
};

/// Events that are read before anything else is looked at.
const AT_ONCE: usize = 4096;

/// How the thread is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    GoOn,
    /// End, and leave events to the next daemon.
    Pause,
    /// End for good.
    Stop,
}

/// What it works with.
pub struct Following {
    /// The maps.
    pub store: Store,
    /// The ring buffer.
    pub ring: RingBuf<MapData>,
    /// Everything else.
    pub shared: Arc<Shared>,
    /// The history, if one is kept.
    pub keeper: Option<Keeper>,
    /// The numbers that it says will come next, if it knows this tracing.
    pub expected: Vec<(u32, u64)>,
    /// Which tracing this is.
    pub attachment: Attachment,
    /// Records that reconciliations have removed.
    pub removed: std::sync::mpsc::Receiver<Vec<Record>>,
    /// How many bytes the ring buffer holds: no more may be in memory and not yet written.
    pub ring_bytes: u64,
}

impl Following {
    /// Follows until it is told to end.
    ///
    /// # Errors
    /// Somebody else follows, or the kernel's.
    pub fn run(self, orders: watch::Receiver<Order>) -> Result<(), FollowError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(FollowError::Wait)?;
        runtime.block_on(self.follow(orders))
    }

    async fn follow(mut self, mut orders: watch::Receiver<Order>) -> Result<(), FollowError> {
        // What the numbers were before the first event of ours.
        let current = self.store.next_numbers()?;
        let mut follower = Follower::begin(&mut self.store, self.ring, Keep::Forever)?;
        let mut book = Book::new(self.attachment, self.keeper, self.shared, self.ring_bytes);
        book.begin(self.expected, current);
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut renewed = Instant::now();
        let order = loop {
            tokio::select! {
                ready = follower.readable() => ready.map_err(FollowError::Wait)?,
                _ = tick.tick() => {}
                changed = orders.changed() => {
                    let order = *orders.borrow();
                    if changed.is_err() || order != Order::GoOn {
                        break order;
                    }
                }
            }
            while follower
                .drain(AT_ONCE, &mut |told| Ok(book.hear(told)))
                .map_err(FollowError::Sink)?
                .is_continue()
                && !book.is_idle()
            {
                book.flush_if_full();
            }
            book.flush_if_due();
            while let Ok(records) = self.removed.try_recv() {
                book.note_removed(&records);
            }
            if renewed.elapsed() >= RENEWAL {
                renewed = Instant::now();
                follower.renew(&mut self.store)?;
            }
        };
        // What was written before the order came.
        let _ = follower
            .drain(usize::MAX, &mut |told| Ok(book.hear(told)))
            .map_err(FollowError::Sink)?;
        match order {
            Order::Stop => follower.end(&mut self.store)?,
            _ => follower.pause(),
        }
        book.close();
        Ok(())
    }
}

/// What has been heard and not yet been handed over.
struct Book {
    batch: Batch,
    bytes: u64,
    limit: u64,
    begun: Instant,
    idle: bool,
    sequences: Sequences,
    keeper: Option<Keeper>,
    shared: Arc<Shared>,
}

impl Book {
    fn new(
        attachment: Attachment,
        keeper: Option<Keeper>,
        shared: Arc<Shared>,
        ring_bytes: u64,
    ) -> Self {
        Self {
            batch: Batch::new(attachment, 0, 0),
            bytes: 0,
            // The keeper has some batches waiting: all together no more than a ring buffer.
            limit: ring_bytes / 8,
            begun: Instant::now(),
            idle: false,
            sequences: Sequences::default(),
            keeper,
            shared,
        }
    }

    /// With the numbers that the history expects, or, if it does not know this tracing, the current ones.
    fn begin(&mut self, expected: Vec<(u32, u64)>, current: Vec<(u32, u64)>) {
        let is_known = !expected.is_empty();
        self.sequences = Sequences::expecting(if is_known { expected } else { current });
        if !is_known {
            let now = clock::boottime();
            // What happened before is not known to have been anything.
            let gap = Gap { from: 0, until: now, reason: GapReason::Absent, lost: None };
            self.batch.gaps.push(gap);
        }
    }

    fn is_idle(&self) -> bool {
        self.idle
    }

    fn hear(&mut self, told: Told) -> ControlFlow<()> {
        self.idle = false;
        match told {
            Told::Event(event) => self.note(*event),
            Told::Unknown => tracing::warn!("an event of unknown shape was skipped"),
            Told::Idle => self.idle = true,
            Told::Begun | Told::Lost(_) => {}
        }
        ControlFlow::Continue(())
    }

    fn note(&mut self, event: TraceEvent) {
        let raw = &event.raw;
        self.sequences.take(raw.cpu, raw.sequence, raw.time);
        self.shared.counts.event(raw.kind);
        if self.keeper.is_some() {
            if raw.kind == kind::CLOSE && raw.result >= 0 {
                self.batch.gone.extend(gone(&event));
            }
            if self.shared.config().history.events {
                self.batch.events.push(Past::from(&event));
            }
            self.bytes += u64::try_from(size_of::<Past>() + size_of::<Gone>()).unwrap_or(0);
        }
        if self.shared.hub.followers() > 0 {
            self.shared.hub.send(&Arc::new(event));
        }
    }

    fn note_removed(&mut self, records: &[Record]) {
        if self.keeper.is_none() {
            return;
        }
        let now = clock::boottime();
        let gone = records.iter().filter_map(|record| {
            let tracked = Tracked::new(record, None).ok()?;
            let closing = Closing {
                at: now,
                closer: None,
                end: End::Closed,
                peer: peer(record),
                how: How::Reconciled,
            };
            Some(Gone::new(&tracked, closing))
        });
        self.batch.gone.extend(gone);
    }

    fn flush_if_full(&mut self) {
        if self.bytes >= self.limit {
            self.flush();
        }
    }

    fn flush_if_due(&mut self) {
        let due = self.shared.config().history.flush_every;
        if self.bytes >= self.limit || self.begun.elapsed() >= due {
            self.flush();
        }
    }

    /// Hands over what is there.
    fn flush(&mut self) {
        self.begun = Instant::now();
        self.note_missing();
        let Some(batch) = self.taken() else { return };
        let Some(keeper) = &self.keeper else { return };
        match keeper.hand(batch) {
            Handed::Taken => {}
            // Whoever writes is slow. As long as it is not too much it waits here; then what comes waits in
            // the ring buffer, where what is too much is counted.
            Handed::Later(batch) => {
                let is_too_much = self.bytes_of(&batch) >= self.limit;
                self.batch = *batch;
                if is_too_much {
                    std::thread::sleep(Duration::from_millis(10));
                } else {
                    self.bytes = self.bytes_of(&self.batch);
                    return;
                }
                self.bytes = self.bytes_of(&self.batch);
            }
            Handed::Gone => {
                tracing::warn!("nobody writes the history any more");
                self.keeper = None;
            }
        }
    }

    fn bytes_of(&self, batch: &Batch) -> u64 {
        let entries = batch.gone.len().max(batch.events.len());
        u64::try_from(entries * (size_of::<Past>() + size_of::<Gone>())).unwrap_or(u64::MAX)
    }

    /// What the numbers say has not come.
    fn note_missing(&mut self) {
        let Some(Missing { events, after, before }) = self.sequences.missing() else { return };
        self.shared.counts.lost.fetch_add(events, Ordering::Relaxed);
        self.shared.hub.lost(events);
        let gap = Gap { from: after, until: before, reason: GapReason::Lost, lost: Some(events) };
        self.batch.gaps.push(gap);
    }

    /// The batch, with the numbers that it covers; `None` if nothing is kept.
    fn taken(&mut self) -> Option<Batch> {
        self.keeper.as_ref()?;
        self.bytes = 0;
        let now = clock::boottime();
        let empty = Batch::new(self.batch.attachment.clone(), now, offset(now));
        let mut batch = std::mem::replace(&mut self.batch, empty);
        batch.now = now;
        batch.realtime_offset = offset(now);
        batch.sequences = self.sequences.next().collect();
        Some(batch)
    }

    fn close(mut self) {
        self.note_missing();
        let batch = self.taken();
        if let (Some(keeper), Some(batch)) = (self.keeper.take(), batch) {
            keeper.finish(batch);
        }
    }
}

/// What turns boot time into time of day now.
fn offset(now: u64) -> i64 {
    let (real, boot) = (i128::from(clock::realtime()), i128::from(now));
    i64::try_from(real - boot).unwrap_or_default()
}

/// The closed socket of an event. One that the ledger did not know leaves nothing but the event.
fn gone(event: &TraceEvent) -> Option<Gone> {
    let record = event.record.as_deref()?;
    let tracked = Tracked::new(record, None).ok()?;
    let raw = &event.raw;
    let closing = Closing {
        at: raw.time,
        closer: Some(Who::from(&raw.actor)),
        end: if raw.argument == 1 { End::NeverAccepted } else { End::Closed },
        peer: peer(record),
        how: How::Seen,
    };
    Some(Gone::new(&tracked, closing))
}

/// The last peer of a record.
fn peer(record: &Record) -> Option<PeerThen> {
    let partner = &record.partner;
    let owner = (partner.pid != 0).then(|| Partner {
        pid: partner.pid,
        uid: partner.uid,
        comm: partner.comm().to_vec(),
    });
    let socket = Identity::of(&record.peer);
    match (socket, owner) {
        (None, None) => None,
        (socket, owner) => Some(PeerThen { socket: socket.unwrap_or_default(), owner }),
    }
}
