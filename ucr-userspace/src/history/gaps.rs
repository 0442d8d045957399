//! Stretches of time in which something is missing, as rows.

use std::sync::Arc;

use rusqlite::{Connection, Row, Transaction};

use super::{
    batch::Batch,
    entry::{Gap, GapReason},
    search::{Found, Span},
    writer::signed,
};

/// More are not kept; the oldest go first, and are counted.
const MOST: i64 = 10_000;

/// As it stands in the table. Never renumbered.
fn number(reason: GapReason) -> u8 {
    match reason {
        GapReason::Lost => 1,
        GapReason::Absent => 2,
        GapReason::Unwritten => 3,
        GapReason::Damaged => 4,
    }
}

fn reason(number: u8) -> Option<GapReason> {
    use GapReason::{Absent, Damaged, Lost, Unwritten};
    [Lost, Absent, Unwritten, Damaged].into_iter().find(|reason| self::number(*reason) == number)
}

/// Writes a batch's gaps. One that goes on where the last one ended, for the same reason, makes that one
/// longer: a machine that loses something every second has one gap, not thousands.
pub(super) fn write(
    transaction: &Transaction<'_>,
    boot: i64,
    batch: &Batch,
) -> rusqlite::Result<()> {
    for gap in &batch.gaps {
        write_one(transaction, boot, batch.realtime_offset, gap)?;
    }
    if batch.gaps.is_empty() {
        return Ok(());
    }
    forget(transaction, "id <= (SELECT max(id) FROM gaps) - ?1", [MOST])
}

fn write_one(
    transaction: &Transaction<'_>,
    boot: i64,
    offset: i64,
    gap: &Gap,
) -> rusqlite::Result<()> {
    let (from, until) = (signed(gap.from), signed(gap.until));
    let lost = gap.lost.map(signed);
    let longer = transaction.execute(
        "UPDATE gaps SET until_stamp = max(until_stamp, ?4), lost = lost + ?5 \
         WHERE id = (SELECT max(id) FROM gaps) AND boot = ?1 AND reason = ?2 \
         AND ?3 BETWEEN from_stamp AND until_stamp",
        (boot, number(gap.reason), from, until, lost),
    )?;
    if longer == 0 {
        transaction.execute(
            "INSERT INTO gaps (boot, from_stamp, until_stamp, realtime_offset, reason, lost) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (boot, from, until, offset, number(gap.reason), lost),
        )?;
    }
    Ok(())
}

/// See [`super::writer`]: what is of this boot is as old as boot time says.
pub(super) fn forget_old(
    transaction: &Transaction<'_>,
    boot: i64,
    stamp: i64,
    realtime: i64,
) -> rusqlite::Result<()> {
    forget(
        transaction,
        "CASE boot WHEN ?1 THEN until_stamp < ?2 ELSE until_stamp + realtime_offset < ?3 END",
        (boot, stamp, realtime),
    )
}

fn forget(
    transaction: &Transaction<'_>,
    condition: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<()> {
    let forgotten =
        transaction.execute(&format!("DELETE FROM gaps WHERE {condition}"), parameters)?;
    let forgotten = i64::try_from(forgotten).unwrap_or(i64::MAX);
    if forgotten > 0 {
        transaction.execute(
            "UPDATE meta SET value = value + ?1 WHERE key = 'forgotten_gaps'",
            [forgotten],
        )?;
    }
    Ok(())
}

/// Those that touch a span of time, oldest first.
pub(super) fn read(connection: &Connection, span: Span) -> rusqlite::Result<Vec<Found<Gap>>> {
    let (since, until) = span.signed();
    let mut statement = connection.prepare(
        "SELECT from_stamp, until_stamp, realtime_offset, reason, lost, boot_id \
         FROM gaps LEFT JOIN boots ON boots.id = boot \
         WHERE until_stamp + realtime_offset >= ?1 AND from_stamp + realtime_offset <= ?2 \
         ORDER BY gaps.id",
    )?;
    statement.query_map((since, until), read_one)?.collect()
}

fn read_one(row: &Row<'_>) -> rusqlite::Result<Found<Gap>> {
    let stamp = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let known: u8 = row.get(3)?;
    let entry = Gap {
        from: stamp(0)?,
        until: stamp(1)?,
        reason: reason(known)
            .ok_or(rusqlite::Error::IntegralValueOutOfRange(3, i64::from(known)))?,
        lost: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
    };
    let boot = row.get::<_, Option<String>>(5)?.unwrap_or_default();
    Ok(Found { entry, realtime_offset: row.get(2)?, boot: Arc::from(boot) })
}
