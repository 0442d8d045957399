//! What it takes to give a socket its name again: the directory that a relative path is relative
//! to, and what has become of the socket file.

use std::{io, os::unix::ffi::OsStringExt as _};

use super::obstacle::Reason;
use crate::{
    image::{Bound, SocketFile},
    ledger::{Ledger, Tracked},
    model::{Pid, SeenSocket, UnixName, VfsFile},
    process::{
        files::Facts,
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
        UnixName::Abstract(_) => return Ok(Ok(Some(Bound { name, directory: None, file: None }))),
        UnixName::Pathname(_) if socket.outlook == Outlook::Other => {
            return Ok(Err(Reason::OtherRoot { name }));
        }
        UnixName::Pathname(path) => path,
    };
    let bound_to = socket.seen.and_then(|seen| seen.file);
    if !socket.name.is_relative_path() {
        let file = Some(look(path, bound_to)?);
        return Ok(Ok(Some(Bound { name, directory: None, file })));
    }
    let recorded = recorded_directory(&socket);
    let current = std::fs::read_link(format!("/proc/{}/cwd", socket.holder)).ok();
    let current = current.map(|path| path.into_os_string().into_vec());
    // Where the socket's own file lies is the directory, whoever says so.
    for directory in recorded.iter().copied().chain(current.as_deref()) {
        let file = look(&join(directory, path), bound_to)?;
        if matches!(file, SocketFile::Present { .. }) {
            let directory = Some(directory.to_vec());
            return Ok(Ok(Some(Bound { name, directory, file: Some(file) })));
        }
    }
    let Some(directory) = recorded else { return Ok(Err(Reason::UnknownDirectory { name })) };
    let file = Some(look(&join(directory, path), bound_to)?);
    Ok(Ok(Some(Bound { name, directory: Some(directory.to_vec()), file })))
}

/// The working directory at the time of `bind`, of the socket itself or of the listener that it
/// was accepted from.
fn recorded_directory<'a>(socket: &Named<'a>) -> Option<&'a [u8]> {
    let tracked = socket.tracked?;
    let listener = || tracked.listener.and_then(|sk| socket.ledger?.get(sk)?.directories.as_ref());
    let directories = tracked.directories.as_ref().or_else(listener)?;
    directories.cwd.whole.then_some(directories.cwd.path.as_slice())
}

fn join(directory: &[u8], path: &[u8]) -> Vec<u8> {
    [directory, b"/", path].concat()
}

/// What stands at a path, compared with the file that the socket is bound to.
fn look(path: &[u8], bound_to: Option<VfsFile>) -> Result<SocketFile, NameError> {
    let facts = match Facts::at(path) {
        Ok(Some(facts)) => facts,
        Ok(None) => return Ok(SocketFile::Deleted),
        // A component of the path has become a file.
        Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {
            return Ok(SocketFile::Deleted);
        }
        Err(source) => {
            let path = crate::model::name::Escaped(path).to_string();
            return Err(NameError::File { path, source });
        }
    };
    let same = bound_to == Some(VfsFile::from_stat(facts.id.device, facts.id.inode));
    Ok(if same {
        SocketFile::Present { id: facts.id, mode: facts.mode, uid: facts.uid, gid: facts.gid }
    } else {
        SocketFile::Replaced
    })
}
