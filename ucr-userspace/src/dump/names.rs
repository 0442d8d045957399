//! What it takes to give a socket its name again: the directory that a relative path is relative
//! to, and what has become of the socket file.

use std::{io, os::unix::ffi::OsStringExt as _};

use super::obstacle::Reason;
use crate::{
    image::{Bound, SocketFile},
    ledger::{Ledger, Tracked},
    model::{Pid, SeenSocket, UnixName, VfsFile, name::Escaped},
    process::{
        beneath,
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

/// What paths mean to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// The same as to us: same mount namespace, same root.
    Ours,
    /// The same as beneath this directory, an absolute path.
    Beneath(Vec<u8>),
    /// It has the mount namespace that we have, and a root directory that no path of ours leads to.
    Unreachable,
    /// It has another mount namespace.
    OtherMounts,
}

impl Outlook {
    /// Of a process.
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn of(pid: Pid) -> Result<Self, NameError> {
        let own = Pid(nix::unistd::getpid().as_raw());
        let of = |whose, link| {
            link_identity(whose, link).map_err(|source| NameError::Process { pid, source })
        };
        if of(pid, "ns/mnt")? != of(own, "ns/mnt")? {
            return Ok(Self::OtherMounts);
        }
        let root = of(pid, "root")?;
        if root == of(own, "root")? {
            return Ok(Self::Ours);
        }
        let path = std::fs::read_link(format!("/proc/{pid}/root")).unwrap_or_default();
        // The kernel spells it as well as it can; what it spells may be hidden below a mount.
        let leads_there = std::fs::metadata(&path).is_ok_and(|found| {
            use std::os::unix::fs::MetadataExt as _;
            (found.dev(), found.ino()) == root
        });
        let path = path.into_os_string().into_vec();
        Ok(if leads_there { Self::Beneath(path) } else { Self::Unreachable })
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
    pub outlook: &'a Outlook,
}

/// Describes a socket's name; `Err` inside is a reason to refuse.
///
/// # Errors
/// A file that cannot be looked at.
pub fn describe(socket: Named<'_>) -> Result<Result<Option<Bound>, Reason>, NameError> {
    let name = socket.name.clone();
    let path = match (socket.name, socket.outlook) {
        (UnixName::Unnamed, _) => return Ok(Ok(None)),
        (UnixName::Abstract(_), _) => {
            return Ok(Ok(Some(Bound { name, directory: None, root: None, file: None })));
        }
        (UnixName::Pathname(_), Outlook::OtherMounts) => {
            return Ok(Err(Reason::OtherMounts { name }));
        }
        (UnixName::Pathname(_), Outlook::Unreachable) => {
            return Ok(Err(Reason::OtherRoot { name }));
        }
        (UnixName::Pathname(path), Outlook::Ours | Outlook::Beneath(_)) => path,
    };
    let Some(mut bound) = find(&socket, path)? else {
        return Ok(Err(Reason::UnknownDirectory { name }));
    };
    let Some(own) = socket.file.filter(|own| own.facts.links > 0) else {
        return Ok(Ok(Some(bound)));
    };
    if own.facts.links > 1 {
        return Ok(Err(Reason::Linked { name, links: own.facts.links }));
    }
    if !matches!(bound.file, Some(SocketFile::Present { .. })) {
        match moved(own) {
            Some(file) => bound.file = Some(file),
            None => {
                return Ok(Err(Reason::Moved { name, now: Escaped(&own.path).to_string() }));
            }
        }
    }
    Ok(Ok(Some(bound)))
}

/// A file that was renamed, if it is where the kernel says. (If another name was linked to it before the
/// one that it was bound to was removed, the kernel knows only the removed one.)
fn moved(own: &BoundFile) -> Option<SocketFile> {
    let Facts { id, mode, uid, gid, .. } = own.facts;
    let found = Facts::at(&own.path).ok()??;
    let path = own.path.clone();
    (path.starts_with(b"/") && same_file(found.id, id)).then_some(SocketFile::Moved {
        path,
        id,
        mode,
        uid,
        gid,
    })
}

/// Where a binder may have stood: beneath which root directory, and, for a relative path, in which
/// directory there.
type Stand = (Option<Vec<u8>>, Option<Vec<u8>>);

/// The name with the directories that give it its meaning, and what stands there: where the socket's own
/// file lies, whoever says so; else where its binder was seen standing.
fn find(socket: &Named<'_>, path: &[u8]) -> Result<Option<Bound>, NameError> {
    let mut first = None;
    for (root, directory) in stands(socket, path) {
        let whole = match &directory {
            Some(directory) => [directory, b"/".as_slice(), path].concat(),
            None => path.to_vec(),
        };
        let file = look(root.as_deref(), &whole, socket)?;
        let is_present = matches!(file, SocketFile::Present { .. });
        let bound = Bound { name: socket.name.clone(), directory, root, file: Some(file) };
        if is_present {
            return Ok(Some(bound));
        }
        first.get_or_insert(bound);
    }
    // Where a process stands now says nothing of a file that is not there.
    let is_known = !socket.name.is_relative_path()
        || recorded(socket).is_some()
        || by_file(socket, path).is_some();
    Ok(first.filter(|_| is_known))
}

/// The likely ones first: what was seen, what the process has now, what we have.
fn stands(socket: &Named<'_>, path: &[u8]) -> Vec<Stand> {
    let root = match socket.outlook {
        Outlook::Beneath(root) => Some(root.clone()),
        Outlook::Ours | Outlook::Unreachable | Outlook::OtherMounts => None,
    };
    let recorded = recorded(socket);
    let mut stands: Vec<Stand> = Vec::new();
    if socket.name.is_relative_path() {
        // A file that was renamed may lie where the name would lead from another directory.
        let by_file = by_file(socket, path).filter(|_| recorded.is_none());
        let by_file = by_file.map(|directory| (None, Some(directory)));
        let current = std::fs::read_link(format!("/proc/{}/cwd", socket.holder)).ok();
        let current = current.map(|path| (None, Some(path.into_os_string().into_vec())));
        let recorded = recorded.map(|(from, directories)| (from, Some(directories.to_vec())));
        stands.extend(recorded.into_iter().chain(by_file).chain(current));
    } else {
        let roots = recorded.map(|(from, _)| from).into_iter().chain([root, None]);
        stands.extend(roots.map(|root| (root, None)));
    }
    stands.dedup();
    stands
}

/// Root and working directory at the time of `bind`, of the socket itself or of the listener that it was
/// accepted from. The root only if it is not ours, and still there.
fn recorded<'a>(socket: &Named<'a>) -> Option<(Option<Vec<u8>>, &'a [u8])> {
    let tracked = socket.tracked?;
    let listener =
        || socket.ledger.and_then(|ledger| ledger.listener(tracked)?.directories.as_ref());
    let directories = tracked.directories.as_ref().or_else(listener)?;
    let working = directories.cwd_from_root()?;
    let root = &directories.root.path;
    let is_there = || beneath::directory(&[], root).is_ok();
    Some(((root.as_slice() != b"/" && is_there()).then(|| root.clone()), working))
}

/// The directory from which a relative path leads to the socket's own file, wherever that is by now.
fn by_file(socket: &Named<'_>, path: &[u8]) -> Option<Vec<u8>> {
    let own = socket.file?;
    let (whole, is_gone) = match own.facts.links {
        0 => (own.path.strip_suffix(b" (deleted)")?, true),
        _ => (own.path.as_slice(), false),
    };
    let normal = |path: &[u8]| {
        let parts = path.split(|byte| *byte == b'/');
        let parts = parts.filter(|part| !part.is_empty() && *part != b".");
        parts.map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let name = normal(path);
    if name.iter().any(|part| part == b"..") || !whole.starts_with(b"/") {
        return None;
    }
    let mut whole = normal(whole);
    // A restore bound it where nobody else comes; beneath that its path is the saved one.
    let is_private = |part: &Vec<u8>| beneath::is_private(part);
    if let Some(at) = whole.iter().rposition(is_private).filter(|_| is_gone) {
        whole.drain(..=at);
    }
    let directory = whole.strip_suffix(name.as_slice())?;
    Some([b"/".as_slice(), &directory.join(&b'/')].concat())
}

/// What stands at a path, compared with the file that the socket is bound to.
fn look(root: Option<&[u8]>, path: &[u8], socket: &Named<'_>) -> Result<SocketFile, NameError> {
    let roots: Vec<_> = root.map(<[u8]>::to_vec).into_iter().collect();
    let facts = match beneath::facts(&roots, path) {
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
