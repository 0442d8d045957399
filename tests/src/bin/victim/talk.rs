//! `victim talk …`: a server, clients in child processes and a socketpair with numbered messages
//! under way on each connection, for the demonstration. Both ends of a connection fail loudly if a
//! number jumps, so that a conversation that was taken up at the wrong place, or by the wrong end,
//! cannot go unnoticed.
//!
//! ```text
//! talk serve PATH ABSTRACT CLIENTS     makes the listeners, the pair and the children
//! talk ask NAME FIRST PLACE [COUNT]    asks; PLACE is path:…, abstract:… or fd:…
//! talk continue FD,… FD:NEXT,… COUNT   serves on descriptors that are there, and COUNT newcomers
//! talk resume NAME FD NEXT COUNT       asks on a descriptor that is there, once a byte comes
//! ```
//!
//! `serve` takes lines on standard input: `pause` makes all clients stop between two messages, so
//! that nothing is queued; `state` prints what the server waits for.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, Write as _},
    os::{
        fd::{AsRawFd as _, IntoRawFd, RawFd},
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nix::{
    poll::{PollTimeout, poll},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, accept4, recv, send, socketpair},
};

/// Numbers begin this far apart, so that two connections cannot be taken for each other.
const APART: u64 = 1_000_000;
/// After so many messages a client says that it is under way.
const UNDER_WAY: u64 = 25;

/// Runs one part of the conversation.
pub(crate) fn run(arguments: &[&str]) -> io::Result<()> {
    match arguments {
        ["serve", path, name, clients] => serve(path, name, number(clients)?),
        ["ask", name, first, place] => ask(name, connect(place)?, number(first)?, None),
        ["ask", name, first, place, count] => {
            ask(name, connect(place)?, number(first)?, Some(number(count)?))
        }
        ["continue", listeners, connections, newcomers] => {
            carry_on(listeners, connections, number(newcomers)?)
        }
        ["resume", name, fd, next, count] => {
            say(&format!("ready {name} pid={}", std::process::id()));
            // One byte for each of us, from one pipe: no buffer may take another's.
            nix::unistd::read(io::stdin(), &mut [0])?;
            ask(name, number(fd)?, number(next)?, Some(number(count)?))
        }
        _ => Err(io::Error::other("usage: see the head of talk.rs")),
    }
}

/// One line, whole, also if several processes share standard output.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    // Nobody who listens is no reason to stop.
    let _said = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

/// Ends the process, loudly.
fn fail(line: &str) -> ! {
    say(line);
    eprintln!("victim talk: {line}");
    std::process::exit(1)
}

fn number<N: std::str::FromStr>(text: &str) -> io::Result<N> {
    text.parse().map_err(|_| io::Error::other(format!("not a number: {text}")))
}

fn transmit(fd: RawFd, message: u64) -> io::Result<()> {
    send(fd, &message.to_be_bytes(), MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

/// The next message; `None` at the end.
fn receive(fd: RawFd) -> io::Result<Option<u64>> {
    let mut message = [0; 8];
    match recv(fd, &mut message, MsgFlags::MSG_WAITALL)? {
        0 => Ok(None),
        8 => Ok(Some(u64::from_be_bytes(message))),
        length => Err(io::Error::other(format!("a message of {length} bytes"))),
    }
}

// The asking side.

fn connect(place: &str) -> io::Result<RawFd> {
    let (kind, rest) = place.split_once(':').unwrap_or_default();
    match kind {
        "path" => UnixStream::connect(rest).map(IntoRawFd::into_raw_fd),
        "abstract" => {
            let address = SocketAddr::from_abstract_name(rest)?;
            UnixStream::connect_addr(&address).map(IntoRawFd::into_raw_fd)
        }
        "fd" => number(rest),
        _ => Err(io::Error::other(format!("no such place: {place}"))),
    }
}

/// Sends numbers from `next` on and expects each back, `count` times or until told to pause.
fn ask(name: &str, fd: RawFd, mut next: u64, count: Option<u64>) -> io::Result<()> {
    let pause = Arc::new(AtomicBool::new(false));
    if count.is_none() {
        let pause = Arc::clone(&pause);
        thread::spawn(move || {
            // The end of input means the same: there is nobody left to talk for.
            let _line = io::stdin().lines().next();
            pause.store(true, Ordering::Relaxed);
        });
    }
    let first = next;
    let goes_on = |next: u64| match count {
        Some(count) => next - first < count,
        None => !pause.load(Ordering::Relaxed) || next - first < UNDER_WAY,
    };
    while goes_on(next) {
        transmit(fd, next)?;
        match receive(fd)? {
            Some(answer) if answer == next => {}
            other => fail(&format!("jump {name} fd={fd} asked={next} answered={other:?}")),
        }
        next += 1;
        if count.is_none() && next - first == UNDER_WAY {
            say(&format!("under-way {name}"));
        }
        if next.is_multiple_of(8) {
            // A breath, or the conversation would do nothing but use up the machine.
            poll(&mut [], PollTimeout::from(1u8))?;
        }
    }
    let messages = next - first;
    if count.is_some() {
        say(&format!("done {name} messages={messages}"));
        return Ok(());
    }
    let pid = std::process::id();
    say(&format!("paused {name} pid={pid} fd={fd} next={next} messages={messages}"));
    loop {
        thread::park();
    }
}

// The answering side.

/// What the server knows of its connections.
#[derive(Default)]
struct Table {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By descriptor: the number that must come next, and how many were answered.
    connections: BTreeMap<RawFd, (Option<u64>, u64)>,
    accepted: u64,
    ended: u64,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// Answers on one connection, in a thread.
fn answer(table: &Arc<Table>, fd: RawFd, mut next: Option<u64>) {
    table.change(|state| {
        state.connections.insert(fd, (next, 0));
    });
    let table = Arc::clone(table);
    thread::spawn(move || {
        loop {
            let message = match receive(fd) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => fail(&format!("broken server fd={fd}: {error}")),
            };
            if next.is_some_and(|next| next != message) {
                fail(&format!("jump server fd={fd} expected={next:?} came={message}"));
            }
            next = Some(message + 1);
            // Before the answer goes out: who has it may ask for the state at once.
            table.change(|state| {
                if let Some((expected, count)) = state.connections.get_mut(&fd) {
                    (*expected, *count) = (next, *count + 1);
                }
            });
            if let Err(error) = transmit(fd, message) {
                fail(&format!("broken server fd={fd}: {error}"));
            }
        }
        table.change(|state| state.ended += 1);
    });
}

/// Accepts on one listener, in a thread.
fn accept(table: &Arc<Table>, listener: RawFd) {
    let table = Arc::clone(table);
    thread::spawn(move || {
        loop {
            match accept4(listener, SockFlag::SOCK_CLOEXEC) {
                Ok(fd) => {
                    answer(&table, fd, None);
                    table.change(|state| state.accepted += 1);
                }
                Err(error) => fail(&format!("broken listener fd={listener}: {error}")),
            }
        }
    });
}

/// The listeners, the pair, the children.
fn serve(path: &str, name: &str, clients: u64) -> io::Result<()> {
    let table = Arc::new(Table::default());
    let by_path = UnixListener::bind(path)?.into_raw_fd();
    let address = SocketAddr::from_abstract_name(name)?;
    let by_name = UnixListener::bind_addr(&address)?.into_raw_fd();
    let places = [format!("path:{path}"), format!("abstract:{name}")];

    let (own, others) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::empty())?;
    nix::fcntl::fcntl(&own, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    let aside = format!("fd:{}", others.as_raw_fd());
    let mut children = vec![child("aside", APART, &aside)?];
    drop(others);
    answer(&table, own.into_raw_fd(), None);
    for listener in [by_path, by_name] {
        accept(&table, listener);
    }
    for (client, place) in (1..=clients).zip(places.iter().cycle()) {
        children.push(child(&format!("client-{client}"), APART * (client + 1), place)?);
    }

    let mut orders: Vec<ChildStdin> =
        children.iter_mut().filter_map(|child| child.stdin.take()).collect();
    for line in io::stdin().lock().lines() {
        match line?.as_str() {
            "pause" => {
                for order in &mut orders {
                    order.write_all(b"pause\n")?;
                }
            }
            "state" => {
                for (fd, (next, count)) in &table.lock().connections {
                    let next = next.unwrap_or_default();
                    say(&format!("server fd={fd} next={next} messages={count}"));
                }
                let pid = std::process::id();
                say(&format!("server pid={pid} listeners={by_path},{by_name}"));
            }
            other => return Err(io::Error::other(format!("no such order: {other}"))),
        }
    }
    Ok(())
}

fn child(name: &str, first: u64, place: &str) -> io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["talk", "ask", name, &first.to_string(), place])
        .stdin(Stdio::piped())
        .spawn()
}

/// Takes the server's part on descriptors that are there already.
fn carry_on(listeners: &str, connections: &str, newcomers: u64) -> io::Result<()> {
    let table = Arc::new(Table::default());
    let mut known = 0;
    for connection in connections.split(',') {
        let (fd, next) = connection.split_once(':').unwrap_or_default();
        answer(&table, number(fd)?, Some(number(next)?));
        known += 1;
    }
    for listener in listeners.split(',') {
        accept(&table, number(listener)?);
    }
    say(&format!("ready server pid={}", std::process::id()));
    let mut state = table.lock();
    while state.accepted < newcomers || state.ended < known + newcomers {
        state = table.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    let messages: u64 = state.connections.values().map(|(_, count)| count).sum();
    say(&format!("done server messages={messages} newcomers={}", state.accepted));
    Ok(())
}
