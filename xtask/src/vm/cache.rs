//! Stock kernels, unpacked into an ignored folder of the workspace.
//!
//! `.cache/kernels/PACKAGE/` is what a package holds, and `vmlinux` beside it; the link
//! `.cache/kernels/SERIES` leads to the newest. Both are made under another name and renamed, so
//! what has its name is whole. The link's time is that of the last look at the archive.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{Kernel, bzimage};
use crate::{apt, commands};

/// How long the newest kernel is taken for the newest.
const FRESH: Duration = Duration::from_hours(72);

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    folder: PathBuf,
}

impl Files {
    /// The ELF image.
    pub(super) fn image(&self) -> PathBuf {
        self.folder.join(IMAGE)
    }

    /// The folder of its modules.
    pub(super) fn modules(&self) -> PathBuf {
        self.folder.join("lib/modules")
    }

    /// What `uname -r` says when it runs, such as `6.1.0-56-cloud-amd64`.
    pub(crate) fn release(&self) -> String {
        let package = self.folder.file_name().unwrap_or_default().to_string_lossy();
        package.trim_start_matches("linux-image-").to_owned()
    }
}

const IMAGE: &str = "vmlinux";

/// Sees to it that a kernel is there: the newest of its series, or, where the archive cannot be
/// asked, the one from last time.
pub(crate) fn prepare(kernel: Kernel) -> Result<Files> {
    let cache = commands::root().join(".cache/kernels");
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let link = cache.join(kernel.name());
    let known = known(&link);
    if let Some(files) = &known
        && is_fresh(&link)
    {
        return Ok(files.clone());
    }
    match (fetch(kernel, &cache), known) {
        (Ok(folder), _) => Ok(Files { folder }),
        (Err(error), Some(files)) => {
            eprintln!(
                "vm: whether there is a newer kernel {kernel} than {} could not be found out: {error:#}",
                files.release()
            );
            Ok(files)
        }
        (Err(error), None) => Err(error.context(format!("get a kernel {kernel}"))),
    }
}

/// The kernel that a series' link leads to.
fn known(link: &Path) -> Option<Files> {
    let folder = link.parent()?.join(fs::read_link(link).ok()?);
    folder.join(IMAGE).is_file().then_some(Files { folder })
}

fn is_fresh(link: &Path) -> bool {
    let changed = fs::symlink_metadata(link).and_then(|link| link.modified());
    changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age < FRESH))
}

/// Gets the newest one, unless it is there already, and makes the link lead to it.
fn fetch(kernel: Kernel, cache: &Path) -> Result<PathBuf> {
    let package = apt::newest(&kernel.prefix(), |packages| {
        kernel.newest(packages.iter().copied()).map(str::to_owned)
    })?;
    let folder = cache.join(&package);
    if !folder.join(IMAGE).is_file() {
        eprintln!("vm: fetching {package}");
        unpack(&package, &folder).with_context(|| format!("unpack {package}"))?;
    }
    let temporary = TempDir::new_in(cache).context("make a folder in .cache/kernels")?;
    let new = temporary.path().join("link");
    symlink(&package, &new).with_context(|| format!("link {}", new.display()))?;
    let link = cache.join(kernel.name());
    fs::rename(&new, &link).with_context(|| format!("rename to {}", link.display()))?;
    Ok(folder)
}

/// Downloads and unpacks a package beside where it is to be, and then moves it there.
fn unpack(package: &str, folder: &Path) -> Result<()> {
    let cache = folder.parent().unwrap_or(folder);
    let temporary = TempDir::new_in(cache).context("make a folder in .cache/kernels")?;
    let archive = apt::download(package, temporary.path())?;
    let unpacked = temporary.path().join("unpacked");
    apt::extract(&archive, &unpacked)?;

    let release = package.trim_start_matches("linux-image-");
    let bzimage = unpacked.join(format!("boot/vmlinuz-{release}"));
    let bytes = fs::read(&bzimage).with_context(|| format!("read {}", bzimage.display()))?;
    let elf = bzimage::elf(&bytes).with_context(|| format!("unpack {}", bzimage.display()))?;
    let image = unpacked.join(IMAGE);
    fs::write(&image, elf).with_context(|| format!("write {}", image.display()))?;

    match fs::rename(&unpacked, folder) {
        // Another task was quicker.
        Err(_) if folder.join(IMAGE).is_file() => Ok(()),
        renamed => renamed.with_context(|| format!("rename to {}", folder.display())),
    }
}
