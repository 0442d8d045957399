//! Entries within a span of time, block by block.

use std::{path::Path, sync::Arc, vec};

use rusqlite::{Connection, OptionalExtension as _, Statement};

use super::{
    block,
    error::{self, StoreError},
    kept::Kept,
    writer::signed,
};

/// In which order entries are told. Those of one block are sorted; blocks come in the order in which they
/// were written, and may overlap a little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The last one first.
    NewestFirst,
    /// The first one first.
    OldestFirst,
}

/// A span of time of day, in nanoseconds since the epoch; both ends belong to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Its beginning, if it has one.
    pub since: Option<u64>,
    /// Its end, if it has one.
    pub until: Option<u64>,
}

impl Span {
    /// All of time.
    pub const ALL: Self = Self { since: None, until: None };

    /// Whether a moment lies in it.
    #[must_use]
    pub fn contains(&self, moment: u64) -> bool {
        self.since.is_none_or(|since| since <= moment)
            && self.until.is_none_or(|until| moment <= until)
    }

    /// Both ends as the database compares them.
    pub(super) fn signed(self) -> (i64, i64) {
        (self.since.map_or(i64::MIN, signed), self.until.map_or(i64::MAX, signed))
    }
}

/// An entry, and how its stamps are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// Itself.
    pub entry: T,
    /// What is to be added to its stamps to have nanoseconds since the epoch.
    pub realtime_offset: i64,
    /// The boot that it is of (`/proc/sys/kernel/random/boot_id`).
    pub boot: Arc<str>,
}

impl<T> Found<T> {
    /// A stamp of this entry, in nanoseconds since the epoch.
    #[must_use]
    pub fn realtime(&self, stamp: u64) -> u64 {
        stamp.saturating_add_signed(self.realtime_offset)
    }
}

/// What could not be read in a search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unreadable {
    /// Blocks that are damaged.
    pub blocks: u64,
    /// Entries that were in them.
    pub entries: u64,
}

/// A search in its course. It holds one block at a time, and nothing in the database: what is forgotten
/// meanwhile is not met any more.
pub struct Search<'a, T: Kept> {
    next_block: Statement<'a>,
    body: Statement<'a>,
    path: &'a Path,
    span: Span,
    order: Order,
    /// The block that was read last.
    id: Option<i64>,
    current: Option<Current<T>>,
    unreadable: Unreadable,
}

struct Current<T> {
    /// Those that are still to be told.
    entries: vec::IntoIter<T>,
    realtime_offset: i64,
    boot: Arc<str>,
}

/// What stands beside a block.
struct Label {
    id: i64,
    boot: String,
    realtime_offset: i64,
    entries: u64,
}

impl<'a, T: Kept> Search<'a, T> {
    pub(super) fn new(
        connection: &'a Connection,
        path: &'a Path,
        span: Span,
        order: Order,
    ) -> Result<Self, StoreError> {
        let (beyond, direction) = match order {
            Order::NewestFirst => ("<", "DESC"),
            Order::OldestFirst => (">", "ASC"),
        };
        let next = format!(
            "SELECT blocks.id, boot_id, realtime_offset, entries \
             FROM blocks LEFT JOIN boots ON boots.id = boot \
             WHERE kind = ?1 AND blocks.id {beyond} ?2 AND last_realtime >= ?3 \
             AND first_stamp + realtime_offset <= ?4 ORDER BY blocks.id {direction} LIMIT 1",
        );
        let failed = StoreError::sql("search", path);
        Ok(Self {
            next_block: connection.prepare(&next).map_err(&failed)?,
            body: connection.prepare("SELECT body FROM blocks WHERE id = ?1").map_err(&failed)?,
            path,
            span,
            order,
            id: None,
            current: None,
            unreadable: Unreadable::default(),
        })
    }

    /// What could not be read so far.
    #[must_use]
    pub fn unreadable(&self) -> Unreadable {
        self.unreadable
    }

    /// Goes on to the next block that can be read; whether there is one.
    fn advance(&mut self) -> Result<Option<()>, StoreError> {
        self.current = None;
        loop {
            let failed = StoreError::sql("search", self.path);
            let Some(label) = self.next_label().map_err(&failed)? else { return Ok(None) };
            self.id = Some(label.id);
            // Its pages may be damaged as well as what is in them.
            let body = self.body.query_row([label.id], |row| row.get::<_, Vec<u8>>(0));
            let entries = match body.optional() {
                // Forgotten just now.
                Ok(None) => continue,
                Ok(Some(body)) => block::decode::<T>(&body).ok(),
                Err(error) if error::is_damage(&error) => None,
                Err(error) => return Err(failed(error)),
            };
            let Some(entries) = entries else {
                self.unreadable.blocks += 1;
                self.unreadable.entries += label.entries;
                continue;
            };
            let Label { realtime_offset, boot, .. } = label;
            let entries = entries.into_iter();
            self.current = Some(Current { entries, realtime_offset, boot: boot.into() });
            return Ok(Some(()));
        }
    }

    fn next_label(&mut self) -> rusqlite::Result<Option<Label>> {
        let (since, until) = self.span.signed();
        let before = match self.order {
            Order::NewestFirst => i64::MAX,
            Order::OldestFirst => i64::MIN,
        };
        let id = self.id.unwrap_or(before);
        let label = self.next_block.query_row((T::KIND.number(), id, since, until), |row| {
            Ok(Label {
                id: row.get(0)?,
                boot: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
                realtime_offset: row.get(2)?,
                entries: row.get::<_, i64>(3)?.cast_unsigned(),
            })
        });
        label.optional()
    }
}

impl<T: Kept> Iterator for Search<'_, T> {
    type Item = Result<Found<T>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(current) = &mut self.current else {
                match self.advance() {
                    Ok(Some(())) => continue,
                    Ok(None) => return None,
                    Err(error) => return Some(Err(error)),
                }
            };
            let entry = match self.order {
                Order::NewestFirst => current.entries.next_back(),
                Order::OldestFirst => current.entries.next(),
            };
            let Some(entry) = entry else {
                self.current = None;
                continue;
            };
            let Current { realtime_offset, boot, .. } = current;
            let found = Found { entry, realtime_offset: *realtime_offset, boot: Arc::clone(boot) };
            if self.span.contains(found.realtime(found.entry.stamp())) {
                return Some(Ok(found));
            }
        }
    }
}
