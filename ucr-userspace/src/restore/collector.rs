//! Sockets that no process has any more, and that stand in the way until the kernel has collected
//! them.
//!
//! A unix socket whose last descriptor waits in a unix queue, its own in the end, lives on after its
//! process. The kernel looks for such only when some unix socket closes (`unix_release_sock`), and
//! later, from a work queue: right after `ucr dump --kill` they hold their names.

use std::io;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use super::obstacle::Obstacle;
use crate::image::Image;

/// How long the collector is waited for. It takes milliseconds, on a host without load.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long before the next look, at first; each time twice as long, since a look is one at all sockets of the host.
/// (Nothing tells when it is done: it works by itself, and no call waits for it.)
const PAUSE: Duration = Duration::from_millis(5);

/// Waits for the kernel's collector, as long as it may be the one that is in the way.
#[derive(Debug)]
pub struct Collector {
    deadline: Option<Instant>,
    pause: Duration,
}

impl Collector {
    /// For the sockets of this image: without descriptors in queues there is nothing to collect.
    #[must_use]
    pub fn of(image: &Image) -> Self {
        let mut messages = image.sockets.iter().flat_map(|socket| &socket.queue);
        let has_some = messages.any(|message| !message.files.is_empty());
        Self { deadline: has_some.then(|| Instant::now() + PATIENCE), pause: PAUSE }
    }

    /// Whether it is worth looking again: a name is taken that may be free in a moment. By then the
    /// collector has been woken, and some time has passed.
    ///
    /// # Errors
    ///
    /// No socket can be made to wake it.
    pub fn may_free(&mut self, obstacles: &[Obstacle]) -> io::Result<bool> {
        let is_due = self.deadline.is_some_and(|deadline| Instant::now() < deadline);
        if !is_due || !obstacles.iter().any(Obstacle::is_live_socket) {
            return Ok(false);
        }
        drop(UnixStream::pair()?);
        thread::sleep(self.pause);
        self.pause *= 2;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::names::NameError;

    fn taken() -> Vec<Obstacle> {
        vec![Obstacle::Name(NameError::Live { name: "@x".to_owned(), owner: None })]
    }

    #[test]
    fn only_a_name_that_is_taken_may_become_free_and_not_for_ever() {
        let collector = |deadline| Collector { deadline, pause: Duration::from_nanos(1) };
        let soon = Some(Instant::now() + PATIENCE);
        assert!(collector(soon).may_free(&taken()).expect("a pair"));
        assert!(!collector(soon).may_free(&[]).expect("nothing is done"));
        assert!(!collector(None).may_free(&taken()).expect("nothing is done"));
        assert!(!collector(Some(Instant::now())).may_free(&taken()).expect("nothing is done"));
    }
}
