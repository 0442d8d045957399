//! Real programs go on while all their sockets are replaced, and so do those who talk with them.
//!
//! `cargo xtask refresh-programs` does the same with more programs; its clients are these.

mod agent;
mod asyncio;
mod calls;
mod epoll;
mod figure;
mod files;
mod folder;
mod into;
mod killed;
mod peers;
mod ports;
mod redis;
mod refused;
mod shared;
mod signals;
mod threads;

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use ucr_tests::{Program, World, outside, program::python, wait};

/// How often.
const REFRESHES: usize = 20;
/// How many come and go all the while.
const NEWCOMERS: usize = 1;

/// What precedes all code that is told where a server listens.
const WHERE: &str = include_str!("../../../xtask/src/refresh/programs/where.py");
const TALK: &str = include_str!("../../../xtask/src/refresh/programs/talk.py");
const LAUNCHER: &str = include_str!("../../../xtask/src/refresh/programs/launcher.py");

/// Where a server listens. It is shown as `where.py` understands it.
#[derive(Clone, Debug)]
enum Where {
    Path(PathBuf),
    /// Of [`Ipv4Addr::LOCALHOST`].
    Port(u16),
}

impl From<&PathBuf> for Where {
    fn from(path: &PathBuf) -> Self {
        Self::Path(path.clone())
    }
}

impl Display for Where {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => formatter.write_str(path.to_str().expect("a path that is text")),
            Self::Port(port) => write!(formatter, "{}:{port}", Ipv4Addr::LOCALHOST),
        }
    }
}

impl Where {
    /// A port at which nobody listens now.
    fn free_port() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        Self::Port(listener.local_addr().expect("an address").port())
    }

    /// Waits until somebody listens there.
    fn wait(&self) {
        wait::until(&format!("a server to listen at {self}"), || match self {
            Self::Path(path) => UnixStream::connect(path).ok().map(drop),
            Self::Port(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).ok().map(drop),
        });
    }
}

/// A command that runs the code of clients: those that stay, and newcomers, which come and go all the while.
fn client(code: &str, at: impl Into<Where>, connections: usize) -> Command {
    let (at, connections) = (at.into().to_string(), connections.to_string());
    python(&[WHERE, TALK, code].concat(), &[&at, &connections, &NEWCOMERS.to_string()])
}

/// A client as it is heard. `talk.py` says what its lines are.
struct Talker {
    program: Program,
    /// Answers on the connection that has the fewest.
    slowest: u64,
}

impl Talker {
    /// Takes one that was started, once all its connections are there.
    fn new(mut program: Program) -> Self {
        program.says("ready");
        Self { program, slowest: 0 }
    }

    /// Listens until something holds of a line.
    fn until(&mut self, holds: impl Fn(&str, u64) -> bool) {
        loop {
            let line = self.program.line();
            assert!(!line.starts_with("error"), "{line}");
            if let Some(counts) = line.strip_prefix("talked ") {
                let (_, slowest) = counts.split_once(' ').expect("two numbers");
                self.slowest = slowest.parse().expect("a number");
            }
            if holds(&line, self.slowest) {
                return;
            }
        }
    }

    /// Waits until each of its connections was used once more than is known by now.
    fn goes_on(&mut self) {
        let before = self.slowest;
        self.until(|_, slowest| slowest > before);
    }

    /// Has it come to an end: all that is on its way comes, and nothing is missing.
    fn ends(&mut self) {
        self.program.end_input();
        self.until(|line, _| line == "over");
    }
}

/// Replaces the sockets of a process and all below it; what ucr says of it.
fn refresh(world: &World, root: i32) -> Value {
    let root = root.to_string();
    world.ucr.run(&["refresh", "--json", "--tree", "--pid", &root]).done().json()
}

fn number(report: &Value, name: &str) -> usize {
    let number = report[name].as_u64().and_then(|number| usize::try_from(number).ok());
    number.unwrap_or_else(|| panic!("no {name}: {report:#}"))
}

/// A server, and clients in another process, which keep so many connections. Others come and go. Over unix sockets the
/// server's ends stay as they are as well, over TCP all are replaced.
fn with_clients_outside(
    world: &World,
    server: &mut Command,
    at: impl Into<Where>,
    mut client: Command,
    connections: usize,
) {
    let (server, at) = (Program::start(server), at.into());
    at.wait();
    let mut talker = Talker::new(Program::start(client.stdin(Stdio::piped())));
    for _ in 0..REFRESHES {
        talker.goes_on();
        let before = outside::sockets(server.pid());
        let report = refresh(world, server.pid());
        assert!(number(&report, "replaced") > 0, "{report:#}");
        let kept = number(&report, "kept");
        let after = outside::sockets(server.pid());
        let same = before.iter().filter(|(fd, inode)| after.get(fd) == Some(inode)).count();
        let is_expected = match &at {
            Where::Path(_) => kept >= connections && same >= connections,
            Where::Port(_) => kept == 0 && same == 0,
        };
        assert!(is_expected, "{same} of {} sockets are the same: {report:#}", before.len());
    }
    talker.goes_on();
    talker.ends();
    assert!(server.is_alive());
}

/// The sockets of several processes, each by who has it.
fn sockets(pids: &[i32]) -> BTreeMap<(i32, i32), u32> {
    let of =
        |&pid: &i32| outside::sockets(pid).into_iter().map(move |(fd, inode)| ((pid, fd), inode));
    pids.iter().flat_map(of).collect()
}

/// A server, and clients in the same tree.
fn with_clients_inside(world: &World, server: &Command, at: impl Into<Where>, client: &Command) {
    let at = at.into();
    let words = |command: &Command| -> Vec<String> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_str().expect("text").to_owned()).collect()
    };
    let (command, log) = (words(server), world.path("log"));
    let server = json!({ "command": command, "where": at.to_string(), "log": log });
    let plan = json!({ "servers": [server], "client": words(client) }).to_string();
    let mut launcher = python(&[WHERE, LAUNCHER].concat(), &[&plan]);
    let mut talker = Talker::new(Program::start_group(launcher.stdin(Stdio::piped())));
    let root = talker.program.pid();
    let children = outside::children(root);
    assert_eq!(children.len(), 2);
    for _ in 0..REFRESHES {
        talker.goes_on();
        let before = sockets(&children);
        let report = refresh(world, root);
        let kept = number(&report, "kept");
        match at {
            // Who has just connected waits at the new listener already: that end stays.
            Where::Path(_) => assert!(number(&report, "replaced") > 2 * kept, "{report:#}"),
            Where::Port(_) => {
                assert!(number(&report, "replaced") > 0 && kept == 0, "{report:#}");
            }
        }
        let after = sockets(&children);
        let same: Vec<_> =
            before.iter().filter(|&(who, inode)| after.get(who) == Some(inode)).collect();
        assert!(same.len() <= kept, "the same as before: {same:?}");
    }
    talker.goes_on();
    talker.ends();
    assert!(wait::is_alive(children[0]), "the server has ended");
}
