//! Empty programs on ucr's hooks: what any program at these places costs, whatever it does.
//!
//! They are made here, from the table of hooks, so that they are always on the very hooks that ucr is on.

use anyhow::{Context, Result, ensure};
use aya::{
    Btf, EbpfLoader,
    programs::{BtfTracePoint, FEntry, FExit, links::FdLink},
};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};
use ucr::tracer::hooks::{Hook, Point};

/// `r0 = 0; exit`: what LLVM makes of a program that returns 0 (`Documentation/bpf/standardization`).
const EMPTY: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// Programs that are loaded, and hang nowhere yet.
#[derive(Debug)]
pub(crate) struct Floor {
    ebpf: aya::Ebpf,
    hooks: Vec<&'static Hook>,
}

impl Floor {
    /// One for each of these hooks.
    pub(crate) fn load(hooks: &[&'static Hook], btf: &Btf) -> Result<Self> {
        let bytes = object_of(hooks)?;
        let mut ebpf = EbpfLoader::new().load(&bytes).context("load the empty programs")?;
        for hook in hooks {
            let refused = || format!("load an empty program for {}", hook.program);
            let program = ebpf.program_mut(hook.program).with_context(refused)?;
            match hook.point {
                Point::Tracepoint(name) => {
                    let program: &mut BtfTracePoint = program.try_into().with_context(refused)?;
                    program.load(name, btf).with_context(refused)?;
                }
                Point::Entry(name) => {
                    let program: &mut FEntry = program.try_into().with_context(refused)?;
                    program.load(name, btf).with_context(refused)?;
                }
                Point::Exit(name) => {
                    let program: &mut FExit = program.try_into().with_context(refused)?;
                    program.load(name, btf).with_context(refused)?;
                }
            }
        }
        Ok(Self { ebpf, hooks: hooks.to_vec() })
    }

    /// Puts all of them in their places, for as long as the links live.
    pub(crate) fn attach(&mut self) -> Result<Vec<FdLink>> {
        let mut links = Vec::new();
        for hook in &self.hooks {
            let refused = || format!("attach an empty program to {}", hook.point.target());
            let program = self.ebpf.program_mut(hook.program).with_context(refused)?;
            let link: FdLink = match hook.point {
                Point::Tracepoint(_) => {
                    let program: &mut BtfTracePoint = program.try_into().with_context(refused)?;
                    let id = program.attach().with_context(refused)?;
                    program.take_link(id).with_context(refused)?.into()
                }
                Point::Entry(_) => {
                    let program: &mut FEntry = program.try_into().with_context(refused)?;
                    let id = program.attach().with_context(refused)?;
                    program.take_link(id).with_context(refused)?.into()
                }
                Point::Exit(_) => {
                    let program: &mut FExit = program.try_into().with_context(refused)?;
                    let id = program.attach().with_context(refused)?;
                    program.take_link(id).with_context(refused)?.into()
                }
            };
            links.push(link);
        }
        Ok(links)
    }
}

/// An object as a compiler would leave it: a section for each program, named by its type.
fn object_of(hooks: &[&'static Hook]) -> Result<Vec<u8>> {
    ensure!(!hooks.is_empty(), "there are no hooks");
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"GPL\0", 1);
    for hook in hooks {
        let kind = match hook.point {
            Point::Tracepoint(_) => "tp_btf",
            Point::Entry(_) => "fentry",
            Point::Exit(_) => "fexit",
        };
        let name = format!("{kind}/{}", hook.point.target());
        let section = object.add_section(Vec::new(), name.into_bytes(), SectionKind::Text);
        let symbol = object.add_symbol(Symbol {
            name: hook.program.as_bytes().to_vec(),
            value: 0,
            size: 0,
            kind: SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Undefined,
            flags: SymbolFlags::None,
        });
        object.add_symbol_data(symbol, section, &EMPTY, 8);
    }
    object.write().context("write the object of empty programs")
}

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

    use super::*;
    use ucr::tracer::hooks::Backend;

    #[test]
    fn there_is_an_empty_program_for_each_hook() {
        for backend in [Backend::Trampoline, Backend::Tracepoint] {
            let hooks: Vec<&'static Hook> = backend.hooks().iter().collect();
            let bytes = object_of(&hooks).expect("an object");
            let object = object::File::parse(bytes.as_slice()).expect("an object");
            for hook in hooks {
                let symbol = object.symbol_by_name(hook.program).expect("a program");
                let section = symbol.section_index().expect("in a section");
                let section = object.section_by_index(section).expect("that is there");
                assert_eq!(section.data().expect("its code"), EMPTY);
                let name = section.name().expect("its name");
                assert_eq!(name.split_once('/').expect("a type").1, hook.point.target());
            }
        }
    }
}
