//! Files that an earlier restore moved aside and, being killed, neither moved back nor deleted.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;

use super::files::Entry;
use super::plan::Plan;
use super::undo::HIDDEN;
use crate::model::Pid;
use crate::model::name::Escaped;
use crate::process::files::Facts;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Where it is.
    pub path: Vec<u8>,
    /// What kind of file.
    pub kind: FileType,
    /// The process that moved it, which is gone.
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
        let (path, pid) = (Escaped(&self.path), self.pid);
        write!(f, "{path} is {kind} that a restore by pid {pid} moved aside before it was killed")
    }
}

/// Looks for them in the directories that a plan binds in. A directory that cannot be read is
/// passed over: this is only to remind somebody.
#[must_use]
pub fn find(plan: &Plan) -> Vec<Leftover> {
    let mut looked_at = HashSet::new();
    let mut found = Vec::new();
    for wanted in &plan.paths {
        let directory = Entry::of(&wanted.path).and_then(|entry| entry.directory());
        if !directory.is_ok_and(|directory| looked_at.insert(directory)) {
            continue;
        }
        let end = wanted.path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        let parent = OsStr::from_bytes(wanted.path.get(..end).unwrap_or_default());
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let Some(pid) = mover(entry.file_name().as_bytes()) else { continue };
            let path = Path::new(parent).join(entry.file_name()).as_os_str().as_bytes().to_vec();
            // Its process is at work, or it is gone meanwhile.
            if Path::new(&format!("/proc/{pid}")).exists() {
                continue;
            }
            if let Ok(Some(facts)) = Facts::at(&path) {
                found.push(Leftover { path, kind: facts.kind, pid });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Whose restore gave a file this name.
fn mover(name: &[u8]) -> Option<Pid> {
    let (pid, number) = std::str::from_utf8(name).ok()?.strip_prefix(HIDDEN)?.split_once('-')?;
    number.parse::<u32>().ok()?;
    Some(Pid(pid.parse().ok().filter(|pid| *pid > 0)?))
}
