//! Writing to standard output.

use std::{
    io::{self, BufWriter, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// A reader that closed the pipe has seen enough: that is success.
///
/// # Errors
///
/// Every other error.
pub fn unless_broken_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Lines that wait for a slow reader at most.
const WAITING: usize = 65_536;
/// How long a reader that takes nothing is waited for at the end.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes lines to standard output from a thread of its own, so that a reader that takes its time
/// holds nobody up: what it does not take in time is counted instead.
#[derive(Debug)]
pub struct Writer {
    lines: SyncSender<String>,
    thread: JoinHandle<io::Result<()>>,
    taken: u64,
    written: Arc<AtomicU64>,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It will be written.
    Taken,
    /// Too many wait already; it is lost.
    TooMany,
    /// Nobody reads any more.
    Closed,
}

impl Writer {
    /// Starts the thread.
    #[must_use]
    pub fn start() -> Self {
        let (lines, waiting) = sync_channel(WAITING);
        let written = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&written);
        let thread = thread::spawn(move || write_all(&waiting, &counter));
        Self { lines, thread, taken: 0, written }
    }

    /// Hands a line over.
    pub fn write(&mut self, line: String) -> Written {
        match self.lines.try_send(line) {
            Ok(()) => {
                self.taken += 1;
                Written::Taken
            }
            Err(TrySendError::Full(_)) => Written::TooMany,
            Err(TrySendError::Disconnected(_)) => Written::Closed,
        }
    }

    /// Waits until all is written, but not for a reader that takes nothing. Says how many lines were
    /// handed over and not written, and how the writing ended.
    pub fn finish(self) -> (u64, io::Result<()>) {
        drop(self.lines);
        let mut progress = (self.written.load(Ordering::Relaxed), Instant::now());
        while !self.thread.is_finished() {
            let written = self.written.load(Ordering::Relaxed);
            if written != progress.0 {
                progress = (written, Instant::now());
            } else if progress.1.elapsed() > PATIENCE {
                // The thread ends with the process.
                return (self.taken - written, Ok(()));
            }
            thread::sleep(Duration::from_millis(1));
        }
        let outcome = self
            .thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the writing thread panicked")));
        (self.taken - self.written.load(Ordering::Relaxed), outcome)
    }
}

fn write_all(waiting: &Receiver<String>, written: &AtomicU64) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    while let Ok(line) = waiting.recv() {
        let mut lines = 1;
        writeln!(out, "{line}")?;
        // All that is there at once; then let the reader see it.
        while let Ok(line) = waiting.try_recv() {
            writeln!(out, "{line}")?;
            lines += 1;
        }
        out.flush()?;
        written.fetch_add(lines, Ordering::Relaxed);
    }
    Ok(())
}
