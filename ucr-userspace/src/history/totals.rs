//! How much there is of each kind, kept beside it, and what goes when it is too much.

use rusqlite::{Params, Transaction};

use super::{kept::Kind, limits::Limits, writer::signed};

/// Of both kinds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    gone: Total,
    past: Total,
    newly_forgotten: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Total {
    blocks: u64,
    entries: u64,
    cost: u64,
    forgotten: u64,
}

impl Totals {
    /// As they were written.
    pub(super) fn read(transaction: &Transaction<'_>) -> rusqlite::Result<Self> {
        let of = |kind: Kind| {
            transaction.query_row(
                "SELECT blocks, entries, cost, forgotten FROM totals WHERE kind = ?1",
                [kind.number()],
                |row| {
                    let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
                    let (blocks, entries, cost, forgotten) =
                        (number(0)?, number(1)?, number(2)?, number(3)?);
                    Ok(Total { blocks, entries, cost, forgotten })
                },
            )
        };
        Ok(Self { gone: of(Kind::Gone)?, past: of(Kind::Past)?, newly_forgotten: 0 })
    }

    /// As they are now.
    pub(super) fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut statement = transaction.prepare(
            "UPDATE totals SET blocks = ?2, entries = ?3, cost = ?4, forgotten = ?5 WHERE kind = ?1",
        )?;
        for (kind, total) in [(Kind::Gone, self.gone), (Kind::Past, self.past)] {
            let Total { blocks, entries, cost, forgotten } = total;
            let [blocks, entries, cost, forgotten] = [blocks, entries, cost, forgotten].map(signed);
            statement.execute((kind.number(), blocks, entries, cost, forgotten))?;
        }
        Ok(())
    }

    /// How many entries were forgotten since they were read.
    pub(super) fn newly_forgotten(&self) -> u64 {
        self.newly_forgotten
    }

    /// A block has come.
    pub(super) fn add(&mut self, kind: Kind, entries: u32, cost: u64) {
        let total = self.of(kind);
        total.blocks += 1;
        total.entries += u64::from(entries);
        total.cost += cost;
    }

    /// A block has gone, and what is in it comes again.
    pub(super) fn subtract(&mut self, kind: Kind, entries: usize, cost: i64) {
        let total = self.of(kind);
        total.blocks = total.blocks.saturating_sub(1);
        total.entries = total.entries.saturating_sub(u64::try_from(entries).unwrap_or(u64::MAX));
        total.cost = total.cost.saturating_sub(cost.cast_unsigned());
    }

    /// Deletes oldest blocks until there is room for one that costs so much: of events, as long as they have
    /// more than their share.
    pub(super) fn make_room(
        &mut self,
        transaction: &Transaction<'_>,
        limits: &Limits,
        cost: u64,
    ) -> rusqlite::Result<()> {
        while self.gone.cost + self.past.cost + cost > limits.budget() {
            let kind = match (self.gone.blocks, self.past.blocks) {
                (0, 0) => break,
                (0, _) => Kind::Past,
                (_, 1..) if self.past.cost > limits.events_bytes => Kind::Past,
                _ => Kind::Gone,
            };
            let before = self.of(kind).blocks;
            let oldest = "id = (SELECT min(id) FROM blocks WHERE kind = ?1)";
            self.forget(transaction, oldest, [kind.number()])?;
            if self.of(kind).blocks == before {
                // The totals claim a block that is not there; without this we would look for it forever.
                *self.of(kind) = Total { forgotten: self.of(kind).forgotten, ..Total::default() };
            }
        }
        Ok(())
    }

    /// Deletes the blocks for which a condition holds.
    pub(super) fn forget(
        &mut self,
        transaction: &Transaction<'_>,
        condition: &str,
        parameters: impl Params,
    ) -> rusqlite::Result<()> {
        let query = format!("DELETE FROM blocks WHERE {condition} RETURNING kind, entries, cost");
        let mut statement = transaction.prepare(&query)?;
        let mut rows = statement.query(parameters)?;
        while let Some(row) = rows.next()? {
            let (kind, entries, cost): (u8, u32, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let Some(kind) = Kind::ALL.into_iter().find(|known| known.number() == kind) else {
                continue;
            };
            self.subtract(kind, usize::try_from(entries).unwrap_or(usize::MAX), cost);
            self.of(kind).forgotten += u64::from(entries);
            self.newly_forgotten += u64::from(entries);
        }
        Ok(())
    }

    fn of(&mut self, kind: Kind) -> &mut Total {
        match kind {
            Kind::Gone => &mut self.gone,
            Kind::Past => &mut self.past,
        }
    }
}
