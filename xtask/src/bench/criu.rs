//! CRIU as a peer: how it is called.

use std::{path::Path, process::Command};

use super::{race::Contestant, stage::program};

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

/// For the shell: ends a process that CRIU has brought back, whose number is free then.
pub(super) fn end(pid: u32) -> String {
    format!("kill -9 {pid} && while kill -0 {pid} 2> /dev/null; do sleep 0.02; done")
}
