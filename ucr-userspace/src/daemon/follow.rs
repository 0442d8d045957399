//! The thread that reads the ring buffer: hands each event to who follows, makes entries of the history of
//! them, and knows by their numbers what is missing.

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use tokio::{
    sync::{oneshot, watch},
    time::{MissedTickBehavior, interval, sleep},
};
use ucr_common::{control::FOREVER, record::Record};

use super::{
    book::{Book, Kept, Known, Moment},
    keeper::{Handed, Keeper},
    shared::Shared,
};
use crate::{
    history::Attachment,
    kernel::clock,
    tracer::{
        TracerError,
        follow::{FollowError, Follower, Keep, RENEWAL, Told},
        store::Store,
    },
};

/// Events that are read before anything else is looked at.
const AT_ONCE: usize = 256;
/// Bytes of the ring buffer that the shortest event takes, at least.
const SHORTEST: u64 = 256;
/// How often the keeper is asked whether it can take more, when it could not.
const GLANCE: Duration = Duration::from_millis(10);
/// How often something is handed over when nothing is new: what is too old goes only then.
const ONCE_IN_A_WHILE: Duration = Duration::from_secs(60);
/// How old numbers have to be that are taken for settled: a program that has taken one writes its event long
/// before.
const SETTLED: Duration = Duration::from_secs(1);
/// Memory for what waits to be handed over, at least: the smallest ring buffers hold a dozen events.
const LEAST_LIMIT: u64 = 256 << 10;

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

/// Why following has ended without having been told to.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// Somebody else follows, or the kernel's.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// What is heard is not kept any more: another daemon will, and find what it missed.
    #[error("keep the history: the thread that does has ended")]
    Unkept,
}

impl From<TracerError> for Stopped {
    fn from(error: TracerError) -> Self {
        Self::Follow(error.into())
    }
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
    /// What it knows of this tracing.
    pub known: Known,
    /// Which tracing this is.
    pub attachment: Attachment,
    /// Records that reconciliations have removed.
    pub removed: std::sync::mpsc::Receiver<Vec<Record>>,
    /// How many bytes the ring buffer holds: no more may be in memory and not yet written.
    pub ring_bytes: u64,
}

impl Following {
    /// Follows until it is told to end. `begun` hears of it once nothing is overheard any more.
    ///
    /// # Errors
    /// See [`Stopped`].
    pub fn run(
        self,
        orders: watch::Receiver<Order>,
        begun: oneshot::Sender<()>,
    ) -> Result<(), Stopped> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(FollowError::Wait)?;
        runtime.block_on(self.follow(orders, begun))
    }

    async fn follow(
        mut self,
        mut orders: watch::Receiver<Order>,
        begun: oneshot::Sender<()>,
    ) -> Result<(), Stopped> {
        // What the numbers were before the first event of ours.
        let next = self.store.next_numbers()?;
        let left = self.store.lease()?;
        let mut follower = Follower::begin(&mut self.store, self.ring, Keep::Forever)?;
        let now = clock::boottime();
        // The keeper has some batches waiting: all together no more than a ring buffer.
        let limit = usize::try_from((self.ring_bytes / 8).max(LEAST_LIMIT)).unwrap_or(usize::MAX);
        let mut book = Book::new(self.attachment, limit);
        if left.until != FOREVER && !self.known.next.is_empty() {
            // Somebody else had followed, and went without giving the right back: from then on nothing was
            // numbered.
            book.absent(self.known.until, now);
        }
        book.begin(self.known, next, now);
        let mut desk = Desk::new(book, self.keeper, self.shared);
        let mut numbers = Numbers::read(&self.store)?;
        // If nobody waits for it, the daemon is ending.
        begun.send(()).ok();
        let mut tick = interval(Duration::from_millis(200));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewed = Instant::now();
        let order = loop {
            tokio::select! {
                // Whatever there is to read, orders are heard.
                biased;
                changed = orders.changed() => {
                    let order = *orders.borrow();
                    if changed.is_err() || order != Order::GoOn {
                        break order;
                    }
                }
                ready = follower.readable(), if desk.pace == Pace::Wait => {
                    ready.map_err(FollowError::Wait)?;
                }
                _ = tick.tick(), if desk.pace == Pace::Wait => {}
                () = sleep(GLANCE), if desk.pace == Pace::Full => {}
                () = tokio::task::yield_now(), if desk.pace == Pace::GoOn => {}
            }
            desk.shared.beat.store(clock::boottime(), Ordering::Relaxed);
            desk.read(&mut follower)?;
            if desk.pace == Pace::Wait && numbers.read_at.elapsed() >= SETTLED {
                desk.book.settle(numbers.next, numbers.time);
                numbers = Numbers::read(&self.store)?;
            }
            desk.flush_if_due()?;
            while let Ok(records) = self.removed.try_recv() {
                desk.book.note_removed(&records, clock::boottime());
            }
            if renewed.elapsed() >= RENEWAL {
                renewed = Instant::now();
                // Its lease never ends, and what was lost is asked for where it is acted upon.
                let _lost = follower.renew(&mut self.store)?;
            }
        };
        if order == Order::Stop {
            // From here on nothing is written, so that there is a last event.
            follower.release(&mut self.store)?;
        }
        desk.read_rest(&mut follower, order)?;
        if order == Order::Stop {
            desk.book.settle(self.store.next_numbers()?, clock::boottime());
        }
        while let Ok(records) = self.removed.try_recv() {
            desk.book.note_removed(&records, clock::boottime());
        }
        if order != Order::Stop {
            follower.pause();
        }
        desk.close();
        Ok(())
    }
}

/// The numbers that would have come next at some moment. What they leave out when everything was read that came
/// before them is missing, even if no event comes that tells.
struct Numbers {
    next: Vec<(u32, u64)>,
    time: u64,
    read_at: Instant,
}

impl Numbers {
    fn read(store: &Store) -> Result<Self, TracerError> {
        let (next, time) = (store.next_numbers()?, clock::boottime());
        Ok(Self { next, time, read_at: Instant::now() })
    }
}

/// How to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// There may be more.
    GoOn,
    /// There is nothing to read.
    Wait,
    /// Who writes is slow: what comes waits in the ring buffer, where what is too much is counted.
    Full,
}

/// Where events pass on their way to those who follow and to the history.
struct Desk {
    book: Book,
    keeper: Option<Keeper>,
    shared: Arc<Shared>,
    pace: Pace,
    /// When something was handed over, or there was nothing to hand over.
    flushed: Instant,
    handed: Instant,
}

impl Desk {
    fn new(book: Book, keeper: Option<Keeper>, shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        Self { book, keeper, shared, pace: Pace::GoOn, flushed: now, handed: now }
    }

    /// Reads some events, unless there is no room for them.
    fn read(&mut self, follower: &mut Follower) -> Result<(), Stopped> {
        self.pace = Pace::GoOn;
        if self.book.is_full() {
            self.flush()?;
        }
        if self.book.is_full() {
            self.pace = Pace::Full;
            return Ok(());
        }
        let kept = self.kept();
        let told = follower.drain(AT_ONCE, &mut |told| Ok(self.hear(told, kept)));
        let _goes_on = told.map_err(FollowError::Sink)?;
        Ok(())
    }

    /// Reads what was written before the order to end came. Of what comes meanwhile there need be no end: if
    /// another daemon is to go on, that is for it.
    fn read_rest(&mut self, follower: &mut Follower, order: Order) -> Result<(), Stopped> {
        let mut most = usize::try_from(self.shared.ring.depth().0 / SHORTEST).unwrap_or(usize::MAX);
        loop {
            self.read(follower)?;
            match self.pace {
                Pace::Wait => return Ok(()),
                Pace::Full => std::thread::sleep(GLANCE),
                Pace::GoOn => {
                    most = most.saturating_sub(AT_ONCE);
                    if most == 0 && order != Order::Stop {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn hear(&mut self, told: Told, kept: Kept) -> ControlFlow<()> {
        match told {
            Told::Event(event) => {
                self.shared.counts.event(event.raw.kind);
                self.book.note(&event, kept);
                if self.shared.hub.followers() > 0 {
                    self.shared.hub.send(&Arc::from(event));
                }
            }
            Told::Unknown => self.shared.counts.unknown(),
            Told::Idle => self.pace = Pace::Wait,
            Told::Begun | Told::Lost(_) | Told::Lapsed(_) => {}
        }
        ControlFlow::Continue(())
    }

    fn kept(&self) -> Kept {
        match &self.keeper {
            None => Kept::Nothing,
            Some(_) if self.shared.config().history.events => Kept::Events,
            Some(_) => Kept::Sockets,
        }
    }

    fn flush_if_due(&mut self) -> Result<(), Stopped> {
        let due = self.shared.config().history.flush_every;
        if self.book.is_full() || self.flushed.elapsed() >= due { self.flush() } else { Ok(()) }
    }

    /// Hands over what is there.
    fn flush(&mut self) -> Result<(), Stopped> {
        self.flushed = Instant::now();
        self.note_missing();
        let Some(keeper) = &self.keeper else { return Ok(()) };
        if !self.book.has_news() && self.handed.elapsed() < ONCE_IN_A_WHILE {
            return Ok(());
        }
        match keeper.hand(self.book.hand_over(now())) {
            Handed::Taken => {
                self.handed = self.flushed;
                Ok(())
            }
            Handed::Later(batch) => {
                self.book.put_back(*batch);
                Ok(())
            }
            Handed::Gone => Err(Stopped::Unkept),
        }
    }

    /// What the numbers say has not come.
    fn note_missing(&mut self) {
        let missing = self.book.note_missing();
        if missing > 0 {
            self.shared.counts.lost.fetch_add(missing, Ordering::Relaxed);
            self.shared.hub.lost(missing);
        }
    }

    fn close(mut self) {
        self.note_missing();
        if let Some(keeper) = self.keeper.take() {
            keeper.finish(self.book.hand_over(now()));
        }
    }
}

/// The one place where the daemon asks what time it is for what it keeps.
pub(super) fn now() -> Moment {
    Moment { boottime: clock::boottime(), realtime: clock::realtime() }
}
