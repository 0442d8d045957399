//! `cargo xtask vm-child`, which is for ourselves: becomes another program that dies with us, and that
//! can be made unable to write to any file system.
//!
//! It is a program of its own because what it does must happen between fork and exec, where only
//! unsafe code could do it.

use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::Signal,
        statvfs::{FsFlags, statvfs},
    },
    unistd::getppid,
};

/// Become a program of a VM (used by the other tasks)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The process to die with
    #[arg(long)]
    parent: i32,
    /// See all file systems read-only
    #[arg(long)]
    read_only: bool,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Args {
    /// Does it; returns only if it fails.
    pub(crate) fn run(self) -> Result<ExitCode> {
        prctl::set_pdeathsig(Signal::SIGKILL).context("ask to die with the parent")?;
        if getppid().as_raw() != self.parent {
            bail!("process {} is gone already", self.parent);
        }
        if self.read_only {
            make_read_only()?;
        }
        let (program, arguments) = self.command.split_first().context("there is no program")?;
        let error = Command::new(program).args(arguments).exec();
        Err(error).with_context(|| format!("execute {}", program.display()))
    }
}

/// A command that runs another one this way.
pub(super) fn command(access: Access, command: &Command) -> Command {
    // By this name it is the very program that runs now, also if a newer one has been built.
    let mut child = Command::new("/proc/self/exe");
    child.args(["vm-child", "--parent", &std::process::id().to_string()]);
    if access == Access::ReadOnly {
        child.arg("--read-only");
    }
    child.arg("--").arg(command.get_program()).args(command.get_args());
    child
}

/// What a child may do to the file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// What we may.
    Ours,
    /// Read them.
    ReadOnly,
}

/// Makes every mount read-only, in a mount namespace of our own: nobody else's change, and what is
/// mounted elsewhere from now on does not appear here. Device files lead nowhere.
fn make_read_only() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    let none = None::<&Path>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("part with the mounts of all others")?;
    // The flags are the mount's own: those of the file system stay as they are for all others.
    let flags = MsFlags::MS_REMOUNT
        | MsFlags::MS_BIND
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOSUID;
    let points = mount_points(&fs::read("/proc/self/mountinfo").context("list the mounts")?);
    for point in &points {
        match mount(none, point, none, flags, none) {
            // Perhaps it is hidden below another mount, where nobody can get to it.
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("make {} read-only", point.display()));
            }
        }
    }
    // What counts is what is found there now.
    for point in &points {
        match statvfs(point) {
            Ok(found) if found.flags().contains(FsFlags::ST_RDONLY) => {}
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Ok(_) => bail!("{} could not be made read-only", point.display()),
            Err(error) => {
                return Err(error).with_context(|| format!("look at {}", point.display()));
            }
        }
    }
    Ok(())
}

/// The fifth field of every line of a `mountinfo`. Blanks and the like are written as `\040`.
fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    let fields = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    fields.map(|field| PathBuf::from(OsString::from_vec(unescape(field)))).collect()
}

fn unescape(mut field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some((first, rest)) = field.split_first() {
        let code = rest.first_chunk::<3>().filter(|_| *first == b'\\');
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            field = rest.get(3..).unwrap_or_default();
        } else {
            bytes.push(*first);
            field = rest;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        let table = b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            29 27 0:26 / /a\\040b/\\134c rw master:1 - tmpfs tmpfs rw\n";
        assert_eq!(mount_points(table), [Path::new("/"), Path::new("/a b/\\c")]);
        assert_eq!(mount_points(b""), Vec::<PathBuf>::new());
    }
}
