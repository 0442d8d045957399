//! The one who writes the history.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::Flock;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};

use super::{
    batch::{Appended, Attachment, Batch, Figures},
    block::Encoder,
    error::{Damage, StoreError},
    figures, files,
    limits::{Limits, PAGE},
    schema::{self, Contents},
    writer::Writer,
};

/// How long to wait for whoever else has the database locked: only foreign programs do that, and a reader
/// that recovers it.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A log that is longer than this, and cannot be emptied, is being held by a reader that does not end.
const LONGEST_LOG: u64 = 64 << 20;

/// The history, to be written. One process at a time has it; dropping it gives it back.
pub struct Store {
    // Closed before the lock is given back: fields are dropped in their order.
    connection: Connection,
    encoder: Encoder,
    path: PathBuf,
    limits: Limits,
    longest_log: u64,
    _lock: Flock<File>,
}

/// A history that has been opened.
pub struct Opened {
    /// Itself.
    pub store: Store,
    /// What was there before, if that was damaged: another one has been begun.
    pub damaged: Option<Aside>,
}

/// A damaged history that was put aside.
#[derive(Debug)]
pub struct Aside {
    /// Where it is now.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: Damage,
}

impl Store {
    /// Opens the history, or begins one. A damaged file is renamed, together with what belongs to it, to
    /// `NAME.damaged-TIME`. All of the file is read for that.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if somebody else writes it, [`StoreError::TooNew`], and what the kernel or
    /// `SQLite` refuse.
    pub fn open(path: &Path, limits: Limits) -> Result<Opened, StoreError> {
        let lock = files::lock(path)?;
        let (connection, damaged) = match begin(path) {
            Err(StoreError::Damaged { why, .. }) => {
                let aside = Aside { path: files::move_aside(path)?, why };
                (begin(path)?, Some(aside))
            }
            other => (other?, None),
        };
        let mut store = Self {
            connection,
            encoder: Encoder::new()?,
            path: path.to_path_buf(),
            limits,
            longest_log: LONGEST_LOG,
            _lock: lock,
        };
        store.fit()?;
        Ok(Opened { store, damaged })
    }

    /// Writes a batch, all of it or nothing, and forgets what is too old or has no room beside it.
    /// Entries need not be in order; they are found fastest if they nearly are.
    ///
    /// # Errors
    /// After one that passes ([`StoreError::is_passing`]) the same batch can be tried again, or be counted
    /// as a gap in a later one. After [`StoreError::Damaged`] the store is to be opened anew.
    pub fn append(&mut self, batch: &Batch) -> Result<Appended, StoreError> {
        self.require_log_to_be_short()?;
        self.encoder.clear();
        let failed = StoreError::sql("append to", &self.path);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&failed)?;
        let mut writer =
            Writer::new(&transaction, &mut self.encoder, &self.limits, batch, &self.path)?;
        writer.write()?;
        let appended = writer.finish()?;
        transaction.commit().map_err(&failed)?;
        Ok(appended)
    }

    /// For each CPU, the sequence number after the last one that was covered when this attachment was
    /// last written of.
    ///
    /// # Errors
    /// What `SQLite` refuses.
    pub fn sequences(&self, attachment: &Attachment) -> Result<Vec<(u32, u64)>, StoreError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT cpu, next FROM sequences JOIN boots ON boots.id = boot \
                 WHERE boot_id = ?1 AND attached_at = ?2 ORDER BY cpu",
            )?;
            let attached_at = attachment.attached_at.cast_signed();
            let rows = statement.query_map((&attachment.boot_id, attached_at), |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(StoreError::sql("read sequence numbers of", &self.path))
    }

    /// The last moment of a boot of which anything is written, `CLOCK_BOOTTIME`.
    ///
    /// # Errors
    /// What `SQLite` refuses.
    pub fn last_stamp(&self, boot_id: &str) -> Result<Option<u64>, StoreError> {
        let stamp = self.connection.query_row(
            "SELECT max(stamp) FROM (\
             SELECT max(last_stamp) AS stamp FROM blocks JOIN boots ON boots.id = boot \
             WHERE boot_id = ?1 UNION ALL \
             SELECT max(until_stamp) FROM gaps JOIN boots ON boots.id = boot WHERE boot_id = ?1)",
            [boot_id],
            |row| row.get::<_, Option<i64>>(0),
        );
        let stamp = stamp.map_err(StoreError::sql("read the last moment of", &self.path))?;
        Ok(stamp.map(i64::cast_unsigned))
    }

    /// What there is. Cheap: nothing is counted for it.
    ///
    /// # Errors
    /// What `SQLite` refuses.
    pub fn figures(&self) -> Result<Figures, StoreError> {
        figures::read(&self.connection, &self.path)
    }

    /// What is written.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes the limits.
    ///
    /// # Errors
    /// What `SQLite` refuses: then they hold for what is written from now on.
    pub fn set_limits(&mut self, limits: Limits) -> Result<(), StoreError> {
        self.limits = limits;
        self.fit()
    }

    /// Brings the file within its limits, which may have been lowered, and forgets boots of which nothing
    /// is kept.
    fn fit(&mut self) -> Result<(), StoreError> {
        let failed = StoreError::sql("open", &self.path);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&failed)?;
        Writer::shrink(&transaction, &self.limits, &self.path)?;
        transaction
            .execute(
                "DELETE FROM boots WHERE id NOT IN (SELECT boot FROM blocks) \
                 AND id NOT IN (SELECT boot FROM gaps) AND id NOT IN (SELECT boot FROM sequences)",
                (),
            )
            .map_err(&failed)?;
        transaction.commit().map_err(&failed)?;
        let max_pages = self.limits.max_pages();
        let pages: i64 = self
            .connection
            .query_row("PRAGMA page_count", (), |row| row.get(0))
            .map_err(&failed)?;
        if pages.cast_unsigned() > max_pages {
            vacuum(&self.connection).map_err(&failed)?;
        }
        self.connection
            .query_row(&format!("PRAGMA max_page_count = {max_pages}"), (), |_| Ok(()))
            .map_err(&failed)
    }

    /// Without this, a reader that never ends would make the log as large as the disk.
    fn require_log_to_be_short(&self) -> Result<(), StoreError> {
        let log = files::beside(&self.path, files::LOG);
        if files::length(&log) <= self.longest_log {
            return Ok(());
        }
        let empty = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()));
        match empty.map_err(StoreError::sql("empty the log of", &self.path)) {
            Err(error) if !error.is_passing() => return Err(error),
            _ => {}
        }
        match files::length(&log) {
            bytes if bytes > self.longest_log => {
                Err(StoreError::HeldBack { path: self.path.clone(), bytes })
            }
            _ => Ok(()),
        }
    }
}

/// Opens the database, or makes one, and checks it.
fn begin(path: &Path) -> Result<Connection, StoreError> {
    files::require_regular(path)?;
    if !files::is_there(path) && files::is_there(&files::beside(path, files::LOG)) {
        return Err(StoreError::Damaged { path: path.to_path_buf(), why: Damage::Headless });
    }
    files::provide(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let failed = StoreError::sql("open", path);
    let mut connection = Connection::open_with_flags(path, flags).map_err(&failed)?;
    // Until it is known to be whole, closing it must not write its log into it.
    let keep_log = |connection: &Connection, keep| {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)
    };
    keep_log(&connection, true).map_err(&failed)?;
    connection.busy_timeout(PATIENCE).map_err(&failed)?;
    match schema::look(&connection, path)? {
        Contents::Nothing => schema::make(&mut connection).map_err(&failed)?,
        Contents::History => {
            schema::check(&connection, path)?;
            schema::log_ahead(&connection).map_err(&failed)?;
        }
    }
    settle(&connection).map_err(&failed)?;
    keep_log(&connection, false).map_err(&failed)?;
    Ok(connection)
}

/// How the database is worked with. A power failure may cost the last batches, never the file.
fn settle(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "PRAGMA synchronous = NORMAL;
         PRAGMA cache_size = -2048;
         PRAGMA wal_autocheckpoint = 512;
         PRAGMA journal_size_limit = 4194304;
         PRAGMA cell_size_check = ON;
         PRAGMA trusted_schema = OFF;",
    )
}

/// Gives free pages at the end of the file back to the file system. One is freed for each row of the answer.
fn vacuum(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("PRAGMA incremental_vacuum")?;
    let mut rows = statement.query(())?;
    while rows.next()?.is_some() {}
    drop(rows);
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
}

/// It may be written by a thread of its own.
const _: fn() = || {
    fn can_be_sent<T: Send>() {}
    can_be_sent::<Store>();
};

/// The file's hard limit is a whole number of pages.
const _: () = assert!(super::limits::MIN_BYTES.is_multiple_of(PAGE));

#[cfg(test)]
mod tests;
