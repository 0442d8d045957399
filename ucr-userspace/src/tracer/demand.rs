//! Programs that are loaded for one question, one by one as they are run, and where this kernel keeps what they read.

use std::{collections::HashSet, os::fd::OwnedFd};

use aya::programs::ProgramError;
use aya_obj::{
    ProgramSection,
    generated::{bpf_attach_type, bpf_prog_type},
};
use zerocopy::IntoBytes as _;

use super::{
    TracerError,
    loader::{Kind, Loader, refused},
    object::{OBJECT, Sizes},
    programs::PROGRAMS,
};
use crate::kernel::{btf::Btf, offsets::OffsetTable};

/// The object, parsed; in the kernel there is only what was asked for.
#[derive(Debug)]
pub struct OnDemand {
    loader: Loader,
    types: Btf,
}

impl OnDemand {
    /// Parses the object. Programs are told where this kernel keeps what.
    ///
    /// # Errors
    /// A kernel without BTF or without a required field, or one that refuses the object's types.
    pub fn open(sizes: Sizes) -> Result<Self, TracerError> {
        let types = Btf::of_kernel()?;
        let offsets = OffsetTable::resolve(&types)?;
        tracing::debug!("the kernel's types are read");
        let globals = [
            ("OFFSETS", (offsets.as_words().as_bytes(), true)),
            // They log nothing.
            (aya_log::LEVEL, ([0].as_slice(), false)),
        ];
        let wanted: HashSet<&str> = PROGRAMS.iter().map(|(name, _)| *name).collect();
        let loader = Loader::open(OBJECT, &wanted, &globals, &sizes.of_maps())?;
        tracing::debug!("the eBPF object is ready to be loaded from");
        Ok(Self { loader, types })
    }

    /// The kernel's types.
    #[must_use]
    pub fn types(&self) -> &Btf {
        &self.types
    }

    /// One of [`PROGRAMS`], loaded if it was not.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn program(&mut self, program: &'static str) -> Result<OwnedFd, TracerError> {
        let missing = TracerError::Missing(program);
        let Some((_, over)) = PROGRAMS.iter().find(|(name, _)| *name == program) else {
            return Err(missing);
        };
        let types = &self.types;
        self.loader.program(program, |section| {
            let (of, attach_type) = match section {
                ProgramSection::Iter { sleepable: false } => {
                    (bpf_prog_type::BPF_PROG_TYPE_TRACING, bpf_attach_type::BPF_TRACE_ITER as u32)
                }
                ProgramSection::RawTracePoint => (bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT, 0),
                _ => return Err(missing),
            };
            let attach_to = match over {
                None => 0,
                Some(over) => {
                    let target = format!("bpf_iter_{over}");
                    let unknown = || {
                        let type_name = target.clone();
                        let source = aya::BtfError::UnknownBtfTypeName { type_name };
                        refused(program, ProgramError::Btf(source))
                    };
                    types.function(&target).ok_or_else(unknown)?
                }
            };
            Ok(Kind { of, attach_type, attach_to })
        })
    }

    /// A map of the object, made if it was not.
    ///
    /// # Errors
    /// [`TracerError::Missing`], or the kernel's refusal.
    pub fn map(&mut self, name: &'static str) -> Result<OwnedFd, TracerError> {
        self.loader.map(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Sizes = Sizes { ring_bytes: 4096, sockets: 1, census: 1, found: 1 };

    #[test]
    fn every_program_can_be_loaded_alone_and_only_its_maps_are_made() {
        for (name, _) in PROGRAMS {
            let mut programs = OnDemand::open(SMALL).expect("the object");
            programs.program(name).expect(name);
            programs.program(name).expect("the one that is there");
            let (made, all) = programs.loader.made();
            assert!(made < all / 2, "{name}: {made} of {all}");
        }
    }

    #[test]
    fn the_object_asks_for_nothing_of_the_kernels_types_that_is_left_out_here() {
        let object = aya_obj::Object::parse(OBJECT).expect("an object");
        assert!(!object.has_btf_relocations());
    }

    /// Linux (6.18 as well) never frees one if somebody who lists all maps opens and closes it at the moment at which
    /// its last holder goes: whoever only traces must not make any. See `docs/KERNEL.md`.
    #[test]
    fn the_object_has_no_array_of_programs() {
        const PROG_ARRAY: u32 = aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY as u32;
        let object = aya_obj::Object::parse(OBJECT).expect("an object");
        assert!(object.maps.values().all(|map| map.map_type() != PROG_ARRAY));
    }

    #[test]
    fn a_refusal_says_what_the_verifier_has_said() {
        let mut programs = OnDemand::open(SMALL).expect("the object");
        programs.loader.spoil();
        let error = programs.program("see_addresses").expect_err("refused");
        assert!(matches!(error, TracerError::Program { program: "see_addresses", .. }));
        let said = crate::causes::verifier_log(&error).expect("a log");
        assert!(said.contains("R0 !read_ok"), "{said}");
        assert!(matches!(programs.program("nonesuch"), Err(TracerError::Missing("nonesuch"))));
        assert!(matches!(programs.map("NONESUCH"), Err(TracerError::Missing("NONESUCH"))));
    }
}
