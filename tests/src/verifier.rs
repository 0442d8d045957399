//! How many instructions the verifier follows in each of ucr's programs, and the table that it is held
//! against: `ucr-ebpf/verifier.json`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::programs::ProgramInfo;
use ucr::tracer::{
    hooks::Backend,
    object::{LogLevel, Object, Sizes},
    programs::PROGRAMS,
};

/// The table.
pub const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ucr-ebpf/verifier.json");

/// How to write the table anew.
pub const WRITE: &str = "cargo xtask bench trace --only verifier --write-table";

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

/// What is wrong with a kernel's counts, if there is a column for it: each line names a program.
#[must_use]
pub fn differences(table: &BTreeMap<String, u32>, counts: &BTreeMap<String, u32>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, count) in counts {
        let Some(known) = table.get(name) else {
            wrong.push(format!("{name}: {count}, and is not in the table"));
            continue;
        };
        // Of a small program, a few instructions are many percent.
        let allowed = (known / 100 * TOLERANCE).max(50);
        if known.abs_diff(*count) > allowed {
            wrong.push(format!("{name}: {count}, and the table has {known} (± {allowed})"));
        }
    }
    let is_gone = |name: &&String| !counts.contains_key(*name);
    wrong.extend(table.keys().filter(is_gone).map(|name| format!("{name}: was not loaded")));
    wrong
}

/// The column of a kernel, by its release: `6.1` is that of `6.1.0-32-cloud-amd64`. None if it has none.
///
/// # Errors
/// If the table cannot be read.
pub fn column(release: &str) -> Result<Option<BTreeMap<String, u32>>> {
    let text = std::fs::read_to_string(TABLE).with_context(|| format!("read {TABLE}"))?;
    let table: BTreeMap<String, BTreeMap<String, u32>> =
        serde_json::from_str(&text).with_context(|| format!("understand {TABLE}"))?;
    let is_own = |series: &str| {
        release.strip_prefix(series).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    Ok(table.into_iter().find_map(|(series, counts)| is_own(&series).then_some(counts)))
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
    let mut count = |name: &str, info: ProgramInfo| {
        let count = info.verified_instruction_count();
        let count = count.with_context(|| format!("how many of {name} were followed"))?;
        loaded.counts.insert(name.to_owned(), count);
        anyhow::Ok(())
    };
    for (name, came) in ucr::lock::object::load_each()? {
        match came {
            Ok(info) => count(name, info)?,
            Err(error) => {
                loaded.refused.insert(name.to_owned(), ucr::causes::one_line(&error));
            }
        }
    }
    for (name, program) in object.programs() {
        if program.fd().is_ok() {
            count(name, program.info().with_context(|| format!("ask about {name}"))?)?;
        } else if !name.starts_with(PROBES) && !loaded.refused.contains_key(name) {
            loaded.refused.insert(name.to_owned(), "nobody has tried to load it".to_owned());
        }
    }
    Ok(loaded)
}
