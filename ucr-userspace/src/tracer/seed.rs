//! The silent pass over the sockets that are older than the tracer.
//!
//! `iter/unix` sees the network namespace of the task that opens it, so there is one pass for
//! each namespace that some process is in, by a thread that enters it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
};

use aya::programs::Iter;

use super::{TracerError, object::Object};
use crate::kernel::netns::run_in;

/// The iterator program that fills the ledger.
const PROGRAM: &str = "seed_unix";

/// What a pass did.
#[derive(Debug, Default)]
pub struct Seeded {
    /// Network namespaces visited.
    pub namespaces: usize,
    /// Network namespaces that could not be visited: their sockets are known from the first call
    /// that names them.
    pub failed: Vec<TracerError>,
}

/// Visits every unix socket of every network namespace that some process is in.
///
/// # Errors
/// Only if not even our own namespace can be visited.
pub fn seed(object: &mut Object) -> Result<Seeded, TracerError> {
    let iterator = object.iterator(PROGRAM, "unix")?;
    visit(iterator, "/proc/self/ns/net", None)?;
    let mut seeded = Seeded { namespaces: 1, failed: Vec::new() };
    for (name, namespace) in foreign_namespaces() {
        match visit(iterator, &name, Some(namespace)) {
            Ok(()) => seeded.namespaces += 1,
            Err(error) => seeded.failed.push(error),
        }
    }
    Ok(seeded)
}

/// One pass, in another network namespace if one is given.
fn visit(iterator: &mut Iter, name: &str, namespace: Option<File>) -> Result<(), TracerError> {
    let refused = |source| TracerError::Program { program: PROGRAM, source: Box::new(source) };
    let id = iterator.attach().map_err(refused)?;
    let link = iterator.take_link(id).map_err(refused)?;
    let pass = run_in(namespace, move || -> io::Result<()> {
        let mut pass = link.into_file().map_err(io::Error::other)?;
        let mut nothing = [0; 8];
        while pass.read(&mut nothing)? > 0 {}
        Ok(())
    });
    pass.and_then(|result| result)
        .map_err(|source| TracerError::Seed { netns: name.to_owned(), source })
}

/// One open file for each network namespace other than ours, by the path it was found at.
fn foreign_namespaces() -> BTreeMap<String, File> {
    let mut known: Vec<u64> =
        fs::metadata("/proc/self/ns/net").map(|own| own.ino()).into_iter().collect();
    let mut found = BTreeMap::new();
    let Ok(processes) = fs::read_dir("/proc") else { return found };
    for entry in processes.flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let path = entry.path().join("ns/net");
        // A process that ends meanwhile, or a kernel thread's that may not be looked at, is none.
        let Ok(inode) = fs::metadata(&path).map(|m| m.ino()) else { continue };
        if known.contains(&inode) {
            continue;
        }
        if let Ok(file) = File::open(&path) {
            known.push(inode);
            found.insert(path.display().to_string(), file);
        }
    }
    found
}
