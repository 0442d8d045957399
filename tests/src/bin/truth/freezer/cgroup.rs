//! The cgroup freezers. In a frozen cgroup of v2 a task can be killed; in one of v1 it dies when it is
//! thawed.

use std::{
    fmt, fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::wait::until;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hierarchy {
    /// v2.
    Unified,
    /// v1, with the freezer.
    Legacy,
}

impl fmt::Display for Hierarchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unified => "cgroup2",
            Self::Legacy => "cgroup",
        })
    }
}

impl Hierarchy {
    pub(super) fn parse(name: &str) -> Result<Self> {
        match name {
            "cgroup2" => Ok(Self::Unified),
            "cgroup" => Ok(Self::Legacy),
            _ => bail!("no such hierarchy: {name}"),
        }
    }

    /// The file that freezes and thaws, and the words for it.
    fn switch(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Unified => ("cgroup.freeze", "1", "0"),
            Self::Legacy => ("freezer.state", "FROZEN", "THAWED"),
        }
    }

    /// Where it is mounted (`proc_mounts(5)`).
    fn mounted(self, mounts: &str) -> Option<PathBuf> {
        mounts.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (_, place, kind, options) =
                (words.next()?, words.next()?, words.next()?, words.next()?);
            let is_it = match self {
                Self::Unified => kind == "cgroup2",
                Self::Legacy => kind == "cgroup" && options.split(',').any(|o| o == "freezer"),
            };
            is_it.then(|| place.into())
        })
    }
}

/// A new cgroup that can be frozen.
pub(super) fn make(hierarchy: Hierarchy, name: &str) -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    let folder = hierarchy.mounted(&mounts).context("is not mounted")?.join(name);
    fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
    let (switch, _, thawed) = hierarchy.switch();
    let able = fs::write(folder.join(switch), thawed);
    if able.is_err() {
        fs::remove_dir(&folder).ok();
    }
    able.with_context(|| format!("write to {switch}"))?;
    Ok(folder)
}

pub(super) fn freeze(hierarchy: Hierarchy, folder: &Path) -> Result<()> {
    let (switch, frozen, _) = hierarchy.switch();
    match hierarchy {
        Hierarchy::Unified => {
            fs::write(folder.join(switch), frozen).context("write to cgroup.freeze")?;
            let path = folder.join("cgroup.events");
            until("the cgroup is frozen", || {
                // Opened before it is read: only what changes from then on wakes.
                let events = fs::File::open(&path).context("open cgroup.events")?;
                let now = fs::read_to_string(&path).context("read cgroup.events")?;
                if now.lines().any(|line| line == "frozen 1") {
                    return Ok(true);
                }
                let mut changes = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
                poll(&mut changes, PollTimeout::from(20_u8)).ok();
                Ok(false)
            })
        }
        Hierarchy::Legacy => {
            let path = folder.join(switch);
            until("the cgroup is frozen", || {
                // A task that was forked meanwhile is met when it is written again.
                fs::write(&path, frozen).context("write to freezer.state")?;
                let now = fs::read_to_string(&path).context("read freezer.state")?;
                Ok(now.trim() == frozen)
            })
        }
    }
}

pub(super) fn thaw(hierarchy: Hierarchy, folder: &Path) -> Result<()> {
    let (switch, _, thawed) = hierarchy.switch();
    fs::write(folder.join(switch), thawed).with_context(|| format!("write to {switch}"))
}

pub(super) fn end(hierarchy: Hierarchy, folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    until("the workload has ended", || {
        let members = fs::read_to_string(folder.join("cgroup.procs")).context("list the cgroup")?;
        if members.trim().is_empty() {
            return Ok(true);
        }
        for pid in members.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1) {
            // Whoever forks meanwhile is met in the next round.
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        thaw(hierarchy, folder)?;
        Ok(false)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hierarchy_is_found_where_it_is_mounted() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n\
            cgroup /sys/fs/cgroup/freezer cgroup rw,relatime,freezer 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let found = |hierarchy: Hierarchy| hierarchy.mounted(hybrid);
        assert_eq!(found(Hierarchy::Unified), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(found(Hierarchy::Legacy), Some("/sys/fs/cgroup/freezer".into()));
        assert_eq!(Hierarchy::Unified.mounted("proc /proc proc rw 0 0\n"), None);
    }
}
