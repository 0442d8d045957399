//! The eBPF programs of locks, in two objects of their own: nobody who only traces makes their maps.
//!
//! The second one is for filters, and has a map that who needs none is not to make: an array of programs, which Linux
//! (6.18 as well) never frees if somebody who lists all maps looks at it at the moment at which its last holder goes.

use std::{
    collections::HashSet,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    maps::MapData,
    programs::{ProgramInfo, loaded_programs},
};
use aya_obj::generated::bpf_prog_type;

use super::{EARLY, FILTER, LockError, PROGRAMS, failed};
use crate::{
    sys::bpf,
    tracer::{
        TracerError,
        loader::{Kind, Loader},
    },
};

/// Built by `build.rs` from `ucr-ebpf`.
static LOCK: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ucr-lock"));
static CALLER: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ucr-filter"));

/// An object, of which nothing is in the kernel yet but its types.
#[derive(Debug)]
pub struct Object(Loader);

impl Object {
    /// That of what drops packets.
    ///
    /// # Errors
    /// A kernel that refuses its types.
    pub fn open() -> Result<Self, LockError> {
        Self::parse(LOCK)
    }

    /// That of what calls that where it cannot hang itself.
    ///
    /// # Errors
    /// A kernel that refuses its types.
    pub(super) fn open_caller() -> Result<Self, LockError> {
        Self::parse(CALLER)
    }

    fn parse(object: &[u8]) -> Result<Self, LockError> {
        let names: HashSet<&str> =
            PROGRAMS.iter().map(|(name, _)| *name).chain([EARLY, FILTER]).collect();
        Ok(Self(Loader::open(object, &names, &[], &[])?))
    }

    /// A program, loaded if it was not.
    ///
    /// # Errors
    /// A kernel that refuses it, or a map that it refers to.
    pub(super) fn program(&mut self, name: &'static str) -> Result<OwnedFd, LockError> {
        let of_sockets = PROGRAMS.iter().find(|(known, _)| *known == name);
        let kind = match of_sockets {
            Some((_, attach_type)) => Kind {
                of: bpf_prog_type::BPF_PROG_TYPE_CGROUP_SKB,
                attach_type: *attach_type as u32,
                attach_to: 0,
            },
            None => {
                let of = bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS;
                Kind { of, attach_type: 0, attach_to: 0 }
            }
        };
        self.0.program(name, |_| Ok(kind)).map_err(|error| match error {
            TracerError::Program { program, source } => LockError::Program { program, source },
            error => error.into(),
        })
    }

    /// A map, made if it was not.
    ///
    /// # Errors
    /// A kernel that refuses it.
    pub(super) fn map(&mut self, name: &'static str) -> Result<MapData, LockError> {
        Ok(MapData::from_fd(self.0.map(name)?)?)
    }
}

/// Name of a program, and what the kernel says of it, or why it was refused.
pub type Attempt = (&'static str, Result<ProgramInfo, LockError>);

/// Loads each program of both objects and attaches none.
///
/// # Errors
/// A kernel that refuses a map.
pub fn load_each() -> Result<Vec<Attempt>, LockError> {
    let (mut lock, mut caller) = (Object::open()?, Object::open_caller()?);
    let of_sockets = PROGRAMS.map(|(name, _)| name);
    let mut all: Vec<Attempt> = of_sockets
        .into_iter()
        .chain([EARLY])
        .map(|name| (name, lock.program(name).and_then(|program| about(name, &program))))
        .collect();
    let filter = caller.program(FILTER);
    all.push((FILTER, filter.and_then(|program| about(FILTER, &program))));
    Ok(all)
}

fn about(name: &'static str, program: &OwnedFd) -> Result<ProgramInfo, LockError> {
    let id = bpf::program_id(program.as_fd()).map_err(failed(name, "read fdinfo"))?;
    let all = loaded_programs().flatten();
    Ok(all.into_iter().find(|one| one.id() == id).ok_or(TracerError::Missing(name))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY;

    fn parsed(object: &[u8]) -> aya_obj::Object {
        aya_obj::Object::parse(object).expect("an object")
    }

    /// What a kernel may never free only who hangs up filters makes. See `docs/KERNEL.md`.
    #[test]
    fn only_the_object_of_filters_has_an_array_of_programs() {
        let arrays = |object| {
            let of_programs = BPF_MAP_TYPE_PROG_ARRAY as u32;
            parsed(object).maps.values().filter(|map| map.map_type() == of_programs).count()
        };
        assert_eq!((arrays(LOCK), arrays(CALLER)), (0, 1));
    }

    #[test]
    fn each_of_their_programs_is_known() {
        let names = |object| parsed(object).programs.into_keys().collect::<HashSet<String>>();
        let [(ingress, _), (egress, _)] = PROGRAMS;
        assert_eq!(names(LOCK), [ingress, egress, EARLY].map(str::to_owned).into());
        assert_eq!(names(CALLER), [FILTER.to_owned()].into());
    }
}
