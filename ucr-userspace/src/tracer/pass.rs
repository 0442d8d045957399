//! Silent passes of an iterator over all sockets: to seed the ledger with those that are older
//! than the tracer, to correct it, to take a census.
//!
//! `iter/unix` sees the network namespace of the task that opens it, so there is one pass for
//! each namespace that some task is in, by a thread that enters it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{fd::BorrowedFd, unix::fs::MetadataExt as _},
    path::Path,
};

use super::{TracerError, programs::run_silently};
use crate::{kernel::netns::run_in, sys::bpf};

/// What a pass did.
#[derive(Debug, Default)]
pub struct Pass {
    /// Network namespaces visited, by inode number.
    pub namespaces: Vec<u64>,
    /// Network namespaces that could not be visited.
    pub failed: Vec<TracerError>,
    /// Tasks whose network namespace may not be looked at: another security domain's, for one. They are
    /// likely to be in one that was visited.
    pub hidden: usize,
}

impl Pass {
    /// Whether the sockets of a network namespace have been visited.
    #[must_use]
    pub fn has_visited(&self, netns: u32) -> bool {
        self.namespaces.contains(&netns.into())
    }
}

/// Runs an iterator program over every unix socket of every network namespace that some task is in.
///
/// # Errors
/// Only if not even our own namespace can be visited.
pub(super) fn run(program: BorrowedFd<'_>) -> Result<Pass, TracerError> {
    let mut pass = run_here(program)?;
    let foreign = foreign_namespaces(&pass.namespaces);
    pass.failed.extend(foreign.failed);
    pass.hidden = foreign.hidden;
    for (inode, (name, namespace)) in foreign.found {
        match visit(program, &name, Some(namespace)) {
            Ok(()) => pass.namespaces.push(inode),
            Err(error) => pass.failed.push(error),
        }
    }
    Ok(pass)
}

/// Runs an iterator program that goes over the descriptors of all tasks: of whatever network namespace.
///
/// # Errors
/// The kernel's.
pub(super) fn run_everywhere(
    name: &'static str,
    program: BorrowedFd<'_>,
) -> Result<(), TracerError> {
    let run = bpf::iterate_all(program).and_then(run_silently);
    run.map_err(|source| TracerError::Pass { program: name, source })
}

/// Runs an iterator program over our own network namespace only.
///
/// # Errors
/// The kernel's.
pub(super) fn run_here(program: BorrowedFd<'_>) -> Result<Pass, TracerError> {
    visit(program, "/proc/self/ns/net", None)?;
    let mut pass = Pass::default();
    pass.namespaces.extend(fs::metadata("/proc/self/ns/net").map(|facts| facts.ino()));
    Ok(pass)
}

/// One pass, in another network namespace if one is given.
fn visit(program: BorrowedFd<'_>, name: &str, namespace: Option<File>) -> Result<(), TracerError> {
    run_in(namespace, move || bpf::iterate_all(program).and_then(run_silently))
        .and_then(|result| result)
        .map_err(|source| TracerError::Seed { netns: name.to_owned(), source })
}

/// Network namespaces that are not known yet.
#[derive(Default)]
struct Foreign {
    /// One open file for each, by its inode number, with the path it was found at.
    found: BTreeMap<u64, (String, File)>,
    /// Tasks whose namespace may not be looked at.
    hidden: usize,
    /// What else went wrong: no descriptors are left, for one.
    failed: Vec<TracerError>,
}

impl Foreign {
    /// A task that has ended meanwhile is in none.
    fn refuse(&mut self, path: &Path, error: io::Error) {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => {}
            Some(libc::EACCES | libc::EPERM) => self.hidden += 1,
            _ => {
                let netns = path.display().to_string();
                self.failed.push(TracerError::Seed { netns, source: error });
            }
        }
    }
}

/// A thread can be in another network namespace than its process.
fn foreign_namespaces(known: &[u64]) -> Foreign {
    let mut foreign = Foreign::default();
    for process in numbered(Path::new("/proc")) {
        for task in numbered(&process.join("task")) {
            let path = task.join("ns/net");
            let inode = match fs::metadata(&path) {
                Ok(facts) => facts.ino(),
                Err(error) => {
                    foreign.refuse(&path, error);
                    continue;
                }
            };
            if known.contains(&inode) || foreign.found.contains_key(&inode) {
                continue;
            }
            match File::open(&path) {
                Ok(file) => {
                    foreign.found.insert(inode, (path.display().to_string(), file));
                }
                Err(error) => foreign.refuse(&path, error),
            }
        }
    }
    foreign
}

/// The entries of a directory whose names are numbers.
fn numbered(directory: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .map(|entry| entry.path())
}
