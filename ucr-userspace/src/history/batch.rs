//! What is handed to the store, and what it says of itself.

use super::entry::{Gap, Gone, Past};

/// What is written at once: all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Sockets that have closed.
    pub gone: Vec<Gone>,
    /// Events.
    pub events: Vec<Past>,
    /// What is missing.
    pub gaps: Vec<Gap>,
    /// For each CPU, the sequence number after the last one that this batch and those before it cover.
    pub sequences: Vec<(u32, u64)>,
    /// Which tracing the sequence numbers are of.
    pub attachment: Attachment,
    /// Now, `CLOCK_BOOTTIME`, nanoseconds: ages are counted from here.
    pub now: u64,
    /// What is to be added to the stamps to have nanoseconds since the epoch.
    pub realtime_offset: i64,
}

/// Tracing from being attached to being detached: as long as that, sequence numbers go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// When it was attached, `CLOCK_BOOTTIME`, nanoseconds.
    pub attached_at: u64,
}

impl Batch {
    /// An empty one.
    #[must_use]
    pub fn new(attachment: Attachment, now: u64, realtime_offset: i64) -> Self {
        let (gone, events, gaps, sequences) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { gone, events, gaps, sequences, attachment, now, realtime_offset }
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Entries that were written.
    pub entries: u64,
    /// Entries that were not, since they are longer than anything the kernel makes.
    pub refused: u64,
    /// Entries that were forgotten to make room, or because of their age.
    pub forgotten: u64,
}

/// What there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Size of the file and of its log, in bytes.
    pub file_bytes: u64,
    /// Closed sockets.
    pub gone: KindFigures,
    /// Events.
    pub events: KindFigures,
    /// Stretches of time in which something is missing.
    pub gaps: u64,
    /// Such stretches that were forgotten.
    pub forgotten_gaps: u64,
}

/// What there is of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindFigures {
    /// Entries.
    pub entries: u64,
    /// Blocks.
    pub blocks: u64,
    /// What they take of the file, in bytes, nearly.
    pub bytes: u64,
    /// Entries that were there once, and were forgotten to make room or because of their age.
    pub forgotten: u64,
    /// The moment of the oldest one, nanoseconds since the epoch.
    pub oldest: Option<u64>,
    /// The moment of the newest one.
    pub newest: Option<u64>,
}
