//! Silent passes of an iterator over all unix sockets: to seed the ledger with those that are older
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
use crate::{kernel::netns::run_in, model::Count, sys::bpf};

/// What a pass did.
#[derive(Debug, Default)]
pub struct Pass {
    /// Network namespaces visited, by inode number.
    pub namespaces: Vec<u64>,
    /// Network namespaces that could not be visited.
    pub failed: Vec<TracerError>,
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
    pass.failed.extend(foreign.refused());
    for (inode, (name, namespace)) in foreign.found {
        match visit(program, &name, Some(namespace)) {
            Ok(()) => pass.namespaces.push(inode),
            Err(error) => pass.failed.push(error),
        }
    }
    Ok(pass)
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
    /// Tasks whose namespace may not be looked at, and what the kernel says of the first one.
    hidden: usize,
    why: Option<io::Error>,
}

impl Foreign {
    /// A task that has ended meanwhile is in none.
    fn refuse(&mut self, error: io::Error) {
        if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) {
            return;
        }
        self.hidden += 1;
        self.why.get_or_insert(error);
    }

    fn refused(&self) -> Option<TracerError> {
        let why = self.why.as_ref()?;
        let source = io::Error::new(why.kind(), why.to_string());
        let netns = format!("of {} that may not be looked at", Count(self.hidden, "task"));
        Some(TracerError::Seed { netns, source })
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
                    foreign.refuse(error);
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
                Err(error) => foreign.refuse(error),
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
