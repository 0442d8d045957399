//! The database's tables, and whether a file has them.

use std::path::Path;

use rusqlite::Connection;

use super::{
    error::{Damage, StoreError},
    kept::Kind,
};

/// "ucrh": marks the file as ours, also for `file(1)`.
pub(super) const APPLICATION_ID: i32 = 0x7563_7268;

/// Version of the tables (`user_version`).
///
/// # Changelog
///
/// - 1: the first one.
pub(super) const VERSION: i32 = 1;

/// Stamps are `CLOCK_BOOTTIME` nanoseconds; with `realtime_offset` added they are nanoseconds since the
/// epoch. `cost` is what a block takes of the file. Numbers of blocks are not used again
/// (`AUTOINCREMENT`), so that whoever reads from block to block meets each one once.
const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE boots (id INTEGER PRIMARY KEY AUTOINCREMENT, boot_id TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE blocks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind INTEGER NOT NULL,
    boot INTEGER NOT NULL,
    first_stamp INTEGER NOT NULL,
    last_stamp INTEGER NOT NULL,
    realtime_offset INTEGER NOT NULL,
    last_realtime INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX blocks_by_kind ON blocks (kind);
CREATE INDEX blocks_by_age ON blocks (boot, last_stamp);
CREATE INDEX blocks_by_date ON blocks (boot, last_realtime);
CREATE TABLE totals (
    kind INTEGER PRIMARY KEY,
    blocks INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    forgotten INTEGER NOT NULL
) STRICT;
CREATE TABLE gaps (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    boot INTEGER NOT NULL,
    from_stamp INTEGER NOT NULL,
    until_stamp INTEGER NOT NULL,
    realtime_offset INTEGER NOT NULL,
    reason INTEGER NOT NULL,
    lost INTEGER
) STRICT;
CREATE TABLE sequences (
    boot INTEGER NOT NULL,
    attached_at INTEGER NOT NULL,
    cpu INTEGER NOT NULL,
    next INTEGER NOT NULL,
    PRIMARY KEY (boot, attached_at, cpu)
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('forgotten_gaps', 0);
";

/// What a database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// Nothing is in it yet.
    Nothing,
    /// Our tables.
    History,
}

/// Looks at what a database says of itself.
///
/// # Errors
/// [`StoreError::TooNew`], [`StoreError::Damaged`], and what `SQLite` refuses.
pub(super) fn look(connection: &Connection, path: &Path) -> Result<Contents, StoreError> {
    let number = |query: &str| connection.query_row(query, (), |row| row.get::<_, i32>(0));
    let look = StoreError::sql("look at", path);
    let application = number("PRAGMA application_id").map_err(&look)?;
    let version = number("PRAGMA user_version").map_err(&look)?;
    let objects = number("SELECT count(*) FROM sqlite_schema").map_err(&look)?;
    let damaged = |why| Err(StoreError::Damaged { path: path.to_path_buf(), why });
    match (application, version) {
        (0, 0) if objects == 0 => Ok(Contents::Nothing),
        (APPLICATION_ID, VERSION) => Ok(Contents::History),
        (APPLICATION_ID, found) if found > VERSION => {
            Err(StoreError::TooNew { path: path.to_path_buf(), found, supported: VERSION })
        }
        (APPLICATION_ID, found) => damaged(Damage::Schema { found }),
        (found, _) => damaged(Damage::OtherApplication { found }),
    }
}

/// Makes the tables, all or none.
pub(super) fn make(connection: &mut Connection) -> rusqlite::Result<()> {
    // Has to be said before there is any table: without it, a file whose limit was lowered stays as it is.
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    log_ahead(connection)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    for kind in Kind::ALL {
        transaction.execute("INSERT INTO totals VALUES (?1, 0, 0, 0, 0)", [kind.number()])?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Readers and the writer do not wait for each other with a write-ahead log.
pub(super) fn log_ahead(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA journal_mode = WAL", (), |_| Ok(()))
}

/// Holds the database's pages against each other. It reads the whole file.
///
/// # Errors
/// [`StoreError::Damaged`] with the first thing that is wrong.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let first: String = connection
        .query_row("PRAGMA quick_check(1)", (), |row| row.get(0))
        .map_err(StoreError::sql("check", path))?;
    if first == "ok" {
        return Ok(());
    }
    Err(StoreError::Damaged { path: path.to_path_buf(), why: Damage::Check { first } })
}
