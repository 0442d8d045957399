//! Sockets into processes that live: what `ucr refresh` and `ucr restore --into` have in common.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use rustix::fs::fstat;

use super::exit;
use super::report::say;
use super::restore::{
    left_behind, mention_leftovers, note, planned, plural, refuse, surveyed, verified,
};
use crate::causes::one_line;
use crate::dump::Standstill;
use crate::image::Image;
use crate::kernel::interrupts::HeldBack;
use crate::model::{Pid, View};
use crate::process::freeze::freeze_each;
use crate::process::parasite::{Known, Parasite};
use crate::process::procfs;
use crate::restore::arm::{self, People};
use crate::restore::execute::{Execution, Places, Restored, execute_with};
use crate::restore::into::ahead::Ahead;
use crate::restore::into::{self, Placed, Standing, Target};
use crate::restore::names::Foreign;
use crate::restore::obstacle::{Obstacle, Takers};
use crate::restore::workers::Workers;
use crate::snapshot::descriptors::Lister;
use crate::sys::guard::Barrier;
use crate::tracer::pins::PinDirectory;

/// From so many sockets on it is quicker to read them from the kernel's memory, when the programs for it are loaded.
const SOME: usize = 64;

/// What was done.
#[derive(Clone, Copy, Debug)]
pub struct Replaced {
    /// Sockets of the image.
    pub sockets: usize,
    /// Of these, those that stay as they are.
    pub kept: usize,
    /// What was put where.
    pub placed: Placed,
    /// For how long the processes stood still.
    pub stopped: Duration,
}

/// Replaces what stands in stopped processes by what an image says; `known` is what was found out about them before. They go on when this returns. If it was not
/// done, everything is as before and it has been said why; what is returned then is the exit status.
///
/// # Errors
///
/// What failed; everything is as before, unless it says otherwise.
pub fn replace(
    standstill: Standstill,
    known: &mut Known,
    targets: &[Target],
    foreign: Foreign,
    ahead: Option<&mut Ahead>,
    barrier: &Rc<Barrier>,
    look: impl Fn() -> anyhow::Result<View> + Sync,
) -> anyhow::Result<Result<Replaced, u8>> {
    let Standstill { mut image, mut frozen, stopped_at, mut lister, lock, is_fresh } = standstill;
    let adopted = ahead.as_ref().map(|ahead| ahead.adopt(&mut image)).transpose();
    let adopted = adopted.context("duplicate a socket that was made ahead")?.unwrap_or_default();
    let image = &image;
    let plan = planned(image, None)?;
    let mut obstacles = Vec::new();
    let standing = into::look(image, targets, &mut lister, |socket| adopted.contains_key(&socket))
        .unwrap_or_else(|errors| {
            obstacles.extend(errors.into_iter().map(Obstacle::Into));
            Standing::default()
        });
    let _inside = standing.enter().context("enter the network namespace of the sockets")?;
    let mut lock = lock;
    if !is_fresh && obstacles.is_empty() {
        lock = into::lock(image)?;
        match into::stale(image, targets, &standing, &mut lister) {
            Ok(stale) => obstacles.extend(stale.into_iter().map(Obstacle::Into)),
            Err(error) => obstacles.push(Obstacle::Into(error)),
        }
    }
    // What was made ahead has its name already.
    let own = adopted.values().filter_map(|socket| fstat(socket).ok());
    let own = own.filter_map(|facts| u32::try_from(facts.st_ino).ok());
    let ours: HashSet<u32> = standing.replaced().iter().copied().chain(own).collect();
    let surveyed = surveyed(&plan, image, foreign, &mut Takers::Processes(&ours), &look)?;
    let plan = match surveyed {
        Ok(asides) => plan.in_place().with_asides(asides),
        Err(more) => {
            obstacles.extend(more);
            plan
        }
    };
    if !obstacles.is_empty() {
        drop(frozen);
        refuse(&obstacles);
        return Ok(Err(exit::REFUSED));
    }
    tracing::debug!("nothing is in the way");
    let signals = HeldBack::begin().context("hold back signals")?;
    let inside = match into::enter(&mut frozen, targets, &standing, known) {
        Ok(inside) => inside,
        Err(error) => {
            drop(frozen);
            refuse(&[Obstacle::Into(error)]);
            return Ok(Err(exit::REFUSED));
        }
    };
    tracing::debug!("the processes are entered");
    let predecessors = standing.predecessors(image, targets);
    let how = Execution {
        signals: Some(&signals),
        places: Places::Others,
        adopted: Some(&adopted),
        barrier: Some(barrier),
        predecessors: Some(&predecessors),
        ..Execution::default()
    };
    let mut restored = execute_with(&plan, image, how, Workers::with(inside), lock)?;
    tracing::debug!("the steps are taken");
    let inside = restored.take_inside();
    let mut parasites: BTreeMap<Pid, Parasite> =
        inside.into_iter().map(|(saved, inside)| (saved, inside.into_parasite())).collect();
    let Some((mut restored, observed)) = verified(image, restored, SOME, || Ok(lister), look)?
    else {
        return Ok(Err(exit::FAILED));
    };
    tracing::debug!("what was made is as it should be");
    let people = People::living(targets.iter().map(|target| (target.saved, target.pid)));
    let armed = arm::arm(&restored, &people);
    let settled = armed.map_err(anyhow::Error::from).and_then(|()| Ok(restored.settle()?));
    let placed = match settled {
        Ok(()) => {
            let mut made = vec![&mut restored];
            made.extend(ahead.map(|ahead| &mut ahead.restored));
            into::place(&mut made, image, targets, &standing, &mut parasites, barrier)
                .context("put the new sockets in their places")
        }
        Err(error) => Err(error),
    };
    let (placed, failed) = match placed {
        Ok(placed) => placed,
        Err(error) => return Err(undone(error, restored)),
    };
    tracing::debug!("they are in their places");
    for parasite in parasites.into_values() {
        let pid = parasite.pid();
        if let Err(error) = parasite.leave() {
            say(&format!("warning: leave process {pid}: {}", one_line(&error)));
        }
    }
    // Nobody uses them yet.
    if let Err(error) = restored.unlock() {
        say(&format!("warning: let TCP connections go on: {}", one_line(&error)));
    }
    drop(frozen);
    let stopped = stopped_at.elapsed();
    left_behind(&restored.finish());
    if let Some(error) = failed {
        let error = anyhow::Error::from(error);
        return Err(
            error.context("all sockets were let through to their places, but not all came there")
        );
    }
    mention_leftovers(&plan, false);
    note(image, &restored, &observed);
    Ok(Ok(Replaced { sockets: image.sockets.len(), kept: standing.kept(), placed, stopped }))
}

/// `ucr restore --into`.
///
/// # Errors
///
/// As [`replace`], and processes that cannot be stopped.
pub(super) fn restore(
    image: Image,
    pairs: &[(Pid, Pid)],
    foreign: Foreign,
    pins: &PinDirectory,
    look: impl Fn() -> anyhow::Result<View> + Sync,
) -> anyhow::Result<ExitCode> {
    let is_saved = |pid: &Pid| image.processes.iter().any(|process| process.pid == *pid);
    if let Some((old, _)) = pairs.iter().find(|(old, _)| !is_saved(old)) {
        say(&format!("process {old} is not in the image"));
        return Ok(ExitCode::from(exit::USAGE));
    }
    let now =
        |saved: Pid| pairs.iter().find(|(old, _)| *old == saved).map_or(saved, |(_, new)| *new);
    let saved = image.processes.iter().map(|process| process.pid);
    let targets: Vec<_> = saved.map(|saved| Target { saved, pid: now(saved) }).collect();
    let pids: Vec<Pid> = targets.iter().map(|target| target.pid).collect();
    let different: BTreeSet<Pid> = pids.iter().copied().collect();
    if different.len() < pids.len() {
        say("two processes of the image cannot become one");
        return Ok(ExitCode::from(exit::USAGE));
    }
    let barrier = Rc::new(Barrier::new().context("make a pipe")?);
    let stopped: Vec<Pid> = pids
        .iter()
        .copied()
        .filter(|pid| procfs::status(*pid).is_ok_and(|s| s.state == 'T'))
        .collect();
    let lister = Lister::open(pins)?;
    let mut known = Known::default();
    known.learn(&pids);
    let stopped_at = Instant::now();
    let frozen = freeze_each(&pids).context("stop the processes")?;
    let processes = pids.len();
    let is_fresh = false;
    let standstill = Standstill { image, frozen, stopped_at, lister, lock: None, is_fresh };
    let replaced = match replace(standstill, &mut known, &targets, foreign, None, &barrier, look)? {
        Ok(replaced) => replaced,
        Err(status) => return Ok(ExitCode::from(status)),
    };
    for pid in stopped {
        kill(nix::unistd::Pid::from_raw(pid.0), Signal::SIGCONT)
            .with_context(|| format!("let process {pid} go on, which was left stopped"))?;
    }
    tell(&replaced, processes);
    Ok(ExitCode::from(exit::OK))
}

fn undone(error: anyhow::Error, restored: Restored) -> anyhow::Error {
    left_behind(&restored.undo());
    error
}

/// One line for people.
pub(super) fn tell(replaced: &Replaced, processes: usize) {
    let Replaced { sockets, kept, placed, stopped } = *replaced;
    let mut more = Vec::new();
    if kept > 0 {
        more.push(format!("{kept} kept"));
    }
    if placed.registrations > 0 {
        let registrations = plural(placed.registrations, "registration");
        more.push(format!("{registrations} of epoll renewed"));
    }
    let more = match more.is_empty() {
        true => String::new(),
        false => format!(" ({})", more.join(", ")),
    };
    let processes = match processes {
        1 => "1 process".to_owned(),
        many => format!("{many} processes"),
    };
    say(&format!(
        "refreshed {} of {processes}{more}, verified: 0 differences; stopped for {:.1} ms",
        plural(sockets, "socket"),
        stopped.as_secs_f64() * 1000.0
    ));
}
