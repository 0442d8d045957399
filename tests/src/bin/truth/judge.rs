//! One comparison of the ledger with the kernel, and the sum of all.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::poll::{PollTimeout, poll};
use ucr::{
    causes,
    ledger::audit::{Audit, Discrepancy, audit},
    tracer::{
        census::census, hooks::Backend, object::LogLevel, reconcile::reconcile, session,
        session::Private,
    },
};
use ucr_common::record::Record;

use crate::{options::Options, plant::Plants};

/// How long the kernel is given between two comparisons, in milliseconds: processes that are not ours
/// are not frozen, and some sockets are closed later, by its workers (`delayed_fput`, `__unix_gc`).
/// What stands in all of them is no race.
const PAUSES: [u8; 4] = [1, 5, 20, 80];
/// The same when the workload is gone: the garbage collector has much to do then.
const LAST_PAUSES: [u8; 8] = [1, 5, 20, 80, 250, 250, 250, 250];
/// More sockets than this, and the workload has no bounds.
const SOCKETS_MAX: usize = 200_000;

/// Tracing, as long as the test runs.
pub(crate) struct Tracing {
    pub(crate) private: Private,
}

/// What all comparisons have found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) checks: u64,
    pub(crate) compared: u64,
    pub(crate) unborn: u64,
    pub(crate) unvisited: u64,
    pub(crate) added: u64,
    pub(crate) removed: u64,
    pub(crate) repaired: u64,
}

/// Something wrong, with both sides' records.
#[derive(Clone)]
pub(crate) struct Finding {
    pub(crate) discrepancy: Discrepancy,
    pub(crate) ledger: Option<Record>,
    pub(crate) kernel: Option<Record>,
}

/// Both sides at one moment.
struct Sides {
    ledger: Vec<Record>,
    kernel: Vec<Record>,
    audit: Audit,
}

impl Tracing {
    /// Begins to trace.
    pub(crate) fn begin(options: &Options) -> Result<Self> {
        let private = session::trace_privately(&options.choice, options.sizes(), LogLevel::Off)
            .context("start tracing")?;
        if private.backend == Backend::Snapshot {
            bail!("this kernel allows no tracing: there is nothing to prove");
        }
        // A backend that ceased to load shall not pass for one that the kernel never allowed.
        if let Some((better, why)) = &private.refused.backend {
            eprintln!("truth: {} is refused: {}", better.name(), causes::one_line(why));
        }
        for (program, why) in &private.refused.hooks {
            eprintln!("truth: left out {program}: {}", causes::one_line(why));
        }
        Ok(Self { private })
    }

    /// Network namespaces of the records that there are now.
    pub(crate) fn namespaces(&self) -> Result<BTreeSet<u32>> {
        Ok(self.private.store.records()?.iter().map(|record| record.netns).collect())
    }
}

/// Holds the ledger against the kernel again and again.
pub(crate) struct Judge {
    tracing: Tracing,
    plants: Plants,
    pub(crate) sums: Sums,
    /// What was found, once each: a record that is wrong stays wrong.
    known: BTreeSet<Discrepancy>,
    counts: BTreeMap<&'static str, u64>,
}

impl Judge {
    pub(crate) fn new(tracing: Tracing, plants: Plants) -> Self {
        let known = BTreeSet::new();
        Self { tracing, plants, sums: Sums::default(), known, counts: BTreeMap::new() }
    }

    pub(crate) fn tracing(&self) -> &Tracing {
        &self.tracing
    }

    /// Whether there are faults left to be planted.
    pub(crate) fn has_plans(&self) -> bool {
        self.plants.are_waiting()
    }

    /// How many discrepancies of a kind there were.
    pub(crate) fn count(&self, kind: &str) -> u64 {
        self.counts.get(kind).copied().unwrap_or(0)
    }

    /// One check, while the workload stands still; what is new.
    pub(crate) fn check(&mut self) -> Result<Vec<Finding>> {
        let found = self.standing(&PAUSES, &BTreeSet::new());
        let cleared = self.plants.clear(&mut self.tracing.private.store);
        let found = found?;
        cleared?;
        self.plants.turn();
        Ok(self.learn(found))
    }

    /// The last check, when the workload is gone: nothing may be left of it, in no namespace but those
    /// that were there before. (A reconciliation reaches only namespaces that some task is in: what a
    /// tracepoint missed in another one stays, and is counted as not visited.)
    pub(crate) fn last_check(&mut self, before: &BTreeSet<u32>) -> Result<Vec<Finding>> {
        let there = self.tracing.namespaces()?;
        let gone = match self.tracing.private.backend {
            Backend::Tracepoint => BTreeSet::new(),
            _ => there.difference(before).copied().collect(),
        };
        let found = self.standing(&LAST_PAUSES, &gone)?;
        Ok(self.learn(found))
    }

    fn learn(&mut self, found: Vec<Finding>) -> Vec<Finding> {
        let mut fresh = Vec::new();
        for finding in found {
            if self.known.insert(finding.discrepancy.clone()) {
                *self.counts.entry(finding.discrepancy.kind.name()).or_default() += 1;
                fresh.push(finding);
            }
        }
        fresh
    }

    /// What stands in every comparison. All but the first are made only if there is something.
    fn standing(&mut self, pauses: &[u8], gone: &BTreeSet<u32>) -> Result<Vec<Finding>> {
        self.sums.checks += 1;
        let mut sides = self.compare(gone)?;
        let mut standing = sides.audit.discrepancies.clone();
        for pause in pauses {
            if standing.is_empty() {
                break;
            }
            let pause = PollTimeout::try_from(Duration::from_millis((*pause).into()))?;
            poll(&mut [], pause).ok();
            sides = self.compare(gone)?;
            standing.retain(|found| sides.audit.discrepancies.binary_search(found).is_ok());
        }
        self.sums.compared += sides.audit.compared as u64;
        self.sums.unborn += sides.audit.unborn as u64;
        self.sums.unvisited += sides.audit.unvisited as u64;
        let find = |records: &[Record], found: &Discrepancy| {
            records.iter().find(|record| record.socket.sk == found.sk).copied()
        };
        let with_records = |discrepancy: Discrepancy| Finding {
            ledger: find(&sides.ledger, &discrepancy),
            kernel: find(&sides.kernel, &discrepancy),
            discrepancy,
        };
        Ok(standing.into_iter().map(with_records).collect())
    }

    fn compare(&mut self, gone: &BTreeSet<u32>) -> Result<Sides> {
        let Private { store, object, programs, backend, .. } = &mut self.tracing.private;
        // Trampolines are right at once; what tracepoints cannot see is repaired first.
        if *backend == Backend::Tracepoint {
            let work = reconcile(programs, store).context("reconcile")?;
            self.sums.added += work.added;
            self.sums.removed += work.removed;
            self.sums.repaired += work.repaired;
        }
        self.plants.falsify(store)?;
        let ledger = store.records().context("read the ledger")?;
        let census = census(object).context("take a census")?;
        if census.records.len() > SOCKETS_MAX {
            bail!("the kernel has {} sockets: the workload grows", census.records.len());
        }
        let visited = &(&visited(&census) | gone);
        let audit = audit(&ledger, &census.records, visited);
        Ok(Sides { ledger, kernel: census.records, audit })
    }
}

fn visited(census: &ucr::tracer::census::Census) -> BTreeSet<u32> {
    census.pass.namespaces.iter().filter_map(|inode| u32::try_from(*inode).ok()).collect()
}
