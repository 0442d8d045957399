//! `ucr trace --json`, running, and the events it has shown.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    ucr::Answer,
    wait::{self, patience},
};

/// A follower. Ended when it is dropped.
#[derive(Debug)]
pub struct Follower {
    child: Child,
    lines: Receiver<String>,
    complaints: Receiver<String>,
    seen: Vec<Value>,
    complained: String,
}

impl Drop for Follower {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            let _reaped = self.child.wait();
        }
    }
}

impl Follower {
    /// By a whole command that becomes `ucr trace --json`; returns once it follows.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn by(command: Command) -> Self {
        Self::start(command)
    }

    pub(crate) fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start ucr trace");
        let lines = reading(child.stdout.take().expect("its output"));
        let complaints = reading(child.stderr.take().expect("its complaints"));
        let mut follower =
            Self { child, lines, complaints, seen: Vec::new(), complained: String::new() };
        loop {
            let line = follower.complaints.recv_timeout(patience());
            let line = line.unwrap_or_else(|_| panic!("no following: {}", follower.complained));
            follower.complained.push_str(&line);
            follower.complained.push('\n');
            if line.contains("following") {
                return follower;
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or_default()
    }

    /// The first event from here on for which this holds; those before it stay in [`Self::seen`].
    ///
    /// # Panics
    /// When it does not come in time.
    pub fn event(&mut self, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
        loop {
            let line = self.lines.recv_timeout(patience()).unwrap_or_else(|_| {
                let said: Vec<String> = self.complaints.try_iter().collect();
                panic!("no event: {what}; seen: {:#?}; {} {said:?}", self.seen, self.complained)
            });
            let event: Value = serde_json::from_str(&line).expect("an event in JSON");
            self.seen.push(event.clone());
            if holds(&event) {
                return event;
            }
        }
    }

    /// The next event of a kind.
    ///
    /// # Panics
    /// When it does not come in time.
    pub fn next(&mut self, kind: &str) -> Value {
        self.event(kind, |event| event["event"] == kind)
    }

    /// Every event so far.
    #[must_use]
    pub fn seen(&self) -> &[Value] {
        &self.seen
    }

    /// Sends it a signal and waits for its end. What it still wrote is in the answer.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    pub fn signal(mut self, signal: Signal) -> Answer {
        kill(Pid::from_raw(self.pid()), signal).expect("signal the follower");
        self.finish()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    pub fn finish(&mut self) -> Answer {
        let status = wait::for_end(&mut self.child);
        let rest = |lines: &Receiver<String>| {
            let mut text = String::new();
            loop {
                match lines.recv_timeout(patience()) {
                    Ok(line) => text = text + &line + "\n",
                    Err(RecvTimeoutError::Disconnected) => return text,
                    Err(RecvTimeoutError::Timeout) => panic!("its output does not end"),
                }
            }
        };
        let stderr = self.complained.clone() + &rest(&self.complaints);
        Answer { code: status.code(), stdout: rest(&self.lines), stderr }
    }
}

/// The lines of a pipe, read by a thread, so that nothing waits for the test to read.
fn reading(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if send.send(text).is_err() {
                // Nobody listens any more; the writer shall not notice.
                let _rest = pipe.by_ref().read_to_end(&mut line);
                return;
            }
        }
    });
    receive
}
