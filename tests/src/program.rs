//! Real programs: started, heard, and ended in the end.

use std::{
    io::{BufRead as _, BufReader},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::wait;

/// Debian's: the first one in `PATH` may be a script that takes long to find another one.
pub const PYTHON: &str = "/usr/bin/python3";

/// A command that runs some Python.
#[must_use]
pub fn python(code: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(PYTHON);
    command.args(["-c", code]).args(arguments).stdin(Stdio::null());
    command
}

/// A program and what it says; it is killed when this is dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    said: BufReader<ChildStdout>,
    leads_group: bool,
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.leads_group {
            let _killed = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        }
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Program {
    /// Starts it.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("start a program");
        let said = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, said, leads_group: false }
    }

    /// The same for one that starts others, which end with it.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn start_group(command: &mut Command) -> Self {
        let mut program = Self::start(command.process_group(0));
        program.leads_group = true;
        program
    }

    /// Its process id.
    ///
    /// # Panics
    /// Never: it is one.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// The next line that it says.
    ///
    /// # Panics
    /// When it does not say anything in time, or has ended.
    pub fn line(&mut self) -> String {
        // A line is written at once: what is not there is not begun.
        let is_there = !self.said.buffer().is_empty()
            || wait::readable(self.said.get_ref().as_fd(), wait::patience());
        assert!(is_there, "process {} says nothing", self.pid());
        let mut line = String::new();
        self.said.read_line(&mut line).expect("read what a program says");
        assert!(line.ends_with('\n'), "process {} has ended", self.pid());
        line.trim_end().to_owned()
    }

    /// Waits until it has said that.
    ///
    /// # Panics
    /// When it says something else, or nothing.
    pub fn says(&mut self, expected: &str) {
        assert_eq!(self.line(), expected);
    }

    /// Ends its standard input, which was a pipe.
    pub fn end_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Has it stand still.
    ///
    /// # Panics
    /// When it does not.
    pub fn stop(&self) {
        kill(Pid::from_raw(self.pid()), Signal::SIGSTOP).expect("stop a program");
        wait::for_state(self.pid(), 'T');
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it is gone.
    pub fn go_on(&self) {
        kill(Pid::from_raw(self.pid()), Signal::SIGCONT).expect("let a program go on");
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        wait::is_alive(self.pid())
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not come in time.
    pub fn ends(&mut self) -> ExitStatus {
        wait::for_end(&mut self.child)
    }
}
