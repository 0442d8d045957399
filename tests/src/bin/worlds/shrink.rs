//! A smaller world that fails in the same way.

use std::time::{Duration, Instant};

use crate::{generate::Plan, trial::Tried};

/// No longer than this, however much could still be left out.
const LONGEST: Duration = Duration::from_secs(60);

/// Leaves operations out, as long as the world still fails as it did: many at once, then fewer.
pub(crate) fn shrink(plan: &Plan, first: Tried, try_out: impl Fn(&Plan) -> Tried) -> (Plan, Tried) {
    let Some(kind) = first.outcome.failure().map(crate::trial::Failure::kind) else {
        return (plan.clone(), first);
    };
    let (mut plan, mut best) = (plan.clone(), first);
    let begun = Instant::now();
    // What did not take place has no part in it, most likely.
    let mut done = best.done.iter();
    let mut without = plan.clone();
    without.ops.retain(|_| done.next().copied().unwrap_or(true));
    let fails_alike =
        |tried: &Tried| tried.outcome.failure().is_some_and(|failure| failure.kind() == kind);
    let tried = try_out(&without);
    if fails_alike(&tried) {
        (plan, best) = (without, tried);
    }
    let mut chunk = plan.ops.len().div_ceil(2);
    while chunk > 0 && begun.elapsed() < LONGEST {
        let (mut at, mut is_smaller) = (0, false);
        while at < plan.ops.len() && begun.elapsed() < LONGEST {
            let mut smaller = plan.clone();
            let end = plan.ops.len().min(at + chunk);
            smaller.ops.drain(at..end);
            let tried = try_out(&smaller);
            if fails_alike(&tried) {
                (plan, best, is_smaller) = (smaller, tried, true);
            } else {
                at += chunk;
            }
        }
        if !(chunk == 1 && is_smaller) {
            chunk /= 2;
        }
    }
    (plan, best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        op::{Act, Op},
        trial::{Failure, Outcome, Tried},
    };

    #[test]
    fn only_what_matters_is_left() {
        let op = |slot| Op { who: 0, act: Act::Close { slot } };
        let plan = Plan { traced: false, ops: (0..30).map(op).collect() };
        let try_out = |plan: &Plan| {
            let has = |slot| plan.ops.contains(&op(slot));
            let failure = Failure { stage: "stage", lines: vec!["alike".to_owned()] };
            let outcome = match has(3) && has(17) && has(18) {
                true => Outcome::Failed(failure),
                false => Outcome::Equal,
            };
            Tried { outcome, ..Tried::nothing() }
        };
        let (small, _) = shrink(&plan, try_out(&plan), try_out);
        assert_eq!(small.ops, [op(3), op(17), op(18)]);
    }
}
