//! Directories in which a socket is bound to any path at all, where nobody else comes: a helper thread
//! takes one as its root directory, makes the directories of the path there, and binds. Only the name's
//! bytes matter to the socket; the file is then removed, or renamed to where it is to be.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, ResolveFlags, Stat, flock, fstat, mkdirat,
    open, openat, openat2, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{chroot, fchdir, geteuid, umask};

use super::files::{Entry, through_proc};
use super::plan::step::Place;
use crate::process::beneath;
use crate::process::files::Facts;
use crate::sys::{addr, sockopt};

const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How one is looked up that is neither a link nor mounted.
const WITHIN: ResolveFlags = ResolveFlags::NO_XDEV.union(ResolveFlags::NO_SYMLINKS);

/// One that can be locked.
const READABLE: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Longest path that the kernel takes, with a NUL.
const PATH_MAX: usize = 4096;

/// Where nobody but the owner comes, whatever the umask of before.
const OWNER_ONLY: Mode = Mode::RWXU;

/// A call that failed, by name.
pub(super) type Failure = (&'static str, io::Error);

fn failed<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| (call, error.into())
}

/// What became of a directory that somebody had left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sweep {
    /// It was removed, by us or by somebody else.
    Gone,
    /// Its maker lives, in another pid namespace.
    InUse,
    /// It is somebody else's, or there are files in it.
    Stays,
}

/// What is to be done with files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    Remove,
    /// Unless they are of sockets that are no more.
    Stay,
}

/// A socket's file, still beneath the private root.
#[derive(Debug)]
pub(super) struct Landed {
    /// Its entry.
    pub(super) entry: Entry,
    /// The file (`O_PATH`).
    pub(super) file: OwnedFd,
}

/// An empty directory for us alone. It is removed, with whatever is in it, when this is dropped.
#[derive(Debug)]
pub(super) struct PrivateRoot {
    parent: OwnedFd,
    name: String,
    /// Locked (`flock`) as long as somebody is at work in it.
    directory: OwnedFd,
    is_there: bool,
}

impl PrivateRoot {
    /// Makes one where temporary files are made.
    pub(super) fn temporary() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self::within(open(directory_of_temporary(), flags, Mode::empty())?)
    }

    /// Makes one in a directory.
    pub(super) fn within(parent: OwnedFd) -> io::Result<Self> {
        for number in 0..=10_000 {
            let name = format!("{}{}-{number}", beneath::PRIVATE, std::process::id());
            match mkdirat(&parent, &name, OWNER_ONLY) {
                Err(Errno::EXIST) => continue,
                result => result?,
            }
            match claim(&parent, &name) {
                // Somebody took it for one that was left, and may have it.
                Ok(None) => {}
                Ok(Some(directory)) => {
                    return Ok(Self { parent, name, directory, is_there: true });
                }
                Err(error) => {
                    // Nothing is in it yet.
                    unlinkat(&parent, &name, AtFlags::REMOVEDIR).ok();
                    return Err(error);
                }
            }
        }
        Err(Errno::EXIST.into())
    }

    /// Removes one whose maker was killed, if there are no files in it but of sockets that are no more: until new
    /// sockets are in their places, the file of one that lives lies there.
    pub(super) fn sweep(parent: OwnedFd, name: String) -> io::Result<Sweep> {
        match statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Sweep::Gone),
            // Whoever may not open it has nothing to do with it.
            found if !is_private(&found?) => return Ok(Sweep::Stays),
            _ => {}
        }
        let directory = openat2(&parent, &name, READABLE, Mode::empty(), WITHIN)?;
        // By now it may be another one.
        if !is_private(&fstat(&directory)?) {
            return Ok(Sweep::Stays);
        }
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(Sweep::InUse),
            locked => locked?,
        }
        if !empty(&directory, Files::Stay)? {
            return Ok(Sweep::Stays);
        }
        Self { parent, name, directory, is_there: false }.remove_emptied()?;
        Ok(Sweep::Gone)
    }

    /// Binds a socket to the path of a place, beneath this directory as the root.
    pub(super) fn bind(&self, socket: BorrowedFd<'_>, place: &Place) -> Result<Landed, Failure> {
        apart(|| {
            fchdir(&self.directory).map_err(failed("chdir"))?;
            chroot(".").map_err(failed("chroot"))?;
            // The file is for its owner alone, whoever may come to the place it is renamed to.
            umask(Mode::RWXG | Mode::RWXO);
            let name = place.name.as_bytes();
            let working = place.directory.as_deref().unwrap_or_default();
            // As long as it could be anywhere else.
            if working.len() >= PATH_MAX {
                return Err(failed("chdir")(Errno::NAMETOOLONG));
            }
            let mut here = self.descend(None, working)?;
            fchdir(&here).map_err(failed("chdir"))?;
            let (parent, last) = beneath::split(name).unwrap_or((b"", name));
            let start = if name.starts_with(b"/") { None } else { Some(here) };
            here = self.descend(start, parent)?;
            addr::bind(socket, name).map_err(failed("bind"))?;
            let entry = Entry::at(here, last.to_vec());
            // Without CAP_NET_ADMIN: nobody else has put anything there.
            let file = sockopt::bound_file(socket).or_else(|_| entry.open());
            Ok(Landed { file: file.map_err(failed("find the file"))?, entry })
        })
    }

    /// Goes down a path from a directory, or from the root, and makes what is missing.
    fn descend(&self, from: Option<OwnedFd>, path: &[u8]) -> Result<OwnedFd, Failure> {
        let root = || self.directory.try_clone().map_err(failed("duplicate a descriptor"));
        let mut here = from.map_or_else(root, Ok)?;
        for part in path.split(|byte| *byte == b'/') {
            if part.is_empty() || part == b"." {
                continue;
            }
            let name = OsStr::from_bytes(part);
            match mkdirat(&here, name, OWNER_ONLY) {
                // `..` is there, too: above the thread's root there is nothing.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed("mkdir")(error)),
            }
            here = openat(&here, name, DIRECTORY, Mode::empty()).map_err(failed("open"))?;
        }
        Ok(here)
    }

    /// Removes it.
    pub(super) fn remove(mut self) -> io::Result<()> {
        self.clear()
    }

    /// Where it is, for a message.
    pub(super) fn path(&self) -> Vec<u8> {
        let parent =
            fs::read_link(OsStr::from_bytes(&through_proc(&self.parent))).unwrap_or_default();
        parent.join(&self.name).into_os_string().as_bytes().to_vec()
    }

    fn clear(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.is_there) {
            return Ok(());
        }
        empty(&self.directory, Files::Remove)?;
        self.remove_emptied()
    }

    /// If somebody has put another directory in its place, that is left alone.
    fn remove_emptied(&self) -> io::Result<()> {
        let own = Facts::of(&self.directory)?.id;
        match Facts::in_directory(&self.parent, OsStr::new(&self.name))? {
            Some(facts) if facts.id == own => {
                Ok(unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR)?)
            }
            _ => Err(io::Error::other("another file lies there now")),
        }
    }
}

impl Drop for PrivateRoot {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            tracing::error!(%error, name = self.name, "failed to remove a private directory");
        }
    }
}

/// Opens a directory that was just made, and tells others that somebody is at work there; `None` if one of them was
/// faster. On a file system that has no such locks it goes without: there nobody sweeps.
fn claim(parent: &OwnedFd, name: &str) -> io::Result<Option<OwnedFd>> {
    let directory = match openat(parent, name, READABLE, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened?,
    };
    if flock(&directory, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
        return Ok(None);
    }
    let found = fstat(&directory)?;
    if !is_private(&found) {
        return Err(io::Error::other("somebody has put another directory in its place"));
    }
    // Without a link to it, it was removed in between.
    Ok((found.st_nlink > 0).then_some(directory))
}

/// Whether nobody else comes there.
fn is_private(found: &Stat) -> bool {
    let is_own = found.st_uid == geteuid().as_raw();
    // The bits above are taken over from where it is.
    is_own && found.st_mode & 0o777 == OWNER_ONLY.as_raw_mode()
}

/// Whether an entry is the file of a socket that is no more.
fn is_dead(directory: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    let entry = Entry::at(directory.try_clone()?, name.as_bytes().to_vec());
    match entry.facts()? {
        Some(facts) if facts.kind == FileType::Socket => Ok(!entry.is_live(facts)?),
        _ => Ok(false),
    }
}

/// Removes everything in a directory to which nobody else comes, with one descriptor however deep it is; `false` if a
/// file is to stay, and with it the directories that it is in. What is mounted there is not gone into.
fn empty(directory: &OwnedFd, files: Files) -> io::Result<bool> {
    let mut here = openat(directory, ".", DIRECTORY, Mode::empty())?;
    let mut way = Vec::new();
    loop {
        let first = fs::read_dir(OsStr::from_bytes(&through_proc(&here)))?.next().transpose()?;
        if let Some(entry) = first {
            let name = entry.file_name();
            if entry.file_type()?.is_dir() {
                let below = openat2(&here, &name, DIRECTORY, Mode::empty(), WITHIN)?;
                way.push((Facts::of(&here)?.id, name));
                here = below;
            } else if files == Files::Remove || is_dead(&here, &name)? {
                unlinkat(&here, &name, AtFlags::empty())?;
            } else {
                return Ok(false);
            }
        } else if let Some((above, name)) = way.pop() {
            here = openat(&here, "..", DIRECTORY, Mode::empty())?;
            if Facts::of(&here)?.id != above {
                return Err(io::Error::other("somebody moves its directories"));
            }
            unlinkat(&here, &name, AtFlags::REMOVEDIR)?;
        } else {
            return Ok(true);
        }
    }
}

/// Where temporary files are made.
pub(super) fn directory_of_temporary() -> PathBuf {
    std::env::temp_dir()
}

/// Runs something in a thread that has root directory, working directory and umask of its own.
fn apart<T: Send>(run: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
    let inside = || {
        unshare(CloneFlags::CLONE_FS).map_err(failed("unshare"))?;
        run()
    };
    thread::scope(|scope| {
        let helper = thread::Builder::new().spawn_scoped(scope, inside);
        let ended = helper.map_err(failed("start a thread"))?.join();
        ended.map_err(|_| ("run a thread", io::Error::other("it panicked")))?
    })
}

/// Whether a thread of ours may take another root directory. Nothing is changed.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_CHROOT`.
pub(super) fn check() -> io::Result<()> {
    apart(|| chroot("/").map_err(failed("chroot"))).map_err(|(_, error)| error)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::model::UnixName;

    #[test]
    fn what_a_killed_one_has_left_is_removed_and_nothing_else() {
        let outside = tempfile::tempdir().expect("a directory");
        let parent = || open(outside.path(), DIRECTORY, Mode::empty()).expect("open");
        let sweep = |name: &str| PrivateRoot::sweep(parent(), name.to_owned());
        let path = |name: &str| outside.path().join(name);

        // Its process is alive, here or in another pid namespace.
        let root = PrivateRoot::within(parent()).expect("a private root");
        let name = root.name.clone();
        assert_eq!(sweep(&name).expect("look"), Sweep::InUse);
        assert!(path(&name).exists());
        drop(root);
        assert!(!path(&name).exists());

        let left = path(".ucr-root-7-0");
        fs::create_dir_all(left.join("a/b")).expect("directories");
        let allow = |mode| {
            fs::set_permissions(&left, fs::Permissions::from_mode(mode)).expect("change its mode");
        };
        allow(0o755);
        assert_eq!(sweep(".ucr-root-7-0").expect("look"), Sweep::Stays, "not as ucr makes them");
        // As in a directory that hands its group on.
        allow(0o2700);
        let listener = UnixListener::bind(left.join("a/b/c")).expect("bind");
        assert_eq!(sweep(".ucr-root-7-0").expect("look"), Sweep::Stays);
        UnixStream::connect(left.join("a/b/c")).expect("it is where it was");
        drop(listener);
        fs::write(left.join("a/file"), "").expect("write");
        assert_eq!(sweep(".ucr-root-7-0").expect("look"), Sweep::Stays);
        fs::remove_file(left.join("a/file")).expect("remove it");
        assert_eq!(sweep(".ucr-root-7-0").expect("remove"), Sweep::Gone);
        assert!(!left.exists());
        assert_eq!(sweep(".ucr-root-7-0").expect("look"), Sweep::Gone);

        let target = path("target");
        fs::create_dir(&target).expect("a directory");
        std::os::unix::fs::symlink(&target, path(".ucr-root-8-0")).expect("a link");
        assert_eq!(sweep(".ucr-root-8-0").expect("look"), Sweep::Stays);
        assert!(target.exists());
    }

    #[test]
    fn any_path_is_bound_and_nothing_is_left() {
        let outside = tempfile::tempdir().expect("a directory");
        let parent = open(outside.path(), DIRECTORY, Mode::empty()).expect("open");
        let root = PrivateRoot::within(parent).expect("a private root");
        let before = std::env::current_dir().expect("the working directory");
        for (name, directory) in [
            (&b"/run/x"[..], None),
            (b"//../../run/../../x/./y", None),
            (b"../../../../../z", Some(&b"/srv/./app"[..])),
            (b"./sub//\xff\n", Some(b"/srv/app")),
            (&[b'y'; 108], Some(b"/")),
            (b"deep", Some(&b"/d".repeat(2000))),
        ] {
            let socket = rustix::net::socket(
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::STREAM,
                None,
            );
            let socket = socket.expect("a socket");
            let place = Place {
                name: UnixName::Pathname(name.to_vec()),
                directory: directory.map(<[u8]>::to_vec),
            };
            let landed = root.bind(socket.as_fd(), &place).expect("bind");
            let found = addr::local(socket.as_fd()).expect("getsockname");
            assert_eq!(UnixName::from_sun_path(&found), place.name);
            let id = Facts::of(&landed.file).expect("statx").id;
            assert!(landed.entry.is(id));
        }
        assert_eq!(std::env::current_dir().expect("the working directory"), before);
        let only: Vec<_> = fs::read_dir(outside.path()).expect("list").flatten().collect();
        assert_eq!(only.len(), 1, "{only:?}");
        root.remove().expect("remove");
        assert_eq!(fs::read_dir(outside.path()).expect("list").count(), 0);
    }
}
