//! Hands events to several followers at once. Each has a queue of its own; what does not fit into it is
//! counted, and that follower is told. Nobody waits for anybody.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};

use crate::tracer::{event::TraceEvent, filter::EventFilter};

/// What a follower gets.
#[derive(Clone, Debug)]
pub enum Delivered {
    /// An event, as it was in the ring buffer.
    Event(Arc<TraceEvent>),
    /// So many that nobody has seen.
    Lost(u64),
}

/// All followers.
#[derive(Debug, Default)]
pub struct Hub {
    followers: Mutex<Vec<Follower>>,
    missed: AtomicU64,
}

#[derive(Debug)]
struct Follower {
    queue: Sender<Delivered>,
    filter: EventFilter,
    missed: Arc<AtomicU64>,
}

/// A follower's end.
#[derive(Debug)]
pub struct Subscription {
    /// What comes.
    pub queue: Receiver<Delivered>,
    missed: Arc<AtomicU64>,
}

impl Subscription {
    /// How many events did not fit into the queue since this was asked last.
    pub fn missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }
}

impl Hub {
    /// One more follower, whose queue holds so many events. It ends when what is returned is dropped.
    pub fn subscribe(&self, filter: EventFilter, queue: usize) -> Subscription {
        let (sender, receiver) = channel(queue.max(1));
        let missed = Arc::new(AtomicU64::new(0));
        let follower = Follower { queue: sender, filter, missed: Arc::clone(&missed) };
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).push(follower);
        Subscription { queue: receiver, missed }
    }

    /// Hands an event to all who want it.
    pub fn send(&self, event: &Arc<TraceEvent>) {
        self.each(|follower| {
            follower.filter.wants(event).then(|| Delivered::Event(Arc::clone(event)))
        });
    }

    /// Tells all that events were lost.
    pub fn lost(&self, events: u64) {
        self.each(|_| Some(Delivered::Lost(events)));
    }

    /// How many follow.
    #[must_use]
    pub fn followers(&self) -> usize {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|follower| !follower.queue.is_closed());
        followers.len()
    }

    /// How many events did not fit into queues, over all followers there ever were.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    fn each(&self, what: impl Fn(&Follower) -> Option<Delivered>) {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|follower| {
            let Some(delivered) = what(follower) else { return true };
            let lost = match &delivered {
                Delivered::Event(_) => 1,
                Delivered::Lost(events) => *events,
            };
            match follower.queue.try_send(delivered) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    follower.missed.fetch_add(lost, Ordering::Relaxed);
                    self.missed.fetch_add(lost, Ordering::Relaxed);
                    true
                }
                Err(TrySendError::Closed(_)) => false,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use ucr_common::event::{Event, kind};
    use zerocopy::FromZeros as _;

    use super::*;
    use crate::model::Pid;

    fn event(pid: u32) -> Arc<TraceEvent> {
        let mut raw = Event::new_zeroed();
        raw.kind = kind::SOCKET;
        raw.actor.pid = pid;
        Arc::new(TraceEvent { raw, directories: None, record: None })
    }

    fn heard(subscription: &mut Subscription) -> Vec<u32> {
        let mut heard = Vec::new();
        while let Ok(Delivered::Event(event)) = subscription.queue.try_recv() {
            heard.push(event.raw.actor.pid);
        }
        heard
    }

    #[test]
    fn each_gets_what_it_wants_and_a_slow_one_is_told_what_it_missed() {
        let hub = Hub::default();
        let mut all = hub.subscribe(EventFilter::default(), 100);
        let mut slow = hub.subscribe(EventFilter::default(), 2);
        let only_seven = EventFilter { pids: vec![Pid(7)], ..EventFilter::default() };
        let mut choosy = hub.subscribe(only_seven, 100);
        for pid in [1, 7, 2, 3] {
            hub.send(&event(pid));
        }
        assert_eq!(heard(&mut all), [1, 7, 2, 3]);
        assert_eq!(heard(&mut slow), [1, 7]);
        assert_eq!(heard(&mut choosy), [7]);
        assert_eq!((all.missed(), slow.missed(), choosy.missed()), (0, 2, 0));
        assert_eq!((slow.missed(), hub.missed()), (0, 2));
    }

    #[test]
    fn who_has_gone_is_forgotten() {
        let hub = Hub::default();
        let gone = hub.subscribe(EventFilter::default(), 1);
        let _stays = hub.subscribe(EventFilter::default(), 1);
        assert_eq!(hub.followers(), 2);
        drop(gone);
        hub.send(&event(1));
        assert_eq!((hub.followers(), hub.missed()), (1, 0));
    }
}
