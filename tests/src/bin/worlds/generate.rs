//! Draws worlds. A rough model of what there is makes most operations possible; what the kernel refuses all
//! the same is skipped when the world is built.
//!
//! Not drawn is what a dump refuses by design: a client that has shut something down before it connected,
//! descriptors that only a connection holds which was not accepted yet, an error that waits on a datagram
//! socket, open files that are no sockets.

mod model;
mod scenes;

use fastrand::Rng;

use crate::op::Op;
use model::Model;

/// A world to be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Whether it is traced.
    pub(crate) traced: bool,
    pub(crate) ops: Vec<Op>,
}

/// Draws the world of this seed; half of them are traced, if any may be.
pub(crate) fn generate(seed: u64, may_be_traced: bool) -> Plan {
    let mut rng = Rng::with_seed(seed);
    let traced = rng.bool() && may_be_traced;
    let mut model = Model::new(rng.bool(), traced);
    let length = rng.usize(4..=36);
    let mut turns = 0;
    while model.ops.len() < length && turns < 200 {
        turns += 1;
        scenes::draw(&mut model, &mut rng);
    }
    model.finish();
    Plan { traced, ops: model.ops }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_world() {
        for seed in 0..100 {
            let plan = generate(seed, true);
            assert_eq!(plan.ops, generate(seed, true).ops);
            assert!(plan.ops.len() >= 4, "{seed}");
        }
        assert_ne!(generate(1, true).ops, generate(2, true).ops);
        assert!(!(0..100).any(|seed| generate(seed, false).traced));
    }
}
