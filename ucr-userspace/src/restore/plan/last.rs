//! What sockets get when nothing is sent through them any more.

use super::Planner;
use super::binders::indexed;
use super::step::Step;

impl Planner<'_> {
    /// A filter can drop what is sent, and one that is locked cannot be taken away for it.
    pub(super) fn filters(&mut self) {
        for (socket, saved) in indexed(self.image) {
            let filter = saved.filter.clone();
            self.steps.extend(filter.map(|filter| Step::SetFilter { socket, filter }));
        }
    }
}
