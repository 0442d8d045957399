//! Programs that are loaded for one question, one by one as they are run.
//!
//! aya's loader reads the kernel's types as a whole before it does anything (a hundred thousand of them),
//! makes every map and gives no access to a single program: that takes longer than most answers. Here its
//! parser is used, and of what it finds only what is needed goes to the kernel.

use std::{
    collections::HashSet,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya::{
    EbpfError,
    maps::{MapData, MapError},
    programs::ProgramError,
};
use aya_obj::{
    EbpfSectionKind, ProgramSection, VerifierLog,
    btf::BtfFeatures,
    generated::{
        BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, bpf_attach_type, bpf_insn, bpf_prog_type,
    },
};
use zerocopy::IntoBytes as _;

use super::{
    TracerError,
    object::{OBJECT, Sizes, raise_limit},
    programs::PROGRAMS,
};
use crate::{
    kernel::{btf::Btf, offsets::OffsetTable},
    sys::load,
};

/// The object, parsed; in the kernel there is only what was asked for.
#[derive(Debug)]
pub struct OnDemand {
    object: aya_obj::Object,
    maps: Vec<Place>,
    programs: Vec<(&'static str, OwnedFd)>,
    types: Btf,
    /// The object's own types, in the kernel.
    own_types: OwnedFd,
}

/// A map; instructions name it by its place in the list until they are loaded.
#[derive(Debug)]
struct Place {
    name: String,
    shape: aya_obj::Map,
    map: Option<MapData>,
}

impl OnDemand {
    /// Parses the object. Programs are told where this kernel keeps what.
    ///
    /// # Errors
    /// A kernel without BTF or without a required field, or one that refuses the object's types.
    pub fn open(sizes: Sizes) -> Result<Self, TracerError> {
        raise_limit();
        let types = Btf::of_kernel()?;
        let offsets = OffsetTable::resolve(&types)?;
        tracing::debug!("the kernel's types are read");
        let refused = |error: EbpfError| TracerError::Load(error);
        let parsed = aya_obj::Object::parse(OBJECT);
        let mut object = parsed.map_err(|error| refused(error.into()))?;
        object.programs.retain(|name, _| PROGRAMS.iter().any(|(known, _)| known == name));
        let globals = [
            ("OFFSETS", (offsets.as_words().as_bytes(), true)),
            // They log nothing.
            (aya_log::LEVEL, ([0].as_slice(), false)),
        ];
        object.patch_map_data(globals.into()).map_err(|error| refused(error.into()))?;
        let own_types = load_types(&mut object).map_err(refused)?;
        let mut maps = Vec::new();
        for (name, mut shape) in object.maps.drain() {
            if let Some((_, entries)) = sizes.of_maps().iter().find(|(sized, _)| *sized == name) {
                shape.set_max_entries(*entries);
            }
            maps.push(Place { name, shape, map: None });
        }
        let texts: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let numbered = (0..).zip(&maps).map(|(at, place)| (place.name.as_str(), at, &place.shape));
        object.relocate_maps(numbered, &texts).map_err(|error| refused(error.into()))?;
        object.relocate_calls(&texts).map_err(|error| refused(error.into()))?;
        object.sanitize_functions(aya::features());
        tracing::debug!("the eBPF object is ready to be loaded from");
        Ok(Self { object, maps, programs: Vec::new(), types, own_types })
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
        if let Some((_, loaded)) = self.programs.iter().find(|(name, _)| *name == program) {
            return duplicate(loaded.as_fd(), program);
        }
        let loaded = self.load(program)?;
        let ours = duplicate(loaded.as_fd(), program)?;
        self.programs.push((program, loaded));
        tracing::debug!(program, "an eBPF program is loaded");
        Ok(ours)
    }

    fn load(&mut self, program: &'static str) -> Result<OwnedFd, TracerError> {
        let missing = TracerError::Missing(program);
        let found = PROGRAMS.iter().find(|(name, _)| *name == program);
        let (Some((_, over)), Some(of)) = (found, self.object.programs.get(program)) else {
            return Err(missing);
        };
        let license = of.license.clone();
        let (kind, attach_type) = match of.section {
            ProgramSection::Iter { sleepable: false } => {
                (bpf_prog_type::BPF_PROG_TYPE_TRACING, bpf_attach_type::BPF_TRACE_ITER as u32)
            }
            ProgramSection::RawTracePoint => (bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT, 0),
            _ => return Err(missing),
        };
        let function = self.object.functions.get(&of.function_key()).ok_or(missing)?;
        let functions = function.func_info.func_info_bytes();
        let function_size = function.func_info_rec_size;
        let mut instructions = function.instructions.clone();
        let attach_to = match over {
            None => 0,
            Some(over) => {
                let target = format!("bpf_iter_{over}");
                let unknown = || {
                    let source = aya::BtfError::UnknownBtfTypeName { type_name: target.clone() };
                    refused(program, ProgramError::Btf(source))
                };
                self.types.function(&target).ok_or_else(unknown)?
            }
        };
        self.name_maps(&mut instructions)?;
        let candidate = load::Program {
            name: program,
            kind: kind as u32,
            attach_type,
            attach_to,
            instructions: &instructions,
            license: &license,
            types: self.own_types.as_fd(),
            functions: &functions,
            function_size,
        };
        candidate.load(&mut []).map_err(|io_error| {
            // Once more, to hear why.
            let mut log = vec![0; 1 << 20];
            candidate.load(&mut log).map(drop).ok();
            log.truncate(log.iter().position(|byte| *byte == 0).unwrap_or(log.len()));
            let verifier_log = VerifierLog::new(String::from_utf8_lossy(&log).into_owned());
            refused(program, ProgramError::LoadError { io_error, verifier_log })
        })
    }

    /// Puts descriptors of maps in the place of numbers, and makes those maps.
    fn name_maps(&mut self, instructions: &mut [bpf_insn]) -> Result<(), TracerError> {
        // `BPF_LD | BPF_IMM | BPF_DW`.
        const LOAD_WIDE: u8 = 0x18;
        for instruction in instructions.iter_mut().filter(|i| i.code == LOAD_WIDE) {
            if ![BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE].contains(&instruction.src_reg().into()) {
                continue;
            }
            let place = usize::try_from(instruction.imm).ok().and_then(|at| self.maps.get_mut(at));
            let map = place.ok_or(TracerError::Missing("map that a program refers to"))?.get()?;
            instruction.imm = map.fd().as_fd().as_raw_fd();
        }
        Ok(())
    }

    /// A map of the object, made if it was not.
    ///
    /// # Errors
    /// [`TracerError::Missing`], or the kernel's refusal.
    pub fn map(&mut self, name: &'static str) -> Result<OwnedFd, TracerError> {
        let place = self.maps.iter_mut().find(|place| place.name == name);
        duplicate(place.ok_or(TracerError::Missing(name))?.get()?.fd().as_fd(), name)
    }
}

impl Place {
    fn get(&mut self) -> Result<&MapData, TracerError> {
        let made = match self.map.take() {
            Some(made) => made,
            None => self.make().map_err(|error| TracerError::Load(EbpfError::MapError(error)))?,
        };
        Ok(self.map.insert(made))
    }

    fn make(&self) -> Result<MapData, MapError> {
        let made = MapData::create(self.shape.clone(), &self.name, None)?;
        let content = self.shape.data();
        if !content.is_empty() {
            load::fill(&made, content)?;
        }
        if self.shape.section_kind() == EbpfSectionKind::Rodata {
            load::freeze(made.fd().as_fd())?;
        }
        Ok(made)
    }
}

/// The object's own types, without which no function can be handed to the kernel's loops.
fn load_types(object: &mut aya_obj::Object) -> Result<OwnedFd, EbpfError> {
    // If the kernel knows none at all, or does not let us, it says so itself below.
    let nothing = BtfFeatures::default();
    let known = aya::features().btf().unwrap_or(&nothing);
    let types = object.fixup_and_sanitize_btf(known)?.ok_or(EbpfError::NoBTF)?.to_bytes();
    load::types(&types).map_err(|io_error| {
        let verifier_log = VerifierLog::new(String::new());
        EbpfError::BtfError(aya::BtfError::LoadError { io_error, verifier_log })
    })
}

fn refused(program: &'static str, source: ProgramError) -> TracerError {
    TracerError::Program { program, source: Box::new(source) }
}

fn duplicate(fd: BorrowedFd<'_>, name: &'static str) -> Result<OwnedFd, TracerError> {
    fd.try_clone_to_owned().map_err(|source| TracerError::Pass { program: name, source })
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
            let made = programs.maps.iter().filter(|place| place.map.is_some());
            assert!(made.count() < programs.maps.len() / 2, "{name}");
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
        for function in programs.object.functions.values_mut() {
            // Without what makes the value that is returned.
            let end = function.instructions.pop().expect("an end");
            function.instructions = vec![end];
            function.func_info_rec_size = 0;
        }
        let error = programs.program("see_addresses").expect_err("refused");
        assert!(matches!(error, TracerError::Program { program: "see_addresses", .. }));
        let said = crate::causes::verifier_log(&error).expect("a log");
        assert!(said.contains("R0 !read_ok"), "{said}");
        assert!(matches!(programs.program("nonesuch"), Err(TracerError::Missing("nonesuch"))));
        assert!(matches!(programs.map("NONESUCH"), Err(TracerError::Missing("NONESUCH"))));
    }
}
