//! When the ledger is held against the kernel: every so often, and after something was lost. Pure.

use std::time::{Duration, Instant};

/// What is lost mostly goes on being lost for a moment.
const CALM: Duration = Duration::from_secs(2);
/// Where something is lost all the time, most of the machine's time is for something else.
const REST: Duration = Duration::from_secs(30);

/// When it is done next.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    every: Option<Duration>,
    regular: Option<Instant>,
    after_loss: Option<Instant>,
    done: Option<Instant>,
}

impl Schedule {
    /// Every so often from now on, or never.
    #[must_use]
    pub fn new(every: Option<Duration>, now: Instant) -> Self {
        let regular = every.map(|every| now + every);
        Self { every, regular, after_loss: None, done: None }
    }

    /// Every so often, from the last time or from now on.
    pub fn change(&mut self, every: Option<Duration>, now: Instant) {
        if every != self.every {
            self.every = every;
            self.regular = every.map(|every| self.done.unwrap_or(now) + every);
        }
    }

    /// Something was lost.
    pub fn lost(&mut self, now: Instant) {
        // What is lost again does not put it off.
        self.after_loss.get_or_insert_with(|| {
            let rested = self.done.map(|done| done + REST);
            rested.map_or(now + CALM, |rested| rested.max(now + CALM))
        });
    }

    /// It begins: what is lost from here on is for the next time.
    pub fn begin(&mut self) {
        (self.regular, self.after_loss) = (None, None);
    }

    /// It has ended.
    pub fn end(&mut self, now: Instant) {
        self.done = Some(now);
        self.regular = self.every.map(|every| now + every);
        if let Some(due) = &mut self.after_loss {
            *due = (*due).max(now + REST);
        }
    }

    /// When it is to begin; `None`: not as things are.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.regular.into_iter().chain(self.after_loss).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(600);

    fn after(now: Instant, schedule: Schedule) -> Option<Duration> {
        schedule.due().map(|due| due - now)
    }

    #[test]
    fn it_is_done_every_so_often() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Some(EVERY), now);
        assert_eq!(after(now, schedule), Some(EVERY));
        schedule.begin();
        assert_eq!(schedule.due(), None, "not twice at once");
        schedule.end(now + EVERY);
        assert_eq!(after(now, schedule), Some(2 * EVERY));
    }

    #[test]
    fn what_is_lost_without_end_puts_nothing_off() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Some(EVERY), now);
        for second in 0..600 {
            schedule.lost(now + Duration::from_secs(second));
        }
        assert_eq!(after(now, schedule), Some(CALM));
    }

    #[test]
    fn what_is_lost_without_end_does_not_keep_it_at_work() {
        let now = Instant::now();
        let mut schedule = Schedule::new(None, now);
        schedule.lost(now);
        schedule.begin();
        schedule.lost(now);
        schedule.end(now + CALM);
        assert_eq!(after(now, schedule), Some(CALM + REST));
        schedule.begin();
        schedule.end(now + CALM + REST);
        assert_eq!(schedule.due(), None);
        let later = now + CALM + 2 * REST;
        schedule.lost(later);
        assert_eq!(after(later, schedule), Some(CALM));
    }

    #[test]
    fn another_pace_holds_from_the_last_time_on() {
        let now = Instant::now();
        let mut schedule = Schedule::new(None, now);
        assert_eq!(schedule.due(), None);
        schedule.change(Some(EVERY), now);
        assert_eq!(after(now, schedule), Some(EVERY));
        schedule.begin();
        schedule.end(now + EVERY);
        schedule.change(Some(2 * EVERY), now + EVERY + REST);
        assert_eq!(after(now, schedule), Some(3 * EVERY));
        schedule.change(None, now + EVERY);
        assert_eq!(schedule.due(), None);
    }
}
