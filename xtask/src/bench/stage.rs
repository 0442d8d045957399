//! Where it is measured: programs built for release, a folder, pin directories.

use std::{
    cell::Cell,
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::race::Contestant;
use crate::{
    commands,
    leftovers::{Folder, Pins},
};

/// How long anything may take to come about.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// The stage. What is left on it is removed when it is dropped.
#[derive(Debug)]
pub(super) struct Stage {
    programs: PathBuf,
    folder: Folder,
    /// How many folders have been made in it.
    folders: Cell<u32>,
}

impl Stage {
    /// Builds the programs.
    pub(super) fn build() -> Result<Self> {
        println!("bench: building ucr for release");
        for arguments in
            [&["ucr-userspace"][..], &["ucr-tests", "--bin", "victim", "--bin", "overhead"]]
        {
            let mut build = commands::cargo();
            build.args(["build", "--release", "--package"]).args(arguments);
            if !build.status().context("run cargo")?.success() {
                bail!("{} could not be built", arguments.join(" "));
            }
        }
        Ok(Self { programs: built()?, folder: Folder::new("ucr-bench-")?, folders: Cell::new(0) })
    }

    /// With the programs copied to here: in a machine each start would fetch them from the host.
    pub(super) fn copied() -> Result<Self> {
        let (built, folder) = (built()?, Folder::new("ucr-bench-")?);
        let programs = folder.path().to_owned();
        for name in ["ucr", "victim"] {
            let copied = fs::copy(built.join(name), programs.join(name));
            copied.with_context(|| format!("copy {name}"))?;
        }
        Ok(Self { programs, folder, folders: Cell::new(0) })
    }

    /// A new folder, which is called more or less so.
    pub(super) fn new_folder(&self, name: &str) -> Result<PathBuf> {
        let number = self.folders.replace(self.folders.get() + 1);
        let folder = self.folder.path().join(format!("{name}-{number}"));
        fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(folder)
    }

    /// The program that makes sockets.
    pub(super) fn victim(&self) -> PathBuf {
        self.programs.join("victim")
    }

    /// The program that measures what tracing costs.
    pub(super) fn overhead(&self) -> PathBuf {
        self.programs.join("overhead")
    }

    /// ucr itself.
    pub(super) fn program(&self) -> PathBuf {
        self.programs.join("ucr")
    }

    /// A pin directory that nobody else has. It is not there yet.
    pub(super) fn pins(&self, name: &str) -> Pins {
        let own = std::process::id();
        let path = format!("/sys/fs/bpf/ucr-bench-{own}-{name}");
        Pins::new(path.into(), self.programs.join("ucr"))
    }

    /// A command of `ucr`.
    pub(super) fn ucr(&self, pins: &Pins, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("ucr"));
        command.env("UCR_PIN_DIR", pins.path()).args(arguments);
        command
    }

    /// The same to be measured.
    pub(super) fn contestant(&self, pins: &Pins, arguments: &[&str]) -> Contestant {
        let name = format!("ucr {}", arguments.join(" "));
        let program = self.programs.join("ucr");
        let contestant = Contestant::new(&name, program.as_os_str(), arguments);
        contestant.env("UCR_PIN_DIR", pins.path())
    }

    /// Attaches tracing.
    pub(super) fn attach(&self, pins: &Pins) -> Result<()> {
        commands::run_quietly(&mut self.ucr(pins, &["attach"])).map(drop)
    }

    /// What `ucr status` says, as JSON.
    pub(super) fn status(&self, pins: &Pins) -> Result<Value> {
        let said = commands::run_quietly(&mut self.ucr(pins, &["status", "--json"]))?;
        serde_json::from_str(&said).context("understand ucr status --json")
    }
}

/// Where cargo puts the programs of one profile: those folders are beside each other.
fn built() -> Result<PathBuf> {
    let own = env::current_exe().context("find out where xtask is")?;
    let profiles = own.parent().and_then(Path::parent).context("a folder of profiles")?;
    Ok(profiles.join("release"))
}

/// A program that has to be in `PATH`.
pub(super) fn program(name: &str) -> &OsStr {
    OsStr::new(name)
}

/// Waits for something.
pub(super) fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited in vain for {what}");
        }
        thread::sleep(GLANCE);
    }
}
