//! The eBPF programs of locks, in two objects of their own: nobody who only traces makes their maps.
//!
//! The second one is for filters, and has a map that who needs none is not to make: an array of programs, which Linux
//! (6.18 as well) never frees if somebody who lists all maps looks at it at the moment at which its last holder goes.

use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{CgroupSkb, Program, ProgramFd, ProgramInfo, SchedClassifier},
};

use super::{EARLY, FILTER, LockError, PROGRAMS, refused};
use crate::tracer::{TracerError, object::raise_limit};

/// Built by `build.rs` from `ucr-ebpf`.
static LOCK: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ucr-lock"));
static CALLER: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ucr-filter"));

/// An object in the kernel: maps made, no program loaded yet.
#[derive(Debug)]
pub struct Object(Ebpf);

impl Object {
    /// Makes the maps of what drops packets.
    ///
    /// # Errors
    /// A kernel that refuses one.
    pub fn load() -> Result<Self, LockError> {
        Self::load_from(LOCK)
    }

    /// Makes the map of what calls that where it cannot hang itself.
    ///
    /// # Errors
    /// A kernel that refuses it.
    pub(super) fn load_caller() -> Result<Self, LockError> {
        Self::load_from(CALLER)
    }

    fn load_from(object: &[u8]) -> Result<Self, LockError> {
        raise_limit();
        let loaded = EbpfLoader::new().btf(None).load(object);
        Ok(Self(loaded.map_err(TracerError::Load)?))
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

/// Name of a program, and what the kernel says of it, or why it was refused.
pub type Attempt = (&'static str, Result<ProgramInfo, LockError>);

/// Loads each program of both objects and attaches none.
///
/// # Errors
/// A kernel that refuses a map.
pub fn load_each() -> Result<Vec<Attempt>, LockError> {
    let (mut lock, mut caller) = (Object::load()?, Object::load_caller()?);
    let mut all = Vec::new();
    for (name, _) in PROGRAMS {
        let loaded = lock.of_sockets(name);
        all.push((name, loaded.and_then(|program| program.info().map_err(refused(name)))));
    }
    for (object, name) in [(&mut lock, EARLY), (&mut caller, FILTER)] {
        let loaded = object.of_interfaces(name);
        all.push((name, loaded.and_then(|program| program.info().map_err(refused(name)))));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY;

    /// What a kernel may never free only who hangs up filters makes. See `docs/KERNEL.md`.
    #[test]
    fn only_the_object_of_filters_has_an_array_of_programs() {
        let arrays = |object| {
            let object = aya_obj::Object::parse(object).expect("an object");
            let of_programs = BPF_MAP_TYPE_PROG_ARRAY as u32;
            object.maps.values().filter(|map| map.map_type() == of_programs).count()
        };
        assert_eq!((arrays(LOCK), arrays(CALLER)), (0, 1));
    }
}
