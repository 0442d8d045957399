//! Traffic that does not stop for anything that happens meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// Somebody who sends one number after another, until this is dropped.
#[derive(Debug)]
pub struct Storm {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    /// Numbers from `first` on; `send` sends one, or does not if there is nobody who hears it.
    #[must_use]
    pub fn of(first: u32, send: impl Fn(u32) + Send + 'static) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let end = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for number in first.. {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                send(number);
                thread::yield_now();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}
