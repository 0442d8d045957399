//! An object's programs, loaded one by one as they are wanted, with those maps that they refer to.
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
    generated::{BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, bpf_insn, bpf_prog_type},
};

use super::{TracerError, object::raise_limit};
use crate::sys::load;

/// An object, parsed; in the kernel there is only what was asked for.
#[derive(Debug)]
pub(crate) struct Loader {
    object: aya_obj::Object,
    maps: Vec<Place>,
    programs: Vec<(&'static str, OwnedFd)>,
    /// The object's own types, in the kernel.
    own_types: OwnedFd,
}

/// What the kernel is told of a program, besides its instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) of: bpf_prog_type,
    /// `enum bpf_attach_type`; 0 where there is none.
    pub(crate) attach_type: u32,
    /// The kernel's function that it hangs on: its type. 0 if there is none.
    pub(crate) attach_to: u32,
}

/// A map; instructions name it by its place in the list until they are loaded.
#[derive(Debug)]
struct Place {
    name: String,
    shape: aya_obj::Map,
    map: Option<MapData>,
}

/// The value of a global, and whether the object must have it.
pub(crate) type Global<'a> = (&'a str, (&'a [u8], bool));

impl Loader {
    /// Parses an object. It is told these globals, and how many entries these maps have.
    ///
    /// # Errors
    /// A kernel that refuses the object's types.
    pub(crate) fn open(
        object: &[u8],
        programs: &HashSet<&str>,
        globals: &[Global<'_>],
        sizes: &[(&str, u32)],
    ) -> Result<Self, TracerError> {
        raise_limit();
        let refused = |error: EbpfError| TracerError::Load(error);
        let parsed = aya_obj::Object::parse(object);
        let mut object = parsed.map_err(|error| refused(error.into()))?;
        object.programs.retain(|name, _| programs.contains(name.as_str()));
        let globals = globals.iter().copied().collect();
        object.patch_map_data(globals).map_err(|error| refused(error.into()))?;
        let own_types = load_types(&mut object).map_err(refused)?;
        let mut maps = Vec::new();
        for (name, mut shape) in object.maps.drain() {
            if let Some((_, entries)) = sizes.iter().find(|(sized, _)| *sized == name) {
                shape.set_max_entries(*entries);
            }
            maps.push(Place { name, shape, map: None });
        }
        let texts: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let numbered = (0..).zip(&maps).map(|(at, place)| (place.name.as_str(), at, &place.shape));
        object.relocate_maps(numbered, &texts).map_err(|error| refused(error.into()))?;
        object.relocate_calls(&texts).map_err(|error| refused(error.into()))?;
        object.sanitize_functions(aya::features());
        Ok(Self { object, maps, programs: Vec::new(), own_types })
    }

    /// A program, loaded if it was not; what it is, follows from its section.
    ///
    /// # Errors
    /// [`TracerError::Missing`], or the kernel's refusal.
    pub(crate) fn program(
        &mut self,
        program: &'static str,
        kind: impl FnOnce(&ProgramSection) -> Result<Kind, TracerError>,
    ) -> Result<OwnedFd, TracerError> {
        if let Some((_, loaded)) = self.programs.iter().find(|(name, _)| *name == program) {
            return duplicate(loaded.as_fd(), program);
        }
        let loaded = self.load(program, kind)?;
        let ours = duplicate(loaded.as_fd(), program)?;
        self.programs.push((program, loaded));
        tracing::debug!(program, "an eBPF program is loaded");
        Ok(ours)
    }

    fn load(
        &mut self,
        program: &'static str,
        kind: impl FnOnce(&ProgramSection) -> Result<Kind, TracerError>,
    ) -> Result<OwnedFd, TracerError> {
        let missing = || TracerError::Missing(program);
        let of = self.object.programs.get(program).ok_or_else(missing)?;
        let license = of.license.clone();
        let kind = kind(&of.section)?;
        let function = self.object.functions.get(&of.function_key()).ok_or_else(missing)?;
        let functions = function.func_info.func_info_bytes();
        let function_size = function.func_info_rec_size;
        let mut instructions = function.instructions.clone();
        self.name_maps(&mut instructions)?;
        let candidate = load::Program {
            name: program,
            kind: kind.of as u32,
            attach_type: kind.attach_type,
            attach_to: kind.attach_to,
            instructions: &instructions,
            license: &license,
            types: self.own_types.as_fd(),
            functions: &functions,
            function_size,
        };
        candidate.load(&mut []).or_else(|_| {
            // Once more, to hear why; a signal may have been the reason.
            let mut log = vec![0; 1 << 20];
            let io_error = match candidate.load(&mut log) {
                Ok(loaded) => return Ok(loaded),
                Err(error) => error,
            };
            log.truncate(log.iter().position(|byte| *byte == 0).unwrap_or(log.len()));
            let verifier_log = VerifierLog::new(String::from_utf8_lossy(&log).into_owned());
            Err(refused(program, ProgramError::LoadError { io_error, verifier_log }))
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
    pub(crate) fn map(&mut self, name: &'static str) -> Result<OwnedFd, TracerError> {
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

pub(crate) fn refused(program: &'static str, source: ProgramError) -> TracerError {
    TracerError::Program { program, source: Box::new(source) }
}

fn duplicate(fd: BorrowedFd<'_>, name: &'static str) -> Result<OwnedFd, TracerError> {
    fd.try_clone_to_owned().map_err(|source| TracerError::Pass { program: name, source })
}

#[cfg(test)]
impl Loader {
    /// How many maps there are in the kernel, and in the object.
    pub(super) fn made(&self) -> (usize, usize) {
        (self.maps.iter().filter(|place| place.map.is_some()).count(), self.maps.len())
    }

    /// Takes from each function what makes the value that is returned.
    pub(super) fn spoil(&mut self) {
        for function in self.object.functions.values_mut() {
            let end = function.instructions.pop().expect("an end");
            function.instructions = vec![end];
            function.func_info_rec_size = 0;
        }
    }
}
