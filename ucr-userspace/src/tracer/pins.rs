//! The pin directory: where on the bpf file system the maps and links of attached tracing are
//! kept, and the file system itself.
//!
//! ```text
//! PIN_DIR/maps/LEDGER …    PIN_DIR/links/sys_enter …    PIN_DIR/programs/see_socket …
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{BPF_FS_MAGIC, fstatfs, statfs},
    unistd::geteuid,
};
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};

use super::{
    TracerError,
    hooks::{Backend, Need},
    object::PINNED_MAPS,
    programs::PROGRAMS,
};

/// Where the bpf file system is mounted by convention.
const BPF_FS: &str = "/sys/fs/bpf";

/// Where tracing is pinned if nobody says otherwise.
pub const DEFAULT: &str = "/sys/fs/bpf/ucr";

/// What the kernel itself puts into every bpf file system (`CONFIG_BPF_PRELOAD`).
const KERNELS_OWN: [&str; 2] = ["maps.debug", "progs.debug"];

/// Whether a directory was mounted by us, so that we may unmount it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// It was there.
    Before,
    /// We mounted it.
    ByUs,
}

/// A pin directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinDirectory {
    path: PathBuf,
}

impl PinDirectory {
    /// Names one; nothing is touched.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the maps are.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.path.join("maps")
    }

    /// Where the links are.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.path.join("links")
    }

    /// Where the programs are that are run when somebody asks.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.path.join("programs")
    }

    /// Makes it, with a bpf file system below it if there is none. It must not exist: its
    /// making is what keeps two from attaching at once.
    ///
    /// # Errors
    /// [`TracerError::AlreadyAttached`], [`TracerError::NoBpfFileSystem`], or the kernel's.
    pub fn create(&self) -> Result<Mounted, TracerError> {
        let mounted = self.provide_file_system()?;
        let make = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        if let Err(error) = make(&self.path) {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(files("create directory", &self.path)(error));
            }
            return Err(match self.require() {
                Ok(()) => TracerError::AlreadyAttached { path: self.path.clone() },
                Err(error) => error,
            });
        }
        for directory in [self.maps(), self.links(), self.programs()] {
            if let Err(error) = make(&directory) {
                // The error that is on its way says why.
                self.remove(|| mounted).ok();
                return Err(files("create directory", &directory)(error));
            }
        }
        Ok(mounted)
    }

    /// Keeps others from attaching or detaching here until what is returned is dropped.
    ///
    /// # Errors
    /// A directory that is not there or not ours; the kernel's.
    pub fn lock(&self) -> Result<Flock<File>, TracerError> {
        let directory = self.open()?;
        Flock::lock(directory, FlockArg::LockExclusive)
            .map_err(|(_, errno)| files("lock", &self.path)(errno.into()))
    }

    /// Opens the directory, having made sure that nobody else could have put anything into it: it is
    /// no symbolic link, lies on a bpf file system, belongs to us, and only we may write to it.
    fn open(&self) -> Result<File, TracerError> {
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(&self.path)
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => TracerError::NotAttached { path: self.path.clone() },
                _ => files("open", &self.path)(source),
            })?;
        let not_ours = |why| TracerError::NotOurs { path: self.path.clone(), why };
        let facts = directory.metadata().map_err(files("look at", &self.path))?;
        if !fstatfs(&directory).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC) {
            return Err(not_ours("it is not on a bpf file system"));
        }
        if facts.uid() != geteuid().as_raw() {
            return Err(not_ours("it belongs to another user"));
        }
        if facts.mode() & 0o022 != 0 {
            return Err(not_ours("others may write to it"));
        }
        Ok(directory)
    }

    /// Removes the pins that ucr makes, links first so that no program runs without its maps, and the
    /// directory. Anything else is left alone. Unmounts the file system if we had mounted it, which is
    /// asked before the pins are gone, and nobody else uses it. Who attaches or reconciles is waited for.
    ///
    /// # Errors
    /// The first failure, also that something foreign is in the way; the rest is tried all the same.
    pub fn remove(&self, mounted: impl FnOnce() -> Mounted) -> Result<(), TracerError> {
        let own = self.lock()?;
        let mounted = mounted();
        let links = Backend::ALL.into_iter().flat_map(Backend::hooks).map(|hook| hook.program);
        let mut outcome = empty(&own, "links", links, &self.links());
        let programs = PROGRAMS.into_iter().map(|(name, _)| name);
        outcome = outcome.and(empty(&own, "programs", programs, &self.programs()));
        outcome = outcome.and(empty(&own, "maps", PINNED_MAPS.into_iter(), &self.maps()));
        outcome = outcome.and(
            remove_if_there(fs::remove_dir(&self.path))
                .map_err(files("remove directory", &self.path)),
        );
        // Of a file system that is busy because of us, nobody could be rid.
        drop(own);
        if mounted == Mounted::ByUs {
            release_file_system();
        }
        outcome
    }

    /// Whether tracing is attached: all pins are there.
    ///
    /// # Errors
    /// [`TracerError::NotAttached`], [`TracerError::Incomplete`], or the kernel's.
    pub fn require(&self) -> Result<(), TracerError> {
        drop(self.open()?);
        match self.missing_pin()? {
            None => Ok(()),
            Some(missing) => Err(TracerError::Incomplete { path: self.path.clone(), missing }),
        }
    }

    /// The first pin that should be there and is not.
    fn missing_pin(&self) -> Result<Option<String>, TracerError> {
        for name in PINNED_MAPS {
            let pin = self.maps().join(name);
            if !is_there(&pin)? {
                return Ok(Some(pin.display().to_string()));
            }
        }
        for (name, _) in PROGRAMS {
            let pin = self.programs().join(name);
            if !is_there(&pin)? {
                return Ok(Some(pin.display().to_string()));
            }
        }
        let mut missing = None;
        for backend in [Backend::Tracepoint, Backend::Trampoline] {
            match self.missing_link(backend)? {
                None => return Ok(None),
                // What lacks more is the backend that was not meant.
                Some((have, name)) if missing.as_ref().is_none_or(|(had, _)| have > *had) => {
                    missing = Some((have, name));
                }
                Some(_) => {}
            }
        }
        Ok(missing.map(|(_, name)| self.links().join(name).display().to_string()))
    }

    /// The first link that a backend cannot do without and that is not there, and how many are.
    fn missing_link(&self, backend: Backend) -> Result<Option<(usize, &'static str)>, TracerError> {
        let mut have = 0;
        let mut missing = None;
        for hook in backend.hooks() {
            if self.has_link(hook.program)? {
                have += 1;
            } else if match hook.need {
                Need::Required => true,
                Need::InPlaceOf(other) => !self.has_link(other)?,
                Need::Optional | Need::With(_) | Need::PreferablyInPlaceOf(_) => false,
            } {
                missing = missing.or(Some(hook.program));
            }
        }
        Ok(missing.map(|name| (have, name)))
    }

    /// Whether the link of a program is pinned.
    ///
    /// # Errors
    /// The kernel's.
    pub fn has_link(&self, program: &str) -> Result<bool, TracerError> {
        is_there(&self.links().join(program))
    }

    /// Sees to it that the directory above is on a bpf file system.
    pub(crate) fn provide_file_system(&self) -> Result<Mounted, TracerError> {
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        if is_bpf(parent) {
            return Ok(Mounted::Before);
        }
        let absent = || TracerError::NoBpfFileSystem { path: parent.to_owned() };
        if !parent.starts_with(BPF_FS) {
            return Err(absent());
        }
        let _lock = lock_mount_point()?;
        if is_bpf(Path::new(BPF_FS)) {
            // Somebody was faster. What remains wrong is the directory that was asked for.
            return if is_bpf(parent) { Ok(Mounted::Before) } else { Err(absent()) };
        }
        mount(Some("bpf"), BPF_FS, Some("bpf"), MsFlags::empty(), Some("mode=0700")).map_err(
            |errno| files("mount a bpf file system at", Path::new(BPF_FS))(errno.into()),
        )?;
        if is_bpf(parent) {
            return Ok(Mounted::ByUs);
        }
        release_file_system();
        Err(absent())
    }
}

fn is_there(pin: &Path) -> Result<bool, TracerError> {
    pin.try_exists().map_err(files("look at", pin))
}

/// `map_err` for file operations.
pub(crate) fn files(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> TracerError + use<> {
    let path = path.to_owned();
    move |source| TracerError::Files { operation, path, source }
}

fn is_bpf(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC)
}

/// Two that mount at once would stack two file systems: they queue at the directory above.
fn lock_mount_point() -> Result<Flock<File>, TracerError> {
    let above = Path::new(BPF_FS).parent().unwrap_or(Path::new("/"));
    let file = File::open(above).map_err(files("open", above))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| files("lock", above)(errno.into()))
}

/// Unmounts the bpf file system if it is empty. That it is not, or is busy, is no failure:
/// somebody else has begun to use it.
pub(crate) fn release_file_system() {
    let Ok(_lock) = lock_mount_point() else { return };
    let empty = fs::read_dir(BPF_FS).is_ok_and(|entries| {
        entries.flatten().all(|entry| KERNELS_OWN.iter().any(|name| entry.file_name() == *name))
    });
    if empty && is_bpf(Path::new(BPF_FS)) {
        let _ = umount2(BPF_FS, MntFlags::UMOUNT_NOFOLLOW);
    }
}

/// Removes pins by name from a directory below an open one, and that directory.
fn empty(
    above: &File,
    name: &str,
    pins: impl Iterator<Item = &'static str>,
    shown: &Path,
) -> Result<(), TracerError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match openat(above, name, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        other => other.map_err(|errno| files("open", shown)(errno.into()))?,
    };
    let mut outcome = Ok(());
    for pin in pins {
        let removed = unlinkat(&directory, pin, AtFlags::empty()).map_err(io::Error::from);
        outcome =
            outcome.and(remove_if_there(removed).map_err(files("remove pin", &shown.join(pin))));
    }
    let removed = unlinkat(above, name, AtFlags::REMOVEDIR).map_err(io::Error::from);
    outcome.and(remove_if_there(removed).map_err(files("remove directory", shown)))
}

fn remove_if_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
