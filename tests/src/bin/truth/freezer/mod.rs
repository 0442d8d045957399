//! Stopping every process of the workload at once, wherever it is, and ending it without leaving
//! anything behind.

mod cgroup;
mod group;
mod wait;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Pid;

use cgroup::Hierarchy;

/// How it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Way {
    /// cgroup v2, its `cgroup.freeze`
    Unified,
    /// cgroup v1, its freezer
    Legacy,
    /// SIGSTOP to the process group
    Signals,
}

/// What holds the workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Freezer {
    /// A cgroup of its own.
    Cgroup(Hierarchy, PathBuf),
    /// Its process group, once there is one.
    Group(Option<Pid>),
}

impl fmt::Display for Freezer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(hierarchy, folder) => write!(f, "{hierarchy} {}", folder.display()),
            Self::Group(group) => write!(f, "group {}", group.map_or(0, Pid::as_raw)),
        }
    }
}

impl Freezer {
    /// Makes a place for the workload, in this way or in the best there is.
    pub(crate) fn prepare(way: Option<Way>, name: &str) -> Result<Self> {
        let wanted: &[Way] = match &way {
            Some(way) => std::slice::from_ref(way),
            None => &[Way::Unified, Way::Legacy, Way::Signals],
        };
        let mut refusals = Vec::new();
        for way in wanted {
            let hierarchy = match way {
                Way::Unified => Hierarchy::Unified,
                Way::Legacy => Hierarchy::Legacy,
                Way::Signals => return Ok(Self::Group(None)),
            };
            match cgroup::make(hierarchy, name) {
                Ok(folder) => return Ok(Self::Cgroup(hierarchy, folder)),
                Err(error) => refusals.push(format!("{hierarchy}: {error:#}")),
            }
        }
        bail!("no way to freeze the workload: {}", refusals.join("; "))
    }

    /// As [`fmt::Display`] writes it.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        let (kind, rest) = line.split_once(' ').context("a kind and a place")?;
        if kind == "group" {
            let group = rest.parse().context("a process group")?;
            return Ok(Self::Group((group > 1).then(|| Pid::from_raw(group))));
        }
        Ok(Self::Cgroup(Hierarchy::parse(kind)?, rest.into()))
    }

    /// The file that a process writes to, to be among the frozen.
    pub(crate) fn joined_by(&self) -> Option<PathBuf> {
        match self {
            Self::Cgroup(_, folder) => Some(folder.join("cgroup.procs")),
            Self::Group(_) => None,
        }
    }

    /// The workload's root: its process group is its own.
    pub(crate) fn is_led_by(&mut self, root: Pid) {
        if let Self::Group(group) = self {
            *group = Some(root);
        }
    }

    /// Returns when every process stands still.
    pub(crate) fn freeze(&self) -> Result<()> {
        match self {
            Self::Cgroup(hierarchy, folder) => cgroup::freeze(*hierarchy, folder),
            Self::Group(Some(group)) => group::freeze(*group),
            Self::Group(None) => Ok(()),
        }
        .context("freeze the workload")
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        match self {
            Self::Cgroup(hierarchy, folder) => cgroup::thaw(*hierarchy, folder),
            Self::Group(Some(group)) => group::thaw(*group),
            Self::Group(None) => Ok(()),
        }
        .context("thaw the workload")
    }

    /// Returns when every process has ended.
    pub(crate) fn end(&self) -> Result<()> {
        match self {
            Self::Cgroup(hierarchy, folder) => cgroup::end(*hierarchy, folder),
            Self::Group(Some(group)) => group::end(*group),
            Self::Group(None) => Ok(()),
        }
        .context("end the workload")
    }

    /// Removes what [`Freezer::prepare`] made.
    pub(crate) fn remove(&self) -> Result<()> {
        match self {
            Self::Cgroup(_, folder) if folder.exists() => remove(folder),
            _ => Ok(()),
        }
    }
}

/// What each process of this group is at, one a line.
pub(crate) fn account(group: Pid) -> Result<Vec<String>> {
    group::account(group)
}

/// A cgroup that has just become empty may be busy for a moment.
fn remove(folder: &Path) -> Result<()> {
    wait::until("the cgroup can be removed", || match std::fs::remove_dir(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Ok(false),
        Err(error) => Err(error).with_context(|| format!("remove {}", folder.display())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guard_is_told_is_what_is_meant() {
        for freezer in [
            Freezer::Cgroup(Hierarchy::Unified, "/sys/fs/cgroup/a b".into()),
            Freezer::Cgroup(Hierarchy::Legacy, "/x".into()),
            Freezer::Group(None),
            Freezer::Group(Some(Pid::from_raw(77))),
        ] {
            assert_eq!(Freezer::parse(&freezer.to_string()).expect("parse"), freezer);
        }
        // Never everybody, never ourselves.
        assert_eq!(Freezer::parse("group 1").expect("parse"), Freezer::Group(None));
        assert_eq!(Freezer::parse("group -1").expect("parse"), Freezer::Group(None));
    }
}
