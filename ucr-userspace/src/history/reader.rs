//! Those who read the history: any number, beside the one who writes it or without one.

use std::{
    fmt::Write as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{
    batch::Figures,
    entry::{Gap, Gone, Past},
    error::StoreError,
    figures, files, gaps,
    schema::{self, Contents},
    search::{Found, Order, Search, Span},
    store::PATIENCE,
};

/// The history, to be read. Nothing is held between two steps of a search, so that the one who writes is not
/// held up.
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

impl Reader {
    /// Opens a history, also one that cannot be written to: then nobody may write it meanwhile, unless he
    /// had begun before.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::TooNew`], [`StoreError::Damaged`] (nothing is moved),
    /// [`StoreError::Unrecovered`], and what `SQLite` refuses.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        files::require_regular(path)?;
        if !files::is_there(path) {
            return Err(StoreError::Missing { path: path.to_path_buf() });
        }
        let (connection, contents) = match connect(path, Manner::Shared) {
            Err(StoreError::Sql { source, .. }) if is_about_companions(&source) => {
                if files::length(&files::beside(path, files::LOG)) > 0 {
                    return Err(StoreError::Unrecovered { path: path.to_path_buf() });
                }
                connect(path, Manner::Alone)?
            }
            other => other?,
        };
        let path = path.to_path_buf();
        match contents {
            Contents::History => Ok(Self { connection, path }),
            // Somebody is just about to make it, or was killed when he was.
            Contents::Nothing => Err(StoreError::Missing { path }),
        }
    }

    /// Closed sockets within a span of time.
    ///
    /// # Errors
    /// What `SQLite` refuses.
    pub fn gone(&self, span: Span, order: Order) -> Result<Search<'_, Gone>, StoreError> {
        Search::new(&self.connection, &self.path, span, order)
    }

    /// Events within a span of time.
    ///
    /// # Errors
    /// What `SQLite` refuses.
    pub fn events(&self, span: Span, order: Order) -> Result<Search<'_, Past>, StoreError> {
        Search::new(&self.connection, &self.path, span, order)
    }

    /// What is missing within a span of time, in the order in which it was noticed.
    ///
    /// # Errors
    /// What `SQLite` refuses.
    pub fn gaps(&self, span: Span) -> Result<Vec<Found<Gap>>, StoreError> {
        gaps::read(&self.connection, span).map_err(StoreError::sql("read gaps of", &self.path))
    }

    /// What there is.
    ///
    /// # Errors
    /// What `SQLite` refuses.
    pub fn figures(&self) -> Result<Figures, StoreError> {
        figures::read(&self.connection, &self.path)
    }
}

/// How a database is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Somebody may be writing it.
    Shared,
    /// Nobody can: it is read without locks and without its companions.
    Alone,
}

fn connect(path: &Path, manner: Manner) -> Result<(Connection, Contents), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match manner {
        Manner::Shared => Connection::open_with_flags(path, flags),
        Manner::Alone => {
            Connection::open_with_flags(immutable(path), flags | OpenFlags::SQLITE_OPEN_URI)
        }
    };
    let failed = StoreError::sql("open", path);
    let connection = connection.map_err(&failed)?;
    connection.busy_timeout(PATIENCE).map_err(&failed)?;
    connection
        .execute_batch("PRAGMA cache_size = -2048; PRAGMA trusted_schema = OFF;")
        .map_err(&failed)?;
    let contents = schema::look(&connection, path)?;
    Ok((connection, contents))
}

/// What `SQLite` says if it cannot make or open what it keeps beside the database.
fn is_about_companions(error: &rusqlite::Error) -> bool {
    matches!(
        super::error::code(error),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied)
    )
}

/// The URI of a file that nobody writes.
fn immutable(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                uri.push(char::from(*byte));
            }
            // Writing to a string does not fail.
            _ => write!(uri, "%{byte:02x}").unwrap_or_default(),
        }
    }
    uri.push_str("?immutable=1");
    uri
}
