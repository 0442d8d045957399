//! The eBPF programs of locks, which are an object of their own: nobody who only traces makes their maps. One of these is
//! an array of programs, and Linux (6.18 as well) never frees such a map if somebody who lists all maps looks at it at the
//! moment at which its last holder goes.

use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{CgroupSkb, Program, ProgramFd, SchedClassifier},
};

use super::{EARLY, FILTER, LockError, PROGRAMS, refused};
use crate::tracer::{TracerError, object::raise_limit};

/// Built by `build.rs` from `ucr-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ucr-lock"));

/// The object in the kernel: maps made, no program loaded yet.
#[derive(Debug)]
pub struct Object(Ebpf);

impl Object {
    /// Makes the maps.
    ///
    /// # Errors
    /// A kernel that refuses one.
    pub fn load() -> Result<Self, LockError> {
        raise_limit();
        let loaded = EbpfLoader::new().btf(None).load(OBJECT);
        Ok(Self(loaded.map_err(TracerError::Load)?))
    }

    /// Loads each program and attaches none: what came of it, by name.
    pub fn load_each(&mut self) -> Vec<(&'static str, Result<(), LockError>)> {
        let mut all: Vec<_> =
            PROGRAMS.map(|(name, _)| (name, self.of_sockets(name).map(drop))).into();
        all.extend([EARLY, FILTER].map(|name| (name, self.of_interfaces(name).map(drop))));
        all
    }

    /// All programs of the object, by name, whether they are loaded or not.
    pub fn programs(&self) -> impl Iterator<Item = (&str, &Program)> {
        self.0.programs()
    }

    /// A program of the cgroup tree, loaded.
    pub(super) fn of_sockets(&mut self, name: &'static str) -> Result<&mut CgroupSkb, LockError> {
        let program: &mut CgroupSkb = self.program(name)?.try_into().map_err(refused(name))?;
        program.load().map_err(refused(name))?;
        Ok(program)
    }

    /// A program of interfaces, loaded if it was not.
    pub(super) fn of_interfaces(
        &mut self,
        name: &'static str,
    ) -> Result<&mut SchedClassifier, LockError> {
        let program: &mut SchedClassifier =
            self.program(name)?.try_into().map_err(refused(name))?;
        if program.fd().is_err() {
            program.load().map_err(refused(name))?;
        }
        Ok(program)
    }

    /// The descriptor of a program that is loaded.
    pub(super) fn loaded(&self, name: &'static str) -> Result<&ProgramFd, LockError> {
        let program = self.0.program(name).ok_or(TracerError::Missing(name))?;
        program.fd().map_err(refused(name))
    }

    /// A map of the object, for good.
    pub(super) fn take_map(&mut self, name: &'static str) -> Result<Map, LockError> {
        Ok(self.0.take_map(name).ok_or(TracerError::Missing(name))?)
    }

    fn program(&mut self, name: &'static str) -> Result<&mut Program, LockError> {
        Ok(self.0.program_mut(name).ok_or(TracerError::Missing(name))?)
    }
}
