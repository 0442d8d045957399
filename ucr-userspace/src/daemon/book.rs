//! What has been heard and is not handed over yet, to whoever keeps the history. Pure: what time it is comes
//! from outside.

use ucr_common::{event::kind, inet::AF_UNIX, record::Record};

use crate::{
    history::{
        Attachment, Batch, Closing, Gap, GapReason, Gone, Past,
        entry::{End, How, Identity, Partner, PeerThen},
    },
    ledger::{
        Tracked,
        sequence::{Missing, Sequences},
    },
    model::Who,
    tracer::event::TraceEvent,
};

/// Gaps that wait at most; more are made one.
const GAPS: usize = 16;

/// What is kept of what is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nothing: there is no history.
    Nothing,
    /// Closed sockets.
    Sockets,
    /// Those, and events.
    Events,
}

/// What time it is, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// `CLOCK_BOOTTIME`, which only grows.
    pub boottime: u64,
    /// Time of day, which somebody may set.
    pub realtime: u64,
}

impl Moment {
    /// What turns boot time into time of day now.
    fn offset(self) -> i64 {
        let offset = i128::from(self.realtime) - i128::from(self.boottime);
        i64::try_from(offset).unwrap_or_default()
    }
}

/// What the history knows of this tracing when following begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// For each CPU, the number that it says will come next; empty if it does not know this tracing.
    pub next: Vec<(u32, u64)>,
    /// The last moment of this boot of which it has anything; 0: none.
    pub until: u64,
}

/// What has been heard and is not handed over yet.
#[derive(Debug)]
pub struct Book {
    batch: Batch,
    bytes: usize,
    limit: usize,
    sequences: Sequences,
    /// As they were handed over last.
    handed: Vec<(u32, u64)>,
    /// Up to this moment nothing was missing when following began.
    since: u64,
}

impl Book {
    /// An empty one, which is full with so many bytes.
    #[must_use]
    pub fn new(attachment: Attachment, limit: usize) -> Self {
        Self {
            batch: Batch::new(attachment, 0, 0),
            bytes: 0,
            limit,
            sequences: Sequences::default(),
            handed: Vec::new(),
            since: 0,
        }
    }

    /// With the numbers that the history expects, or, if it does not know this tracing, those that are next.
    pub fn begin(&mut self, known: Known, next: Vec<(u32, u64)>, now: u64) {
        if known.next.is_empty() {
            self.absent(known.until, now);
            self.sequences = Sequences::expecting(next);
            self.since = now;
        } else {
            self.sequences = Sequences::expecting(known.next);
            self.since = known.until;
        }
    }

    /// For some time nobody was there, and events were not even numbered.
    pub fn absent(&mut self, from: u64, until: u64) {
        self.gap(Gap { from, until, reason: GapReason::Absent, lost: None });
    }

    /// Takes note of an event.
    pub fn note(&mut self, event: &TraceEvent, kept: Kept) {
        let raw = &event.raw;
        self.sequences.take(raw.cpu, raw.sequence, raw.time);
        // The history is of unix sockets.
        let kept = if event.is_inet() { Kept::Nothing } else { kept };
        if kept != Kept::Nothing
            && raw.kind == kind::CLOSE
            && raw.result >= 0
            && let Some(gone) = gone(event)
        {
            self.batch.gone.push(gone);
            self.bytes += size_of::<Gone>();
        }
        if kept == Kept::Events {
            self.batch.events.push(Past::from(event));
            self.bytes += size_of::<Past>();
        }
    }

    /// Takes note of sockets that a reconciliation has found gone.
    pub fn note_removed(&mut self, records: &[Record], now: u64) {
        let unix = records.iter().filter(|record| record.family == AF_UNIX);
        let gone = unix.filter_map(|record| {
            let closing = Closing {
                at: now,
                closer: None,
                end: End::Closed,
                peer: peer(record),
                how: How::Reconciled,
            };
            Some(Gone::new(&Tracked::new(record, None).ok()?, closing))
        });
        let before = self.batch.gone.len();
        self.batch.gone.extend(gone);
        let added = self.batch.gone.len() - before;
        self.bytes += added * size_of::<Gone>();
    }

    /// Everything has come that was before these numbers.
    pub fn settle(&mut self, next: Vec<(u32, u64)>, now: u64) {
        self.sequences.settle(next, now);
    }

    /// Makes a gap of what the numbers say has not come, and says how much that is.
    pub fn note_missing(&mut self) -> u64 {
        let Some(Missing { events, after, before }) = self.sequences.missing() else { return 0 };
        // Of a CPU that has not said anything since we began.
        let from = if after == 0 { self.since.min(before) } else { after };
        self.gap(Gap { from, until: before, reason: GapReason::Lost, lost: Some(events) });
        events
    }

    fn gap(&mut self, gap: Gap) {
        let is_last = |last: &&mut Gap| last.reason == gap.reason && last.until >= gap.from;
        let is_full = self.batch.gaps.len() >= GAPS;
        let same = if is_full {
            self.batch.gaps.iter_mut().rev().find(|last| last.reason == gap.reason)
        } else {
            self.batch.gaps.last_mut().filter(is_last)
        };
        match same {
            Some(last) => {
                last.from = last.from.min(gap.from);
                last.until = last.until.max(gap.until);
                last.lost = last.lost.zip(gap.lost).map(|(before, more)| before + more);
            }
            None => self.batch.gaps.push(gap),
        }
    }

    /// Whether no more should be heard before it is handed over.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes >= self.limit
    }

    /// Whether there is anything that was not handed over.
    #[must_use]
    pub fn has_news(&self) -> bool {
        let Batch { gone, events, gaps, .. } = &self.batch;
        let is_empty = gone.is_empty() && events.is_empty() && gaps.is_empty();
        !is_empty || self.sequences.next().ne(self.handed.iter().copied())
    }

    /// All of it, with the numbers that it covers.
    pub fn hand_over(&mut self, now: Moment) -> Batch {
        let (boottime, offset) = (now.boottime, now.offset());
        let empty = Batch::new(self.batch.attachment.clone(), boottime, offset);
        let mut batch = std::mem::replace(&mut self.batch, empty);
        batch.now = boottime;
        batch.realtime_offset = offset;
        batch.sequences = self.sequences.next().collect();
        self.handed.clone_from(&batch.sequences);
        self.bytes = 0;
        batch
    }

    /// It could not be taken: as if it had not been handed over.
    pub fn put_back(&mut self, batch: Batch) {
        let bytes = size_of_val(batch.gone.as_slice()) + size_of_val(batch.events.as_slice());
        self.bytes = bytes;
        self.handed.clear();
        self.batch = batch;
    }
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

#[cfg(test)]
mod tests;
