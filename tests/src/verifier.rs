//! How many instructions the verifier follows in each of ucr's programs, and the table that it is held
//! against: `ucr-ebpf/verifier.json`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use ucr::tracer::{
    hooks::Backend,
    object::{LogLevel, Object, Sizes},
    programs::PROGRAMS,
};

/// The table.
pub const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ucr-ebpf/verifier.json");

/// Where the verifier gives up (`BPF_COMPLEXITY_LIMIT_INSNS`, `include/linux/bpf.h`).
pub const CEILING: u32 = 1_000_000;

/// What no program may come near to: another verifier follows other paths.
pub const LIMIT: u32 = CEILING / 2;

/// By how many percent a count may differ from the table: Debian's kernels get corrections, also of
/// their verifier. Which program has become so much dearer is to be said, not to be found out later.
pub const TOLERANCE: u32 = 10;

/// Programs that are neither hooks nor pinned, with what they go over.
const OTHERS: [(&str, Option<&str>); 3] =
    [("census_unix", Some("unix")), ("list_sockets", Some("task_file")), ("read_memory", None)];

/// Empty programs, by which features are found out.
const PROBES: &str = "probe_";

/// What a kernel made of the programs.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Instructions that the verifier followed, by program.
    pub counts: BTreeMap<String, u32>,
    /// Why the others could not be loaded.
    pub refused: BTreeMap<String, String>,
}

/// Loads each program by itself.
///
/// # Errors
/// If the maps cannot be made, or a kernel does not count.
pub fn load_all() -> Result<Loaded> {
    let mut object = Object::load(None, Sizes::default(), LogLevel::Off)?;
    let mut loaded = Loaded::default();
    let mut refuse = |name: &str, refused: Result<(), ucr::tracer::TracerError>| {
        if let Err(error) = refused {
            loaded.refused.insert(name.to_owned(), ucr::causes::one_line(&error));
        }
    };
    for hook in Backend::ALL.into_iter().flat_map(Backend::hooks) {
        refuse(hook.program, object.load_hook(hook));
    }
    for (name, over) in PROGRAMS.into_iter().chain(OTHERS) {
        refuse(
            name,
            match over {
                Some(over) => object.iterator(name, over).map(drop),
                None => object.load_by_hand(name),
            },
        );
    }
    for (name, program) in object.programs() {
        if program.fd().is_ok() {
            let info = program.info().with_context(|| format!("ask about {name}"))?;
            let count = info.verified_instruction_count();
            let count = count.with_context(|| format!("how many of {name} were followed"))?;
            loaded.counts.insert(name.to_owned(), count);
        } else if !name.starts_with(PROBES) && !loaded.refused.contains_key(name) {
            loaded.refused.insert(name.to_owned(), "nobody has tried to load it".to_owned());
        }
    }
    Ok(loaded)
}
