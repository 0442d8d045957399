//! The eBPF programs, maps and links that the kernel has: all of them, whoever made them.

use std::{collections::BTreeMap, path::Path};

use aya::{
    maps::{MapInfo, loaded_maps},
    programs::{loaded_links, loaded_programs},
};
use ucr_tests::wait;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Program,
    Map,
    Link,
}

/// What there is at one moment, by kind and id, with what it is called. One that goes while this looks
/// may be missing.
pub(super) struct Objects(BTreeMap<(Kind, u32), String>);

impl Objects {
    pub(super) fn now() -> Self {
        let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let programs = loaded_programs()
            .flatten()
            .map(|program| ((Kind::Program, program.id()), name(program.name())));
        let maps = loaded_maps().flatten().map(|map| ((Kind::Map, map.id()), name(map.name())));
        let links = loaded_links()
            .flatten()
            .map(|link| ((Kind::Link, link.id()), format!("of program {}", link.program_id())));
        Self(programs.chain(maps).chain(links).collect())
    }

    /// The last id of a kind: the kernel counts on, so that a later one is greater.
    fn last(&self, kind: Kind) -> u32 {
        self.0.keys().rev().find(|(other, _)| *other == kind).map_or(0, |(_, id)| *id)
    }

    /// What has come between two moments and is still there.
    fn come_between(&self, until: &Self) -> Vec<String> {
        let is_between = |kind, id| id > self.last(kind) && id <= until.last(kind);
        let now = Self::now();
        let left = now.0.iter().filter(|((kind, id), _)| is_between(*kind, *id));
        left.map(|((kind, id), name)| format!("{kind:?} {id} {name}")).collect()
    }

    /// Waits until nothing is left of what has come since this moment. The kernel frees in its own time;
    /// and on a machine where others trace, too, what they began meanwhile must have ended.
    pub(super) fn are_all_again(&self) {
        let until = Self::now();
        let mut left = Vec::new();
        let is_clear = wait::holds(|| {
            left = self.come_between(&until);
            left.is_empty()
        });
        assert!(is_clear, "left behind: {left:#?}");
    }
}

/// What one attached tracer has in the kernel: that uses the ledger which is pinned here.
pub(super) struct Own {
    /// By id.
    pub(super) programs: BTreeMap<u32, String>,
    /// Ids of their maps.
    pub(super) maps: Vec<u32>,
    /// Id and program of their links.
    pub(super) links: Vec<(u32, u32)>,
}

impl Own {
    pub(super) fn pinned_at(pins: &Path) -> Self {
        let ledger = MapInfo::from_pin(pins.join("maps/LEDGER")).expect("the pinned ledger").id();
        let mut programs = BTreeMap::new();
        let mut maps = Vec::new();
        for program in loaded_programs().flatten() {
            let used = program.map_ids().ok().flatten().unwrap_or_default();
            if used.contains(&ledger) {
                programs.insert(program.id(), String::from_utf8_lossy(program.name()).into_owned());
                maps.extend(used);
            }
        }
        maps.sort_unstable();
        maps.dedup();
        let links = loaded_links().flatten().map(|link| (link.id(), link.program_id()));
        let links = links.filter(|(_, program)| programs.contains_key(program)).collect();
        Self { programs, maps, links }
    }
}
