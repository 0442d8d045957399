//! Repairs the ledger: after events that no hook can see, a full map, or a race with an iterator.
//!
//! A pass over all sockets adds what the ledger lacks and corrects what it has wrong (in the kernel,
//! socket by socket); what the pass has not come across is gone, and its record is removed (in network
//! namespaces that no pass gets into, only if its memory is no such sock's any more). Tracing goes
//! on meanwhile, so a pass can be wrong about a socket that changes under its eyes: passes are made
//! until one finds nothing to do.

use serde::Serialize;
use ucr_common::{
    control::{Control, counter},
    inet::AF_UNIX,
    record::Record,
};

use super::{
    TracerError,
    pass::{self, Pass},
    programs::Programs,
    store::Store,
};
use crate::{causes::one_line, kernel::clock};

/// Most passes that are made: on a busy host there is always something.
const PASSES_MAX: u32 = 5;

/// What it took.
#[derive(Debug, Default, Serialize)]
pub struct Reconciled {
    /// Passes made.
    pub passes: u32,
    /// Whether the last one found nothing to do.
    pub settled: bool,
    /// Sockets in the ledger afterwards.
    pub sockets: usize,
    /// Sockets that the ledger did not have.
    pub added: u64,
    /// Records of sockets that are gone.
    pub removed: u64,
    /// Records that had something wrong.
    pub repaired: u64,
    /// Sockets that did not fit into the ledger.
    pub no_room: u64,
    /// Sockets that are there, in network namespaces that no task is in, or that could not be entered:
    /// their records were left as they are.
    pub unreachable: u64,
    /// Why namespaces could not be entered.
    pub failed: Vec<String>,
    /// Tasks whose network namespace may not be looked at.
    pub hidden_tasks: usize,
    /// The records that were removed: the history has to know of them, too.
    #[serde(skip)]
    pub gone: Vec<Record>,
}

/// Does it.
///
/// # Errors
/// The kernel's.
pub fn reconcile(programs: &Programs, store: &mut Store) -> Result<Reconciled, TracerError> {
    let mut sum = Reconciled::default();
    loop {
        let begun = clock::boottime();
        let before = store.counters()?;
        let pass = pass::run(programs.get("visit_unix")?)?;
        pass::run_everywhere("visit_inet", programs.get("visit_inet")?)?;
        let after = store.counters()?;
        let since = |counter| after.get(counter).saturating_sub(before.get(counter));
        let (added, repaired) = (since(counter::FOUND), since(counter::REPAIRED));
        let removed = remove_unseen(programs, store, &pass, begun, &mut sum)?;
        sum.no_room = since(counter::LEDGER_FULL) + since(counter::NO_MEMORY);
        sum.hidden_tasks = pass.hidden;
        sum.failed = pass.failed.iter().map(|error| one_line(error)).collect();
        sum.added += added;
        sum.repaired += repaired;
        sum.removed += removed;
        sum.passes += 1;
        sum.settled = added + repaired + removed == 0;
        if sum.settled || sum.passes == PASSES_MAX {
            break;
        }
    }
    sum.sockets = store.len();
    let control = store.control()?;
    store.set_control(Control { reconciled_at: clock::boottime(), ..control })?;
    Ok(sum)
}

/// Removes the records of sockets that were there before the pass began and that it has not come across.
fn remove_unseen(
    programs: &Programs,
    store: &mut Store,
    pass: &Pass,
    begun: u64,
    sum: &mut Reconciled,
) -> Result<u64, TracerError> {
    let mut removed = 0;
    sum.unreachable = 0;
    let unseen = |store: &Store| -> Result<Vec<Record>, TracerError> {
        let records = store.records()?;
        Ok(records.into_iter().filter(|record| record.seen_at < begun).collect())
    };
    let mut records = unseen(store)?;
    // A pass can miss a socket that gets its name meanwhile, and does not get into every namespace. So
    // the memory of each is looked at.
    if !records.is_empty() {
        pass::run_here(programs.get("mark_gone")?)?;
        records = unseen(store)?;
    }
    for record in records {
        if record.seen_at != 0 {
            // An internet socket that no descriptor leads to lives all the same.
            let is_missed = record.family == AF_UNIX && !pass.has_visited(record.netns);
            sum.unreachable += u64::from(is_missed);
            continue;
        }
        // Another socket may have taken the address since.
        let sk = record.socket.sk;
        if store.record(sk)?.is_some_and(|now| now.seen_at == 0) {
            store.remove(sk)?;
            removed += 1;
            sum.gone.push(record);
        }
    }
    Ok(removed)
}
