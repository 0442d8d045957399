//! CRIU as a peer: how it is called.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    race::Contestant,
    stage::{program, until},
};

/// `criu dump` of a process, which goes on.
pub(super) fn dump(pid: u32, images: &Path) -> Contestant {
    let (pid, images) = (pid.to_string(), images.display().to_string());
    let words = ["dump", "-t", &pid, "-D", &images, "-j", "--leave-running", "-v1"];
    Contestant::new("criu dump", program("criu"), &words).printing(0)
}

/// The same once, after which there is no process any more.
pub(super) fn dump_and_kill(pid: u32, images: &Path) -> Command {
    let mut command = Command::new("criu");
    command.args(["dump", "-t", &pid.to_string(), "-j", "-v1", "-D"]).arg(images);
    command
}

/// `criu restore` of a process, which lives until it is killed.
pub(super) fn restore(images: &Path) -> Contestant {
    let images = images.display().to_string();
    Contestant::new("criu restore", program("criu"), &restoring(&images)).printing(0)
}

/// The same once.
pub(super) fn restore_once(images: &Path) -> Command {
    let mut command = Command::new("criu");
    command.args(restoring(&images.display().to_string()));
    command
}

fn restoring(images: &str) -> [&str; 6] {
    ["restore", "-D", images, "-j", "-d", "-v1"]
}

/// Ends a process that CRIU has brought back: its number is free then.
pub(super) fn end(pid: u32) -> Result<()> {
    let pid = Pid::from_raw(pid.try_into().context("a process id")?);
    kill(pid, Signal::SIGKILL).context("end what CRIU has brought back")?;
    // It is not ours to be waited for.
    until("the end of what CRIU has brought back", || match kill(pid, None) {
        Ok(()) => Ok(None),
        Err(Errno::ESRCH) => Ok(Some(())),
        Err(errno) => Err(errno).context("look for what CRIU has brought back"),
    })
}
