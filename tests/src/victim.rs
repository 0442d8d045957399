//! A victim as the test sees it: orders in, answers out. What it can be told is listed in the
//! victim program's own `world` module.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    control::Control,
    outside,
    ucr::Started,
    wait,
    world::{hex, unhex},
};

/// A victim. It ends with the test's thread, and when it is dropped if the test started it.
#[derive(Debug)]
pub struct Victim {
    control: Control,
    child: Option<Child>,
    pid: i32,
}

impl Drop for Victim {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _killed = child.kill();
            let _reaped = child.wait();
        }
    }
}

impl Victim {
    /// Starts one by a command that runs the victim program behind these pipes.
    pub(crate) fn start(mut command: Command, base: &Path) -> Self {
        command.arg(base);
        Self::start_with(command, base)
    }

    /// Runs a whole command that starts a victim behind these pipes.
    pub(crate) fn start_with(mut command: Command, base: &Path) -> Self {
        let mut victim = Self::expected(base);
        let child = command.stdin(Stdio::null()).spawn().expect("start a victim");
        let pid = i32::try_from(child.id()).expect("a pid");
        victim.child = Some(child);
        victim.pid = victim.greeting("start", || wait::is_alive(pid));
        victim
    }

    /// One that somebody else will start behind these pipes.
    #[must_use]
    pub fn expected(base: &Path) -> Self {
        Self { control: Control::new(base), child: None, pid: 0 }
    }

    /// Waits until a restored victim says that it is there.
    ///
    /// # Panics
    /// When it does not.
    pub fn greet(&mut self, restore: &Started) {
        let pid = restore.pid();
        let is_alive = || {
            let there = wait::is_alive(pid);
            if !there {
                eprintln!("{}", restore.complaint());
            }
            there
        };
        self.pid = self.greeting("restore", is_alive);
    }

    fn greeting(&mut self, what: &str, is_there: impl Fn() -> bool) -> i32 {
        let line = self.control.line(what, is_there);
        let pid = line.strip_prefix("ready ").and_then(|pid| pid.parse().ok());
        pid.unwrap_or_else(|| panic!("no greeting: {line}"))
    }

    /// Its process id, as it sees it itself.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The process id of the process that the test started.
    pub(crate) fn child_id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Gives an order; the error is what the victim says, for system calls the errno's name.
    ///
    /// # Errors
    /// As above.
    ///
    /// # Panics
    /// When no answer comes.
    pub fn tell(&mut self, order: &str) -> Result<String, String> {
        self.control.tell(order);
        self.answered(order)
    }

    /// The answer to an order that was given.
    ///
    /// # Errors
    /// As [`tell`](Self::tell).
    ///
    /// # Panics
    /// When no answer comes.
    pub fn answered(&mut self, order: &str) -> Result<String, String> {
        let pid = self.pid;
        let answer = self.control.line(order, || wait::is_alive(pid));
        match answer.split_once(' ').unwrap_or((&answer, "")) {
            ("ok", rest) => Ok(rest.to_owned()),
            ("err", rest) => Err(rest.to_owned()),
            _ => panic!("no answer to `{order}`: {answer}"),
        }
    }

    /// Waits for the greeting of the program that it executed.
    ///
    /// # Panics
    /// When there is none.
    pub fn again(&mut self) {
        let pid = self.pid;
        assert_eq!(self.greeting("exec", || wait::is_alive(pid)), pid);
    }

    /// Gives an order that must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn ask(&mut self, order: &str) -> String {
        self.tell(order).unwrap_or_else(|error| panic!("`{order}`: {error}"))
    }

    /// Gives an order whose answer is a number.
    ///
    /// # Panics
    /// When it is none.
    pub fn number(&mut self, order: &str) -> i32 {
        let answer = self.ask(order);
        answer.parse().unwrap_or_else(|_| panic!("`{order}`: {answer}"))
    }

    /// Gives an order after which nothing is answered, or not at once.
    pub fn order(&mut self, order: &str) {
        self.control.tell(order);
    }

    /// The answer to an order that was given, which must have succeeded.
    ///
    /// # Panics
    /// When it has not, or no answer comes.
    pub fn answer(&mut self, order: &str) -> String {
        self.answered(order).unwrap_or_else(|error| panic!("`{order}`: {error}"))
    }

    /// A new socket; `kind` as in `stream`, `seqpacket+nonblock`, `stream+cloexec`.
    pub fn socket(&mut self, kind: &str) -> i32 {
        self.number(&format!("socket {kind}"))
    }

    /// A socketpair.
    pub fn pair(&mut self, kind: &str) -> (i32, i32) {
        let answer = self.ask(&format!("pair {kind}"));
        let (a, b) = answer.split_once(' ').unwrap_or_default();
        match (a.parse(), b.parse()) {
            (Ok(a), Ok(b)) => (a, b),
            _ => panic!("`pair {kind}`: {answer}"),
        }
    }

    /// Binds to `sun_path` bytes.
    pub fn bind(&mut self, fd: i32, name: &[u8]) {
        self.ask(&format!("bind {fd} {}", hex(name)));
    }

    /// A listener with a name.
    pub fn listener(&mut self, kind: &str, name: &[u8], backlog: u32) -> i32 {
        let fd = self.socket(kind);
        self.bind(fd, name);
        self.ask(&format!("listen {fd} {backlog}"));
        fd
    }

    /// Connects to `sun_path` bytes.
    pub fn connect(&mut self, fd: i32, name: &[u8]) {
        self.ask(&format!("connect {fd} {}", hex(name)));
    }

    /// A connected socket.
    pub fn client(&mut self, kind: &str, name: &[u8]) -> i32 {
        let fd = self.socket(kind);
        self.connect(fd, name);
        fd
    }

    /// Accepts a connection.
    pub fn accept(&mut self, fd: i32) -> i32 {
        self.number(&format!("accept {fd}"))
    }

    /// Closes a descriptor.
    pub fn close(&mut self, fd: i32) {
        self.ask(&format!("close {fd}"));
    }

    /// `getsockname`, as `sun_path` bytes.
    pub fn name(&mut self, fd: i32) -> Vec<u8> {
        self.bytes(&format!("name {fd}"))
    }

    /// `getpeername`, as `sun_path` bytes.
    pub fn peer_name(&mut self, fd: i32) -> Vec<u8> {
        self.bytes(&format!("peername {fd}"))
    }

    fn bytes(&mut self, order: &str) -> Vec<u8> {
        let answer = self.ask(order);
        unhex(&answer).unwrap_or_else(|error| panic!("`{order}`: {error}"))
    }

    /// Starts a child of the victim, which has all its descriptors that are not close-on-exec.
    pub fn child(&mut self, base: &Path) -> Self {
        let mut child = Self::expected(base);
        let pid = self.number(&format!("child {}", base.display()));
        child.pid = child.greeting("child", || wait::is_alive(pid));
        child
    }

    /// Inode of the socket behind a descriptor.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn inode(&self, fd: i32) -> u32 {
        outside::inode(self.pid, fd)
            .unwrap_or_else(|| panic!("descriptor {fd} of process {} is no socket", self.pid))
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Panics
    /// When the test did not start it itself.
    pub fn kill(mut self) {
        let mut child = self.child.take().expect("a victim that this test started");
        child.kill().expect("kill a victim");
        child.wait().expect("reap a victim");
    }

    /// Waits until it has ended by itself or was killed by another.
    ///
    /// # Panics
    /// When it does not end, or the test did not start it itself.
    pub fn ended(mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("a victim that this test started");
        wait::for_end(&mut child)
    }
}

/// Data goes from one end to the other, and back.
///
/// # Panics
/// When it does not.
pub fn talk(from: &mut Victim, fd: i32, to: &mut Victim, other: i32) {
    for (word, reverse) in [("request", false), ("answer", true)] {
        let text = format!("{word}-{fd}-{other}");
        let heard = if reverse {
            to.ask(&format!("send {other} {text}"));
            from.ask(&format!("recv {fd}"))
        } else {
            from.ask(&format!("send {fd} {text}"));
            to.ask(&format!("recv {other}"))
        };
        assert_eq!(heard, text);
    }
}

/// The same between two descriptors of one victim.
///
/// # Panics
/// When it does not.
pub fn talk_both(victim: &mut Victim, fd: i32, other: i32) {
    for (from, to) in [(fd, other), (other, fd)] {
        let text = format!("from-{from}-to-{to}");
        victim.ask(&format!("send {from} {text}"));
        assert_eq!(victim.ask(&format!("recv {to}")), text);
    }
}
