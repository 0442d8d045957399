//! What sockets get when nothing is sent through them any more.

use super::Planner;
use super::across::kept;
use super::binders::indexed;
use super::step::Step;
use crate::image::{Image, Notification, Owner};

impl Planner<'_> {
    /// A filter can drop what is sent, and one that is locked cannot be taken away for it.
    pub(super) fn filters(&mut self) {
        for (socket, saved) in indexed(self.image) {
            if self.kept.contains(&socket) {
                continue;
            }
            let filter = saved.filter.clone();
            self.steps.extend(filter.map(|filter| Step::SetFilter { socket, filter }));
        }
    }
}

/// Who is told by signals: set when whoever is told is there, and nothing is done any more that it
/// would be told of.
pub(super) fn arming(image: &Image) -> Vec<Step> {
    let nobody = Notification { owner: Owner::Nobody, signal: 0 };
    let kept = kept(image);
    let told = indexed(image).filter(|(index, saved)| {
        let is_told = saved.notification.is_some() || saved.status_flags & libc::O_ASYNC != 0;
        is_told && !kept.contains(index)
    });
    told.map(|(socket, saved)| {
        let (notification, flags) = (saved.notification.unwrap_or(nobody), saved.status_flags);
        Step::Notify { socket, notification, flags }
    })
    .collect()
}
