//! The pin directory: where on the bpf file system the maps and links of attached tracing are
//! kept, and the file system itself.
//!
//! ```text
//! PIN_DIR/maps/LEDGER …    PIN_DIR/links/sys_enter …
//! ```

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::{TracerError, object::PINNED_MAPS};

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

    /// Makes it, with a bpf file system below it if there is none. It must not exist: its
    /// making is what keeps two from attaching at once.
    ///
    /// # Errors
    /// [`TracerError::AlreadyAttached`], [`TracerError::NoBpfFileSystem`], or the kernel's.
    pub fn create(&self) -> Result<Mounted, TracerError> {
        let mounted = self.provide_file_system()?;
        let made = match fs::create_dir(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(match self.missing_pin()? {
                    None => TracerError::AlreadyAttached { path: self.path.clone() },
                    Some(missing) => TracerError::Incomplete { path: self.path.clone(), missing },
                });
            }
            other => other.map_err(files("create directory", &self.path)),
        };
        made.and_then(|()| {
            fs::create_dir(self.maps()).map_err(files("create directory", &self.maps()))?;
            fs::create_dir(self.links()).map_err(files("create directory", &self.links()))
        })
        .inspect_err(|_| {
            // What was made so far; the error that is on its way says why.
            self.remove(mounted).ok();
        })?;
        Ok(mounted)
    }

    /// Removes every pin, links first so that no program runs without its maps, and the
    /// directory. Unmounts the file system if we had mounted it and nobody else uses it.
    ///
    /// # Errors
    /// The first failure; the rest is tried all the same.
    pub fn remove(&self, mounted: Mounted) -> Result<(), TracerError> {
        let mut outcome = Ok(());
        for directory in [self.links(), self.maps()] {
            outcome = outcome.and(remove_pins(&directory));
        }
        outcome = outcome.and(
            remove_if_there(fs::remove_dir(&self.path))
                .map_err(files("remove directory", &self.path)),
        );
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
        if !self.exists()? {
            return Err(TracerError::NotAttached { path: self.path.clone() });
        }
        match self.missing_pin()? {
            None => Ok(()),
            Some(missing) => Err(TracerError::Incomplete { path: self.path.clone(), missing }),
        }
    }

    /// Whether the directory is there at all.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn exists(&self) -> Result<bool, TracerError> {
        self.path.try_exists().map_err(files("look at", &self.path))
    }

    /// The first pin that should be there and is not.
    fn missing_pin(&self) -> Result<Option<String>, TracerError> {
        let maps = PINNED_MAPS.iter().map(|name| self.maps().join(name));
        let links = super::hooks::TRACEPOINT
            .iter()
            .filter(|hook| hook.need == super::hooks::Need::Required)
            .map(|hook| self.links().join(hook.program));
        for pin in maps.chain(links) {
            if !pin.try_exists().map_err(files("look at", &pin))? {
                return Ok(Some(pin.display().to_string()));
            }
        }
        Ok(None)
    }

    /// Sees to it that the directory above is on a bpf file system.
    fn provide_file_system(&self) -> Result<Mounted, TracerError> {
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

/// `map_err` for file operations.
pub(super) fn files(
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
fn release_file_system() {
    let Ok(_lock) = lock_mount_point() else { return };
    let empty = fs::read_dir(BPF_FS).is_ok_and(|entries| {
        entries.flatten().all(|entry| KERNELS_OWN.iter().any(|name| entry.file_name() == *name))
    });
    if empty && is_bpf(Path::new(BPF_FS)) {
        let _ = umount2(BPF_FS, MntFlags::UMOUNT_NOFOLLOW);
    }
}

fn remove_pins(directory: &Path) -> Result<(), TracerError> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(files("list", directory))?,
    };
    let mut outcome = Ok(());
    for entry in entries.flatten() {
        let path = entry.path();
        outcome = outcome
            .and(remove_if_there(fs::remove_file(&path)).map_err(files("remove pin", &path)));
    }
    outcome.and(
        remove_if_there(fs::remove_dir(directory)).map_err(files("remove directory", directory)),
    )
}

fn remove_if_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
