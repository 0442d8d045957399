//! One transaction: a batch becomes blocks, gaps and sequence numbers, and what is too old or too much goes.

use std::path::Path;

use rusqlite::{OptionalExtension as _, Transaction};

use super::{
    batch::{Appended, Batch},
    block::{self, Encoded, Encoder, MAX_ENTRIES, Pushed},
    error::StoreError,
    gaps,
    kept::{Kept, Kind},
    limits::{self, Limits},
    totals::Totals,
};

/// A block that is shorter takes in what comes next: as many bytes are written for one of any length.
const SHORT: i64 = 3 << 10;

/// Entries of one block may be told by clocks that differ by so much, in nanoseconds: clocks are always being
/// corrected a little.
const SAME_CLOCK: u64 = 1_000_000;

/// Writes one batch.
pub(super) struct Writer<'a> {
    transaction: &'a Transaction<'a>,
    encoder: &'a mut Encoder,
    limits: &'a Limits,
    batch: &'a Batch,
    path: &'a Path,
    totals: Totals,
    boot: i64,
    appended: Appended,
}

/// A last block that is to be written again, with more in it.
struct Tail<T> {
    id: i64,
    realtime_offset: i64,
    entries: Vec<T>,
}

impl<'a> Writer<'a> {
    /// Begins; the boot gets a number if it has none.
    pub(super) fn new(
        transaction: &'a Transaction<'a>,
        encoder: &'a mut Encoder,
        limits: &'a Limits,
        batch: &'a Batch,
        path: &'a Path,
    ) -> Result<Self, StoreError> {
        let failed = StoreError::sql("append to", path);
        let boot_id = &batch.attachment.boot_id;
        transaction
            .execute("INSERT INTO boots (boot_id) VALUES (?1) ON CONFLICT DO NOTHING", [boot_id])
            .map_err(&failed)?;
        let boot = transaction
            .query_row("SELECT id FROM boots WHERE boot_id = ?1", [boot_id], |row| row.get(0))
            .map_err(&failed)?;
        let totals = Totals::read(transaction).map_err(&failed)?;
        let appended = Appended::default();
        Ok(Self { transaction, encoder, limits, batch, path, totals, boot, appended })
    }

    /// Deletes the oldest blocks of what is too much.
    pub(super) fn shrink(
        transaction: &Transaction<'_>,
        limits: &Limits,
        path: &Path,
    ) -> Result<(), StoreError> {
        let shrink = || {
            let mut totals = Totals::read(transaction)?;
            totals.make_room(transaction, limits, 0)?;
            totals.write(transaction)
        };
        shrink().map_err(StoreError::sql("make room in", path))
    }

    /// All of it but the totals.
    pub(super) fn write(&mut self) -> Result<(), StoreError> {
        let batch = self.batch;
        self.forget_old()?;
        self.put(&batch.gone)?;
        self.put(&batch.events)?;
        gaps::write(self.transaction, self.boot, batch)
            .and_then(|()| self.sequences())
            .map_err(self.failed())
    }

    /// The totals.
    pub(super) fn finish(self) -> Result<Appended, StoreError> {
        self.totals.write(self.transaction).map_err(self.failed())?;
        Ok(Appended { forgotten: self.totals.newly_forgotten(), ..self.appended })
    }

    fn failed(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<'a> {
        StoreError::sql("append to", self.path)
    }

    /// What is of this boot is as old as boot time says, whatever happens to the clock. What is of an earlier
    /// one can only be as old as the clock says; one that was set back makes it younger.
    fn forget_old(&mut self) -> Result<(), StoreError> {
        let age = self.limits.max_age_ns();
        let stamp = self.batch.now.saturating_sub(age);
        let realtime = self.batch.now.saturating_add_signed(self.batch.realtime_offset);
        let realtime = realtime.saturating_sub(age);
        let (stamp, realtime) = (signed(stamp), signed(realtime));
        let (transaction, boot) = (self.transaction, self.boot);
        self.totals
            .forget(transaction, "boot = ?1 AND last_stamp < ?2", (boot, stamp))
            .and_then(|()| {
                // Boot by boot: an index leads to the oldest of each.
                let condition =
                    "boot IN (SELECT id FROM boots WHERE id <> ?1) AND last_realtime < ?2";
                self.totals.forget(transaction, condition, (boot, realtime))
            })
            .and_then(|()| gaps::forget_old(transaction, boot, stamp, realtime))
            .map_err(self.failed())
    }

    /// Entries of one kind, as blocks.
    fn put<T: Kept + Clone>(&mut self, entries: &[T]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let tail = self.take_tail::<T>(entries.len()).map_err(self.failed())?;
        let (mut id, offset, before) = match tail {
            Some(tail) => (Some(tail.id), tail.realtime_offset, tail.entries),
            None => (None, self.batch.realtime_offset, Vec::new()),
        };
        let mut sorted: Vec<&T> = before.iter().chain(entries).collect();
        sorted.sort_by_key(|entry| entry.stamp());
        for entry in sorted {
            match self.encoder.push(entry)? {
                Pushed::Kept => self.appended.entries += 1,
                Pushed::TooLong => self.appended.refused += 1,
                Pushed::Full => {
                    self.appended.entries += 1;
                    self.end_block::<T>(id.take(), offset)?;
                }
            }
        }
        self.end_block::<T>(id, offset)?;
        // Those of the tail were there before.
        let again = u64::try_from(before.len()).unwrap_or(0);
        self.appended.entries = self.appended.entries.saturating_sub(again);
        Ok(())
    }

    /// Takes the last block out, if it is short and of the same boot and clock. One that cannot be read stays
    /// where it is.
    fn take_tail<T: Kept>(&mut self, more: usize) -> rusqlite::Result<Option<Tail<T>>> {
        let last = self.transaction.query_row(
            "SELECT id, boot, realtime_offset, cost, \
             CASE WHEN length(body) < ?2 THEN body END FROM blocks WHERE kind = ?1 \
             ORDER BY id DESC LIMIT 1",
            (T::KIND.number(), SHORT),
            |row| {
                let facts: (i64, i64, i64, i64) =
                    (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
                Ok((facts, row.get::<_, Option<Vec<u8>>>(4)?))
            },
        );
        let Some(((id, boot, realtime_offset, cost), Some(body))) = last.optional()? else {
            return Ok(None);
        };
        if boot != self.boot || realtime_offset.abs_diff(self.batch.realtime_offset) > SAME_CLOCK {
            return Ok(None);
        }
        let Some(entries) = block::decode::<T>(&body).ok() else {
            return Ok(None);
        };
        if entries.len() + more > MAX_ENTRIES {
            return Ok(None);
        }
        self.transaction.execute("DELETE FROM blocks WHERE id = ?1", [id])?;
        self.totals.subtract(T::KIND, entries.len(), cost);
        Ok(Some(Tail { id, realtime_offset, entries }))
    }

    /// Makes a block of what has been pushed, if there is anything, and room for it.
    fn end_block<T: Kept>(&mut self, id: Option<i64>, offset: i64) -> Result<(), StoreError> {
        match self.encoder.finish::<T>()? {
            Some(block) => self.insert(T::KIND, &block, id, offset).map_err(self.failed()),
            None => Ok(()),
        }
    }

    fn insert(
        &mut self,
        kind: Kind,
        block: &Encoded,
        id: Option<i64>,
        offset: i64,
    ) -> rusqlite::Result<()> {
        let cost = limits::cost(block.bytes.len());
        self.totals.make_room(self.transaction, self.limits, cost)?;
        self.totals.add(kind, block.entries, cost);
        let last = signed(block.last_stamp);
        let mut statement = self.transaction.prepare(
            "INSERT INTO blocks (id, kind, boot, first_stamp, last_stamp, realtime_offset, \
             last_realtime, entries, cost, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?;
        statement.execute((
            id,
            kind.number(),
            self.boot,
            signed(block.first_stamp),
            last,
            offset,
            last.saturating_add(offset),
            block.entries,
            signed(cost),
            &block.bytes,
        ))?;
        Ok(())
    }

    /// Only of the attachment that is: nobody can ask for those of an earlier one again.
    fn sequences(&self) -> rusqlite::Result<()> {
        let Batch { sequences, attachment, .. } = self.batch;
        let attached_at = attachment.attached_at.cast_signed();
        self.transaction.execute(
            "DELETE FROM sequences WHERE boot <> ?1 OR attached_at <> ?2",
            (self.boot, attached_at),
        )?;
        let mut statement =
            self.transaction.prepare("INSERT OR REPLACE INTO sequences VALUES (?1, ?2, ?3, ?4)")?;
        sequences.iter().try_for_each(|(cpu, next)| {
            statement.execute((self.boot, attached_at, cpu, next.cast_signed())).map(drop)
        })
    }
}

/// As it is kept: `SQLite` has signed numbers, and no clock reaches beyond them.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
