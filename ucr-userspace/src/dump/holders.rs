//! Files in flight that are no unix sockets: who else has them open, and can give them away at the restore.

use foldhash::{HashMap, HashSet};
use std::fs;
use std::os::fd::{AsFd as _, RawFd};

use super::{external::Then, hidden::Passing};
use crate::{image::ForeignFile, model::Pid, sys::compare};

/// Finds for each file a process that has it open and will go on: one that is not dumped, else one that is
/// and does not end. One pass over all processes, made only if there is such a file.
pub(super) fn find(files: &[Passing], dumped: &[Pid], then: Then) -> Vec<Option<ForeignFile>> {
    if files.is_empty() {
        return Vec::new();
    }
    let names: HashSet<&[u8]> = files.iter().map(|file| file.name.as_slice()).collect();
    let mut candidates = candidates(&names);
    for found in candidates.values_mut() {
        found.retain(|(pid, _)| then == Then::GoOn || !dumped.contains(pid));
        found.sort_by_key(|(pid, fd)| (dumped.contains(pid), *pid, *fd));
    }
    let holder = |file: &Passing| {
        let candidates = candidates.get(&file.name)?;
        // What cannot be compared (the process has ended, the kernel has no `kcmp`) is no holder.
        let is_it = |(pid, fd): &&(Pid, RawFd)| {
            compare::is_same_file(file.descriptor.as_fd(), pid.0, *fd).is_ok_and(|same| same)
        };
        let holder = *candidates.iter().find(is_it)?;
        let facts = rustix::fs::fstat(&file.descriptor).ok()?;
        let (device, inode) = (facts.st_dev, facts.st_ino);
        Some(ForeignFile { name: file.name.clone(), device, inode, holder })
    };
    files.iter().map(holder).collect()
}

/// Descriptors of other processes that lead to files with these names. Links of `/proc` are only read, never
/// followed: a file may be on a file system that does not answer.
fn candidates(names: &HashSet<&[u8]>) -> HashMap<Vec<u8>, Vec<(Pid, RawFd)>> {
    let own = Pid(nix::unistd::getpid().as_raw());
    let mut found: HashMap<Vec<u8>, Vec<(Pid, RawFd)>> = HashMap::default();
    for pid in numbers("/proc").map(Pid).filter(|pid| *pid != own) {
        let folder = format!("/proc/{pid}/fd");
        for fd in numbers(&folder) {
            let Ok(name) = fs::read_link(format!("{folder}/{fd}")) else { continue };
            let name = name.into_os_string().into_encoded_bytes();
            if names.contains(name.as_slice()) {
                found.entry(name).or_default().push((pid, fd));
            }
        }
    }
    found
}

/// The entries of a folder that are numbers; none if it is gone, or not for us.
fn numbers(folder: &str) -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
