//! What there is, without counting it.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};

use super::{
    batch::{Figures, KindFigures},
    error::StoreError,
    files,
    kept::Kind,
};

/// Reads what is counted as it is written.
pub(super) fn read(connection: &Connection, path: &Path) -> Result<Figures, StoreError> {
    let all = || {
        Ok(Figures {
            file_bytes: files::length(path) + files::length(&files::beside(path, files::LOG)),
            gone: of_kind(connection, Kind::Gone)?,
            events: of_kind(connection, Kind::Past)?,
            gaps: number(connection, "SELECT count(*) FROM gaps")?,
            forgotten_gaps: number(
                connection,
                "SELECT value FROM meta WHERE key = 'forgotten_gaps'",
            )?,
        })
    };
    all().map_err(StoreError::sql("read the figures of", path))
}

fn of_kind(connection: &Connection, kind: Kind) -> rusqlite::Result<KindFigures> {
    let end = |query: &str| {
        let moment = connection.query_row(query, [kind.number()], |row| row.get::<_, i64>(0));
        moment.optional().map(|moment| moment.map(|moment| u64::try_from(moment).unwrap_or(0)))
    };
    let oldest = end("SELECT first_stamp + realtime_offset FROM blocks WHERE kind = ?1 \
                      ORDER BY id LIMIT 1")?;
    let newest = end("SELECT last_realtime FROM blocks WHERE kind = ?1 ORDER BY id DESC LIMIT 1")?;
    connection.query_row(
        "SELECT entries, blocks, cost, forgotten FROM totals WHERE kind = ?1",
        [kind.number()],
        |row| {
            let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let (entries, blocks, bytes, forgotten) =
                (number(0)?, number(1)?, number(2)?, number(3)?);
            Ok(KindFigures { entries, blocks, bytes, forgotten, oldest, newest })
        },
    )
}

fn number(connection: &Connection, query: &str) -> rusqlite::Result<u64> {
    connection.query_row(query, (), |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}
