//! What can go wrong with the history's file, in types.

use std::{
    io,
    path::{Path, PathBuf},
};

use rusqlite::{ErrorCode, ffi};

use super::block::EncodeError;

/// Why the history cannot be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be worked with.
    #[error("{operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something else has the file's name.
    #[error("{path} is not a regular file")]
    NotRegular {
        /// Its path.
        path: PathBuf,
    },
    /// There is nothing to read.
    #[error("there is no history at {path}")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Somebody else writes it.
    #[error("{path} is being written by {}", holder(*.pid))]
    InUse {
        /// Its path.
        path: PathBuf,
        /// By whom, if that can be told.
        pid: Option<u32>,
    },
    /// Written by a later ucr.
    #[error(
        "{path} has schema {found}, which is newer than {supported}, the newest that this ucr knows"
    )]
    TooNew {
        /// Its path.
        path: PathBuf,
        /// Its schema.
        found: i32,
        /// The newest that can be used.
        supported: i32,
    },
    /// What is in the file is not what was written.
    #[error("{path} is damaged")]
    Damaged {
        /// Its path.
        path: PathBuf,
        /// In which way.
        #[source]
        why: Damage,
    },
    /// No room, on the disk or within the limits. Nothing of the batch is kept.
    #[error("there is no room to write {path}")]
    Full {
        /// Its path.
        path: PathBuf,
        /// What `SQLite` said.
        #[source]
        source: rusqlite::Error,
    },
    /// The kernel refuses to write: a quota, a failing disk. Nothing of the batch is kept.
    #[error("writing {path} failed")]
    Unwritable {
        /// Its path.
        path: PathBuf,
        /// What `SQLite` said.
        #[source]
        source: rusqlite::Error,
    },
    /// A reader that does not end keeps the write-ahead log from being written back.
    #[error(
        "the log of {path} has {bytes} bytes, and somebody who reads keeps it from being emptied"
    )]
    HeldBack {
        /// Its path.
        path: PathBuf,
        /// Length of the log.
        bytes: u64,
    },
    /// It was not closed in order, and what is in its log cannot be had without writing.
    #[error("{path} was not closed in order, and its directory cannot be written to")]
    Unrecovered {
        /// Its path.
        path: PathBuf,
    },
    /// `SQLite` refuses for another reason.
    #[error("{operation} {path}")]
    Sql {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: rusqlite::Error,
    },
    /// Entries cannot be turned into bytes.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// In which way a file is damaged.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// No database, or one whose pages contradict each other.
    #[error("it is malformed")]
    Malformed(#[source] rusqlite::Error),
    /// The database of another program.
    #[error("it is a database of another program (application id {found:#010x})")]
    OtherApplication {
        /// What it claims.
        found: i32,
    },
    /// Not all of our tables are there, or in another form.
    #[error("its schema is {found}, which no ucr has written")]
    Schema {
        /// What it claims.
        found: i32,
    },
    /// The check at opening found something.
    #[error("it does not pass its check: {first}")]
    Check {
        /// The first thing that was found, in `SQLite`'s words.
        first: String,
    },
    /// Only its log is there.
    #[error("only its write-ahead log is there")]
    Headless,
}

impl StoreError {
    /// Whether the same may succeed later without anybody opening the file anew: keep the batch, or count
    /// it as a gap, and go on.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Full { .. } | Self::Unwritable { .. } | Self::HeldBack { .. } => true,
            Self::Sql { source, .. } => {
                matches!(code(source), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
            }
            _ => false,
        }
    }

    /// What can be done about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::InUse { .. } => Some("end that process, or name another file"),
            Self::TooNew { .. } => Some("use the ucr that wrote it, or name another file"),
            Self::Full { .. } => Some("make room; what comes meanwhile is counted as missing"),
            Self::HeldBack { .. } => Some("end whatever has the file open for reading"),
            Self::Unrecovered { .. } => {
                Some("copy it, with its -wal, to a directory that can be written to")
            }
            _ => None,
        }
    }

    /// For `map_err`: what `SQLite` says about an operation on a file.
    pub(super) fn sql(operation: &'static str, path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        move |source| {
            let path = path.to_path_buf();
            match code(&source) {
                _ if is_damage(&source) => Self::Damaged { path, why: Damage::Malformed(source) },
                Some(ErrorCode::DiskFull) => Self::Full { path, source },
                Some(ErrorCode::SystemIoFailure) if is_about_writing(&source) => {
                    Self::Unwritable { path, source }
                }
                _ => Self::Sql { operation, path, source },
            }
        }
    }

    /// For `map_err`: what the kernel says about an operation on a file.
    pub(super) fn io(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_path_buf(), source }
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// The kind of a failure that `SQLite` itself reports.
pub(super) fn code(error: &rusqlite::Error) -> Option<ErrorCode> {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => Some(failure.code),
        _ => None,
    }
}

/// Whether pages make no sense.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(code(error), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// `EDQUOT` is such a one, and `ENOSPC` where the log's index grows.
fn is_about_writing(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(failure, _) = error else { return false };
    matches!(
        failure.extended_code,
        ffi::SQLITE_IOERR_WRITE
            | ffi::SQLITE_IOERR_FSYNC
            | ffi::SQLITE_IOERR_DIR_FSYNC
            | ffi::SQLITE_IOERR_TRUNCATE
            | ffi::SQLITE_IOERR_SHMOPEN
            | ffi::SQLITE_IOERR_SHMSIZE
            | ffi::SQLITE_IOERR_SHMMAP
    )
}
