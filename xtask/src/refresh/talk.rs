//! What a client says: how often it was answered, and what was wrong.

use std::{
    io::{BufRead as _, BufReader},
    process::{ChildStdin, ChildStdout},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};

use super::play::PATIENCE;

/// A client as it is heard. `programs/talk.py` says what its lines are.
pub(super) struct Talk {
    lines: Receiver<String>,
    stdin: Option<ChildStdin>,
    heard: Heard,
}

/// What it has said so far.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) is_ready: bool,
    pub(super) is_over: bool,
    /// Requests that were answered.
    pub(super) operations: u64,
    /// Of these, those of the connection that has the fewest.
    pub(super) slowest: u64,
    pub(super) errors: Vec<String>,
}

impl Talk {
    /// Takes its pipes.
    pub(super) fn new(stdin: Option<ChildStdin>, stdout: Option<ChildStdout>) -> Result<Self> {
        let lines = reading(stdout.context("a pipe from the client")?);
        Ok(Self { lines, stdin, heard: Heard::default() })
    }

    /// What it has said by now.
    pub(super) fn heard(&mut self) -> &mut Heard {
        while let Ok(line) = self.lines.try_recv() {
            self.heard.note(&line);
        }
        &mut self.heard
    }

    /// Waits until something holds: what is said as what has come about. The first error that it tells of is one here as well.
    pub(super) fn until(&mut self, what: &str, holds: impl Fn(&Heard) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let heard = self.heard();
            if !heard.errors.is_empty() {
                bail!(heard.errors.remove(0));
            }
            if holds(heard) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.heard.note(&line),
                Err(RecvTimeoutError::Timeout) => bail!("waited in vain until {what}"),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the client has ended before {what}");
                }
            }
        }
    }

    /// Waits until each connection was used once more than is known by now.
    pub(super) fn goes_on(&mut self) -> Result<()> {
        let before = self.heard().slowest;
        self.until("answers on all connections had come", |heard| heard.slowest > before)
    }

    /// Has it come to an end, and waits for that.
    pub(super) fn end(&mut self) -> Result<()> {
        self.stdin = None;
        self.until("the last answers had come", |heard| heard.is_over)
    }
}

impl Heard {
    fn note(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "ready" => self.is_ready = true,
            "over" => self.is_over = true,
            "talked" => match counts(rest) {
                Some((operations, slowest)) => {
                    (self.operations, self.slowest) = (operations, slowest);
                }
                None => self.errors.push(format!("the client said `{line}`")),
            },
            "error" => self.errors.push(format!("the client: {rest}")),
            _ => self.errors.push(format!("the client said `{line}`")),
        }
    }
}

fn counts(text: &str) -> Option<(u64, u64)> {
    let (operations, slowest) = text.split_once(' ')?;
    Some((operations.parse().ok()?, slowest.parse().ok()?))
}

fn reading(pipe: ChildStdout) -> Receiver<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_says_is_counted() {
        let mut heard = Heard::default();
        for line in ["ready", "talked 12 3", "error lost", "talked 15 4", "over"] {
            heard.note(line);
        }
        assert!(heard.is_ready && heard.is_over);
        assert_eq!((heard.operations, heard.slowest), (15, 4));
        assert_eq!(heard.errors, ["the client: lost"]);
    }

    #[test]
    fn what_no_client_says_is_an_error() {
        let mut heard = Heard::default();
        heard.note("talked much");
        heard.note("Traceback");
        assert_eq!(heard.errors.len(), 2);
    }
}
