//! The embedded eBPF object and how it is loaded.

use std::path::Path;

use aya::{
    Btf, Ebpf, EbpfLoader, Endianness,
    maps::MapData,
    programs::{
        BtfTracePoint, FEntry, FExit, Iter, Program, ProgramError, ProgramFd, RawTracePoint,
        links::FdLink,
    },
};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use ucr_common::sighting::COUNTS;

use super::{
    TracerError,
    hooks::{Hook, Point},
};
use crate::kernel;

/// Built by `build.rs` from `ucr-ebpf`.
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ucr-ebpf"));

/// Maps that hold what lasts, and are pinned when tracing is attached.
pub const PINNED_MAPS: [&str; 14] = [
    "LEDGER",
    "BIND_PATHS",
    "EVENTS",
    "CONTROL",
    "LEASE",
    "COUNTERS",
    "WANTED",
    "FOUND",
    "ENDS",
    "SIGHT",
    "SEQUENCE",
    "WANTS",
    "MEMORY",
    "LAYOUT",
];

/// Sizes that a user can choose.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Ring buffer, in bytes: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Most sockets that the ledger holds.
    pub sockets: u32,
    /// Most sockets that a census holds: for who takes one.
    pub census: u32,
    /// Most sockets of a network namespace that a listing finds without a descriptor.
    pub found: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { ring_bytes: 4 << 20, sockets: 262_144, census: 1, found: 262_144 }
    }
}

impl Sizes {
    /// By the names of the maps.
    pub(super) fn of_maps(&self) -> [(&'static str, u32); 5] {
        [
            ("EVENTS", self.ring_bytes),
            ("LEDGER", self.sockets),
            ("BIND_PATHS", self.sockets),
            ("CENSUS", self.census),
            ("FOUND", self.found.max(COUNTS).saturating_add(1)),
        ]
    }
}

/// Kernels before 5.11 charge maps to this limit; later ones do not look at it. That it cannot be raised
/// shows when a map is refused.
pub(super) fn raise_limit() {
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}

/// The object in the kernel: maps made, no program loaded yet.
#[derive(Debug)]
pub struct Object {
    ebpf: Ebpf,
    btf: Btf,
    types: kernel::btf::Btf,
}

impl Object {
    /// Makes the maps. Those that last are taken from, or pinned to, `maps` if it is given.
    ///
    /// # Errors
    /// A kernel without BTF or without a required field, or one that refuses a map.
    pub fn load(maps: Option<&Path>, sizes: Sizes, log: LogLevel) -> Result<Self, TracerError> {
        raise_limit();
        let types = kernel::btf::Btf::of_kernel()?;
        let offsets = kernel::offsets::OffsetTable::resolve(&types)?;
        // Read once: before 6.16 the kernel hands it out a page at a time.
        let btf = Btf::parse(types.bytes(), Endianness::default())?;
        // Absent, no program that asks is loaded.
        let parameters = |accept| u64::from(types.parameter_count(accept).unwrap_or(0));
        let (unix, inet) = (parameters("unix_accept"), parameters("inet_accept"));
        let level = log.number();
        let mut loader = EbpfLoader::new();
        loader
            .btf(Some(&btf))
            .override_global("OFFSETS", offsets.as_words(), true)
            .override_global("ACCEPT_PARAMETERS", &unix, true)
            .override_global("INET_ACCEPT_PARAMETERS", &inet, true)
            .override_global(aya_log::LEVEL, &level, false);
        for (name, entries) in sizes.of_maps() {
            loader.map_max_entries(name, entries);
        }
        if let Some(directory) = maps {
            for name in PINNED_MAPS {
                loader.map_pin_path(name, directory.join(name));
            }
        }
        let ebpf = loader.load(OBJECT).map_err(TracerError::Load)?;
        Ok(Self { ebpf, btf, types })
    }

    /// Whether this kernel has what a program hangs on, in a shape that the program is written for. That
    /// does not prove that it can be attached to.
    ///
    /// # Errors
    /// [`TracerError::NoSuchPoint`], [`TracerError::OtherPrototype`].
    pub fn check(&self, hook: &Hook) -> Result<(), TracerError> {
        let target = hook.point.target();
        if let Point::Tracepoint(name) = hook.point {
            let known = self.types.has_tracepoint(name);
            return if known { Ok(()) } else { Err(TracerError::NoSuchPoint { target }) };
        }
        match self.types.prototype(target) {
            None => Err(TracerError::NoSuchPoint { target }),
            Some(found) if hook.prototypes.contains(&found.as_str()) => Ok(()),
            Some(found) => Err(TracerError::OtherPrototype { target, found }),
        }
    }

    /// Loads one program, if it was not, and attaches it; the link ends with what is returned.
    ///
    /// # Errors
    /// As [`Self::check`], or the kernel's refusal.
    pub fn attach(&mut self, hook: &Hook) -> Result<FdLink, TracerError> {
        self.load_hook(hook)?;
        let refused = |source| program_error(hook.program, source);
        match hook.point {
            Point::Tracepoint(_) => {
                let program: &mut BtfTracePoint = find(&mut self.ebpf, hook.program)?;
                let id = program.attach().map_err(refused)?;
                program.take_link(id).map(FdLink::from).map_err(refused)
            }
            Point::Entry(_) => {
                let program: &mut FEntry = find(&mut self.ebpf, hook.program)?;
                let id = program.attach().map_err(refused)?;
                program.take_link(id).map(FdLink::from).map_err(refused)
            }
            Point::Exit(_) => {
                let program: &mut FExit = find(&mut self.ebpf, hook.program)?;
                let id = program.attach().map_err(refused)?;
                program.take_link(id).map(FdLink::from).map_err(refused)
            }
        }
    }

    /// Loads one program, if it was not.
    ///
    /// # Errors
    /// As [`Self::check`], or the kernel's refusal.
    pub fn load_hook(&mut self, hook: &Hook) -> Result<(), TracerError> {
        self.check(hook)?;
        let program = self.ebpf.program_mut(hook.program);
        let program = program.ok_or(TracerError::Missing(hook.program))?;
        if program.fd().is_ok() {
            return Ok(());
        }
        let (btf, refused) = (&self.btf, |source| program_error(hook.program, source));
        match hook.point {
            Point::Tracepoint(name) => {
                let program: &mut BtfTracePoint = program.try_into().map_err(refused)?;
                program.load(name, btf).map_err(refused)
            }
            Point::Entry(name) => {
                let program: &mut FEntry = program.try_into().map_err(refused)?;
                program.load(name, btf).map_err(refused)
            }
            Point::Exit(name) => {
                let program: &mut FExit = program.try_into().map_err(refused)?;
                program.load(name, btf).map_err(refused)
            }
        }
    }

    /// An iterator program, loaded if it was not.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn iterator(
        &mut self,
        program: &'static str,
        over: &'static str,
    ) -> Result<&mut Iter, TracerError> {
        let btf = &self.btf;
        let iterator: &mut Iter = find(&mut self.ebpf, program)?;
        if iterator.fd().is_err() {
            iterator.load(over, btf).map_err(|source| program_error(program, source))?;
        }
        Ok(iterator)
    }

    /// Loads programs that are run when somebody asks: iterators, and such that are run by hand.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn load_programs(
        &mut self,
        programs: &[(&'static str, Option<&'static str>)],
    ) -> Result<(), TracerError> {
        for (name, over) in programs {
            match over {
                Some(over) => self.iterator(name, over).map(drop)?,
                None => self.load_by_hand(name)?,
            }
        }
        Ok(())
    }

    /// Pins a program that is loaded.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn pin(&mut self, name: &'static str, path: &Path) -> Result<(), TracerError> {
        let program = self.ebpf.program_mut(name).ok_or(TracerError::Missing(name))?;
        program.pin(path).map_err(|source| TracerError::Pin { path: path.to_owned(), source })
    }

    /// Loads a program that is run by hand.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn load_by_hand(&mut self, program: &'static str) -> Result<(), TracerError> {
        let raw: &mut RawTracePoint = find(&mut self.ebpf, program)?;
        if raw.fd().is_err() {
            raw.load().map_err(|source| program_error(program, source))?;
        }
        Ok(())
    }

    /// The kernel's types.
    #[must_use]
    pub fn types(&self) -> &kernel::btf::Btf {
        &self.types
    }

    /// A program together with the kernel's types, which loading it takes.
    ///
    /// # Errors
    /// [`TracerError::Missing`].
    pub fn program(&mut self, name: &'static str) -> Result<(&mut Program, &Btf), TracerError> {
        let program = self.ebpf.program_mut(name).ok_or(TracerError::Missing(name))?;
        Ok((program, &self.btf))
    }

    /// The descriptor of a program that is loaded.
    ///
    /// # Errors
    /// [`TracerError::Missing`], or that it is not loaded.
    pub fn loaded(&self, name: &'static str) -> Result<&ProgramFd, TracerError> {
        let program = self.ebpf.program(name).ok_or(TracerError::Missing(name))?;
        program.fd().map_err(|source| program_error(name, source))
    }

    /// All programs of the object, by name, whether they are loaded or not.
    pub fn programs(&self) -> impl Iterator<Item = (&str, &Program)> {
        self.ebpf.programs()
    }

    /// The kernel's types as aya reads them.
    #[must_use]
    pub fn btf(&self) -> &Btf {
        &self.btf
    }

    /// A map of the object.
    ///
    /// # Errors
    /// [`TracerError::Missing`].
    pub fn map(&mut self, name: &'static str) -> Result<&mut aya::maps::Map, TracerError> {
        self.ebpf.map_mut(name).ok_or(TracerError::Missing(name))
    }

    /// Takes a map out of the object.
    ///
    /// # Errors
    /// [`TracerError::Missing`].
    pub fn take_map(&mut self, name: &'static str) -> Result<aya::maps::Map, TracerError> {
        self.ebpf.take_map(name).ok_or(TracerError::Missing(name))
    }

    /// What the programs log through aya-log.
    ///
    /// # Errors
    /// [`TracerError::Missing`] if the object was built without logging.
    pub fn logger(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, TracerError> {
        aya_log::EbpfLogger::init(&mut self.ebpf).map_err(|_| TracerError::Missing("AYA_LOGS"))
    }
}

/// How much the eBPF programs themselves log (through aya-log); what is off costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    /// Nothing.
    #[default]
    Off,
    /// Warnings.
    Warn,
    /// Information.
    Info,
    /// Details for the developers of ucr.
    Debug,
}

impl LogLevel {
    /// As `AYA_LOG_LEVEL` wants it.
    fn number(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Warn => aya_log::Level::Warn as u8,
            Self::Info => aya_log::Level::Info as u8,
            Self::Debug => aya_log::Level::Debug as u8,
        }
    }
}

/// Opens a pinned map.
pub(crate) fn open_pin(directory: &Path, name: &'static str) -> Result<MapData, TracerError> {
    MapData::from_pin(directory.join(name)).map_err(|source| TracerError::Map { map: name, source })
}

fn program_error(program: &'static str, source: ProgramError) -> TracerError {
    TracerError::Program { program, source: Box::new(source) }
}

fn find<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, TracerError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or(TracerError::Missing(name))?
        .try_into()
        .map_err(|source| program_error(name, source))
}
