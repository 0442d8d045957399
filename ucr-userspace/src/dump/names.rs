//! What it takes to give a socket its name again: the directory that a relative path is relative
//! to, and what has become of the socket file.

use std::{io, os::unix::ffi::OsStringExt as _};

use super::obstacle::Reason;
use crate::{
    image::{Bound, SocketFile},
    ledger::{Ledger, Tracked},
    model::{Pid, SeenSocket, UnixName, VfsFile, name::Escaped},
    process::{
        files::{BoundFile, Facts, same_file},
        procfs::{ProcError, link_identity},
    },
};

/// Why a name could not be looked into.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// The process's directories could not be compared with ours.
    #[error("compare the directories of process {pid} with ours")]
    Process {
        /// Whose.
        pid: Pid,
        /// Why.
        #[source]
        source: ProcError,
    },
    /// The socket file could not be looked at.
    #[error("look at socket file {path}")]
    File {
        /// Which, safe to show.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Whether paths mean the same to a process as to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Same mount namespace, same root.
    Ours,
    /// Another one of either.
    Other,
}

impl Outlook {
    /// Of a process.
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn of(pid: Pid) -> Result<Self, NameError> {
        let own = Pid(nix::unistd::getpid().as_raw());
        for link in ["ns/mnt", "root"] {
            let of = |whose| {
                link_identity(whose, link).map_err(|source| NameError::Process { pid, source })
            };
            if of(pid)? != of(own)? {
                return Ok(Self::Other);
            }
        }
        Ok(Self::Ours)
    }
}

/// What is known of a socket that may have a name.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// `getsockname`.
    pub name: &'a UnixName,
    /// sock_diag's report.
    pub seen: Option<&'a SeenSocket>,
    /// The file that it is bound to, if it could be asked.
    pub file: Option<&'a BoundFile>,
    /// What was tracked.
    pub tracked: Option<&'a Tracked>,
    /// All that was tracked.
    pub ledger: Option<&'a Ledger>,
    /// A process that holds it.
    pub holder: Pid,
    /// What that process's paths mean.
    pub outlook: Outlook,
}

/// Describes a socket's name; `Err` inside is a reason to refuse.
///
/// # Errors
/// A file that cannot be looked at.
pub fn describe(socket: Named<'_>) -> Result<Result<Option<Bound>, Reason>, NameError> {
    let name = socket.name.clone();
    let path = match socket.name {
        UnixName::Unnamed => return Ok(Ok(None)),
        UnixName::Abstract(_) => {
            return Ok(Ok(Some(Bound { name, directory: None, root: None, file: None })));
        }
        UnixName::Pathname(_) if socket.outlook == Outlook::Other => {
            return Ok(Err(Reason::OtherRoot { name }));
        }
        UnixName::Pathname(path) => path,
    };
    let (directory, file) = if socket.name.is_relative_path() {
        match find_directory(&socket, path)? {
            Some((directory, file)) => (Some(directory), file),
            None => return Ok(Err(Reason::UnknownDirectory { name })),
        }
    } else {
        (None, look(path, &socket)?)
    };
    let present = matches!(file, SocketFile::Present { .. });
    match socket.file {
        Some(bound) if bound.facts.links > 0 && !present => {
            Ok(Err(Reason::Moved { name, now: Escaped(&bound.path).to_string() }))
        }
        Some(bound) if bound.facts.links > 1 => {
            Ok(Err(Reason::Linked { name, links: bound.facts.links }))
        }
        _ => Ok(Ok(Some(Bound { name, directory, root: None, file: Some(file) }))),
    }
}

/// The directory that a relative path is relative to, and what stands there: where the socket's own
/// file lies, whoever says so; else where its binder was seen standing.
fn find_directory(
    socket: &Named<'_>,
    path: &[u8],
) -> Result<Option<(Vec<u8>, SocketFile)>, NameError> {
    let recorded = recorded_directory(socket);
    let current = std::fs::read_link(format!("/proc/{}/cwd", socket.holder)).ok();
    let current = current.map(|path| path.into_os_string().into_vec());
    let mut of_record = None;
    for directory in recorded.iter().copied().chain(current.as_deref()) {
        let file = look(&[directory, b"/", path].concat(), socket)?;
        if matches!(file, SocketFile::Present { .. }) {
            return Ok(Some((directory.to_vec(), file)));
        }
        if recorded.is_some() {
            of_record.get_or_insert((directory.to_vec(), file));
        }
    }
    Ok(of_record)
}

/// The working directory at the time of `bind`, of the socket itself or of the listener that it
/// was accepted from.
fn recorded_directory<'a>(socket: &Named<'a>) -> Option<&'a [u8]> {
    let tracked = socket.tracked?;
    let listener =
        || socket.ledger.and_then(|ledger| ledger.listener(tracked)?.directories.as_ref());
    let directories = tracked.directories.as_ref().or_else(listener)?;
    // The process has the root that we have (`Outlook`), so its spelling is ours.
    directories.cwd_from_root()
}

/// What stands at a path, compared with the file that the socket is bound to.
fn look(path: &[u8], socket: &Named<'_>) -> Result<SocketFile, NameError> {
    let facts = match Facts::at(path) {
        Ok(Some(facts)) => facts,
        Ok(None) => return Ok(SocketFile::Deleted),
        // A component of the path has become a file.
        Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {
            return Ok(SocketFile::Deleted);
        }
        Err(source) => {
            return Err(NameError::File { path: Escaped(path).to_string(), source });
        }
    };
    // sock_diag's numbers are those of the file system below, which an overlay or a subvolume
    // hides; they will have to do where the socket itself may not be asked.
    let same = match socket.file {
        Some(bound) => same_file(bound.facts.id, facts.id),
        None => {
            let seen = socket.seen.and_then(|seen| seen.file);
            seen == Some(VfsFile::from_stat(facts.id.device, facts.id.inode))
        }
    };
    Ok(if same {
        SocketFile::Present { id: facts.id, mode: facts.mode, uid: facts.uid, gid: facts.gid }
    } else {
        SocketFile::Replaced
    })
}
