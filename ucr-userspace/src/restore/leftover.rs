//! Files that an earlier restore moved aside and, being killed, neither moved back nor deleted; and the
//! directories that it bound sockets in.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;

use super::files::{Entry, through_proc};
use super::plan::Plan;
use super::plan::spot::Spot;
use super::private::{self, PrivateRoot, Sweep};
use super::undo::HIDDEN;
use crate::model::Pid;
use crate::process::beneath::PRIVATE;
use crate::process::files::Facts;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Where it is.
    pub spot: Spot,
    /// What kind of file.
    pub kind: FileType,
    /// The process that left it, which is gone.
    pub pid: Pid,
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FileType::RegularFile => "a file",
            FileType::Socket => "a socket file",
            FileType::Symlink => "a symbolic link",
            FileType::Fifo => "a named pipe",
            _ => "something",
        };
        let (spot, pid) = (&self.spot, self.pid);
        if self.kind == FileType::Directory {
            return write!(
                f,
                "{spot} is a directory that a restore by pid {pid} worked in before it was killed"
            );
        }
        write!(f, "{spot} is {kind} that a restore by pid {pid} moved aside before it was killed")
    }
}

/// Looks for them in the directories that a plan binds in, and where it binds what has no file. A directory that cannot be read is
/// passed over: this is only to remind somebody.
#[must_use]
pub fn find(plan: &Plan) -> Vec<Leftover> {
    let mut looked_at = HashSet::new();
    let mut found = Vec::new();
    let temporary = private::directory_of_temporary().join("-").into_os_string();
    let temporary = plan.binds_privately().then(|| Spot::here(temporary.as_bytes().to_vec()));
    for spot in plan.paths.iter().map(|wanted| &wanted.spot).chain(&temporary) {
        let Ok(entry) = Entry::of(spot) else { continue };
        if !entry.directory().is_ok_and(|directory| looked_at.insert(directory)) {
            continue;
        }
        let Ok(parent) = entry.parent() else { continue };
        let parent = through_proc(&parent);
        for entry in fs::read_dir(OsStr::from_bytes(&parent)).into_iter().flatten().flatten() {
            let Some(pid) = maker(entry.file_name().as_bytes()) else { continue };
            // Its process is at work, or it is gone meanwhile.
            if Path::new(&format!("/proc/{pid}")).exists() {
                continue;
            }
            if let Ok(Some(facts)) = Facts::at(entry.path().as_os_str().as_bytes()) {
                let spot = spot.beside(entry.file_name().as_bytes());
                found.push(Leftover { spot, kind: facts.kind, pid });
            }
        }
    }
    found.sort_by(|a, b| a.spot.cmp(&b.spot));
    found
}

/// Removes the directories among them with nothing in them that anybody has any use for, and returns what is left: files,
/// directories with a file that may be of a socket that lives, those of other users, and those that cannot be removed,
/// with the reason.
#[must_use]
pub fn sweep(found: Vec<Leftover>) -> Vec<(Leftover, Option<io::Error>)> {
    let swept = found.into_iter().filter_map(|leftover| {
        let name = leftover.spot.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let name = std::str::from_utf8(name).ok().filter(|name| name.starts_with(PRIVATE));
        let Some(name) = name.filter(|_| leftover.kind == FileType::Directory) else {
            return Some((leftover, None));
        };
        let parent = Entry::of(&leftover.spot).and_then(|entry| entry.parent());
        match parent.and_then(|parent| PrivateRoot::sweep(parent, name.to_owned())) {
            Ok(Sweep::Stays) => Some((leftover, None)),
            Ok(Sweep::Gone | Sweep::InUse) => None,
            Err(error) => Some((leftover, Some(error))),
        }
    });
    swept.collect()
}

/// Whose restore gave a file this name.
fn maker(name: &[u8]) -> Option<Pid> {
    let name = std::str::from_utf8(name).ok()?;
    let rest = name.strip_prefix(HIDDEN).or_else(|| name.strip_prefix(PRIVATE))?;
    let (pid, number) = rest.split_once('-')?;
    number.parse::<u32>().ok()?;
    Some(Pid(pid.parse().ok().filter(|pid| *pid > 0)?))
}
