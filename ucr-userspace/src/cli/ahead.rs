//! What `ucr refresh` makes before it stops the processes for good (see [`crate::restore::into::ahead`]).

use std::rc::Rc;

use anyhow::Context as _;

use super::exit;
use super::restore::{planned, refuse, surveyed};
use crate::dump::Standstill;
use crate::image::Image;
use crate::kernel::interrupts::HeldBack;
use crate::model::View;
use crate::process::parasite::Known;
use crate::restore::execute::{Execution, Places, execute_with};
use crate::restore::into::ahead::Ahead;
use crate::restore::into::{self, IntoError, Target};
use crate::restore::names::Foreign;
use crate::restore::obstacle::{Obstacle, Takers};
use crate::restore::workers::Workers;
use crate::sys::guard::Barrier;

/// Why nothing was made.
#[derive(Debug)]
pub(super) enum Unmade {
    /// Others have the same ports.
    Shared(Vec<Obstacle>),
    /// It has been said; this is the exit status.
    Refused(u8),
}

/// Makes the sockets of an image that has only such; the processes go on afterwards.
///
/// # Errors
///
/// What failed; everything is as before.
pub(super) fn make(
    alone: &Image,
    standstill: Standstill,
    known: &mut Known,
    targets: &[Target],
    barrier: &Rc<Barrier>,
    look: &impl Fn() -> anyhow::Result<View>,
) -> anyhow::Result<Result<Ahead, Unmade>> {
    let Standstill { mut frozen, mut lister, lock, .. } = standstill;
    // Nothing is done with connections: they go on, and nobody is to hold this longer.
    drop(lock);
    let refused = |obstacles: &[Obstacle]| {
        refuse(obstacles);
        Ok(Err(Unmade::Refused(exit::REFUSED)))
    };
    let standing = match into::look(alone, targets, &mut lister, |_| false) {
        Ok(standing) => standing,
        Err(errors) => {
            drop(frozen);
            let is_shared = errors.iter().all(|error| matches!(error, IntoError::Shares { .. }));
            let obstacles: Vec<_> = errors.into_iter().map(Obstacle::Into).collect();
            return if is_shared {
                Ok(Err(Unmade::Shared(obstacles)))
            } else {
                refused(&obstacles)
            };
        }
    };
    let _inside = standing.enter().context("enter the network namespace of the sockets")?;
    let plan = planned(alone, None)?;
    let mut takers = Takers::Processes(standing.replaced());
    let plan = match surveyed(&plan, alone, Foreign::Refuse, &mut takers, look)? {
        Ok(asides) => plan.in_place().with_asides(asides),
        Err(obstacles) => {
            drop(frozen);
            return refused(&obstacles);
        }
    };
    let signals = HeldBack::begin().context("hold back signals")?;
    let inside = match into::enter(&mut frozen, targets, &standing, known) {
        Ok(inside) => inside,
        Err(error) => {
            drop(frozen);
            return refused(&[Obstacle::Into(error)]);
        }
    };
    let predecessors = standing.predecessors(alone, targets);
    let how = Execution {
        signals: Some(&signals),
        places: Places::Others,
        barrier: Some(barrier),
        predecessors: Some(&predecessors),
        go_on: true,
        ..Execution::default()
    };
    let mut restored = execute_with(&plan, alone, how, Workers::with(inside), None)?;
    // They leave the processes, which go on.
    drop(restored.take_inside());
    drop(frozen);
    Ok(Ok(Ahead::new(alone, restored)))
}
