//! What is missing between the events that a follower gets: each carries the number that it has on its CPU.
//! Pure.

use std::collections::BTreeMap;

/// Where the events of each CPU stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequences {
    cpus: BTreeMap<u32, Cpu>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cpu {
    next: u64,
    /// When the last event was, in the events' own time.
    last: u64,
    holes: Vec<Hole>,
}

/// Events that have not come: numbers from `first` up to before `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hole {
    first: u64,
    end: u64,
    after: u64,
    before: u64,
}

/// Events that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// How many.
    pub events: u64,
    /// They happened after this moment (time of the last event before them; 0: not known).
    pub after: u64,
    /// And before this one.
    pub before: u64,
}

impl Sequences {
    /// With the number that each CPU's next event will have.
    #[must_use]
    pub fn expecting(next: impl IntoIterator<Item = (u32, u64)>) -> Self {
        let cpu = |(cpu, next)| (cpu, Cpu { next, ..Cpu::default() });
        Self { cpus: next.into_iter().map(cpu).collect() }
    }

    /// Takes note of an event.
    ///
    /// Where the kernel can be preempted within a program, two events can have the same number, or come in
    /// the wrong order: one that comes late closes the hole that it had left.
    pub fn take(&mut self, cpu: u32, number: u64, time: u64) {
        let cpu = self.cpus.entry(cpu).or_insert(Cpu { next: number, ..Cpu::default() });
        if number >= cpu.next {
            if number > cpu.next {
                let hole = Hole { first: cpu.next, end: number, after: cpu.last, before: time };
                cpu.holes.push(hole);
            }
            cpu.next = number + 1;
            cpu.last = time;
        } else if let Some(at) =
            cpu.holes.iter().position(|hole| (hole.first..hole.end).contains(&number))
        {
            let hole = cpu.holes.swap_remove(at);
            let parts = [(hole.first, number), (number + 1, hole.end)];
            let left = parts.into_iter().filter(|(first, end)| first < end);
            cpu.holes.extend(left.map(|(first, end)| Hole { first, end, ..hole.clone() }));
        }
    }

    /// Takes note that everything has come that was before these numbers: what they leave out is missing.
    pub fn settle(&mut self, next: impl IntoIterator<Item = (u32, u64)>, time: u64) {
        for (cpu, next) in next {
            let cpu = self.cpus.entry(cpu).or_insert(Cpu { next, ..Cpu::default() });
            if next > cpu.next {
                let hole = Hole { first: cpu.next, end: next, after: cpu.last, before: time };
                cpu.holes.push(hole);
                cpu.next = next;
            }
        }
    }

    /// What has not come so far, over all CPUs; asked twice, it is told once.
    pub fn missing(&mut self) -> Option<Missing> {
        let holes = self.cpus.values_mut().flat_map(|cpu| cpu.holes.drain(..));
        holes.fold(None, |sum: Option<Missing>, hole| {
            let events = hole.end - hole.first;
            let sum = sum.unwrap_or(Missing { events: 0, after: hole.after, before: hole.before });
            Some(Missing {
                events: sum.events + events,
                after: sum.after.min(hole.after),
                before: sum.before.max(hole.before),
            })
        })
    }

    /// The number that each CPU's next event will have.
    pub fn next(&self) -> impl Iterator<Item = (u32, u64)> {
        self.cpus.iter().map(|(cpu, state)| (*cpu, state.next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_order_leaves_nothing_missing() {
        let mut sequences = Sequences::expecting([(0, 5), (1, 0)]);
        for (cpu, number) in [(0, 5), (1, 0), (0, 6), (1, 1)] {
            sequences.take(cpu, number, 100);
        }
        assert_eq!(sequences.missing(), None);
        assert_eq!(sequences.next().collect::<Vec<_>>(), [(0, 7), (1, 2)]);
    }

    #[test]
    fn what_is_missing_is_told_once_with_the_time_between() {
        let mut sequences = Sequences::expecting([(0, 0)]);
        sequences.take(0, 0, 100);
        sequences.take(0, 11, 200);
        sequences.take(1, 7, 150);
        sequences.take(1, 9, 300);
        let missing = Missing { events: 11, after: 100, before: 300 };
        assert_eq!(sequences.missing(), Some(missing));
        assert_eq!(sequences.missing(), None);
    }

    #[test]
    fn what_was_consumed_before_a_restart_and_not_kept_is_missing() {
        let mut sequences = Sequences::expecting([(0, 40)]);
        sequences.take(0, 52, 100);
        assert_eq!(sequences.missing().map(|missing| missing.events), Some(12));
    }

    #[test]
    fn late_and_double_numbers_are_not_missing() {
        let mut sequences = Sequences::expecting([(0, 0)]);
        for number in [0, 2, 1, 1, 5, 4, 6] {
            sequences.take(0, number, 1);
        }
        assert_eq!(sequences.missing().map(|missing| missing.events), Some(1));
    }

    #[test]
    fn what_was_lost_last_is_missing_once_it_is_known_that_no_more_comes() {
        let mut sequences = Sequences::expecting([(0, 0), (1, 4)]);
        sequences.take(0, 0, 100);
        assert_eq!(sequences.missing(), None);
        sequences.settle([(0, 6), (1, 4), (2, 9)], 300);
        let missing = Missing { events: 5, after: 100, before: 300 };
        assert_eq!(sequences.missing(), Some(missing));
        assert_eq!(sequences.next().collect::<Vec<_>>(), [(0, 6), (1, 4), (2, 9)]);
    }

    #[test]
    fn a_cpu_that_nobody_knew_begins_where_it_begins() {
        let mut sequences = Sequences::default();
        sequences.take(9, 1_000, 1);
        assert_eq!(sequences.missing(), None);
    }
}
