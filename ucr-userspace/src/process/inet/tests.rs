//! What sockets that are alike are said to have, held against what each says itself.

use std::{
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use nix::unistd::Pid as NixPid;

use super::{
    trial::{self, WAYS},
    *,
};
use crate::{
    model::{Pid, option_table::TABLE},
    process::options,
    snapshot::descriptors::Lister,
};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// More than are asked everything.
const MANY: usize = 1000;

fn loopback(family: Family) -> &'static str {
    match family {
        Family::V4 => "127.0.0.1:0",
        Family::V6 => "[::1]:0",
    }
}

/// A new one, a listener, both ends of a connection; and two of UDP.
fn sockets(family: Family) -> Vec<(Over, OwnedFd)> {
    let new = |protocol| create(family, protocol).expect("a socket");
    let listener = TcpListener::bind(loopback(family)).expect("bind");
    let client = TcpStream::connect(listener.local_addr().expect("a name")).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    let udp = UdpSocket::bind(loopback(family)).expect("bind");
    let (tcp, datagrams) = (Over(Protocol::Tcp, family), Over(Protocol::Udp, family));
    vec![
        (tcp, new(Protocol::Tcp)),
        (tcp, listener.into()),
        (tcp, client.into()),
        (tcp, server.into()),
        (datagrams, new(Protocol::Udp)),
        (datagrams, udp.into()),
    ]
}

struct Both<'a> {
    lister: Lister,
    memory: &'a Memory,
    told: InetStates<'a>,
}

impl<'a> Both<'a> {
    fn new(lister: Lister, memory: &'a Memory, kinds: impl IntoIterator<Item = Over>) -> Self {
        // None of these is read.
        let expected = kinds.into_iter().flat_map(|kind| std::iter::repeat_n((0, kind), MANY));
        let told = InetStates::new(memory, expected.collect()).expect("what new ones look like");
        Self { lister, memory, told }
    }

    /// What it has as one of many, and what it says itself.
    fn read(&mut self, socket: BorrowedFd<'_>, kind: Over) -> (InetDetails, InetDetails) {
        let own = Pid(NixPid::this().as_raw());
        let listed = self.lister.sockets_of(own).expect("a list");
        let fd = socket.as_raw_fd().cast_unsigned();
        let listed = listed.iter().find(|d| d.fd == fd).expect("listed");
        let mut asked = InetStates::new(self.memory, Vec::new()).expect("nothing to be known");
        let told = self.told.read(socket, listed, kind).expect("its state");
        (told, asked.read(socket, listed, kind).expect("its state"))
    }
}

/// Other values: each number of this one is another one once.
fn others(old: &[u8]) -> Vec<Vec<u8>> {
    let begins = (0..old.len().max(1)).step_by(4);
    let other = |begin: usize| {
        let (before, rest) = old.split_at(begin);
        WAYS.map(|way| [before, way(rest).as_slice()].concat())
    };
    begins.flat_map(other).collect()
}

/// Without the times, and what moves by itself.
fn steady(mut details: InetDetails) -> InetDetails {
    let quick = (libc::SOL_TCP, libc::TCP_QUICKACK);
    details.inet.options.retain(|option| (option.level, option.number) != quick);
    if let Some(tcp) = &mut details.inet.tcp {
        tcp.agreed.timestamp = None;
    }
    details
}

#[test]
fn one_of_many_has_what_it_says_itself_whatever_is_set() {
    let mut lister = Lister::load().expect("the iterator");
    let memory = Memory::prepare(&mut lister).expect("memory that makes sense");
    for family in FAMILIES {
        let all = sockets(family);
        let mut both = Both::new(lister, &memory, all.iter().map(|(kind, _)| *kind));
        for (kind, socket) in &all {
            let socket = socket.as_fd();
            let mut check = |what: &str| {
                let (told, asked) = both.read(socket, *kind);
                assert_eq!(steady(told), steady(asked), "{kind}, {what}");
            };
            check("as it is");
            for known in TABLE {
                let Ok(old) = sockopt::get(socket, known.number) else { continue };
                for value in others(&old) {
                    let option = SocketOption { name: known.number, value };
                    if options::set(socket, &option).is_ok() {
                        check(known.name);
                    }
                }
            }
            for known in inet_options::of(kind.0) {
                let get = || sockopt::get_at(socket, known.level, known.number, MAX_LEN);
                // It would be asked for a module.
                if (known.level, known.number) == (libc::SOL_TCP, libc::TCP_CONGESTION) {
                    continue;
                }
                let Ok(old) = get() else { continue };
                for value in others(&old) {
                    let (level, number) = (known.level, known.number);
                    if set(socket, &InetOption { level, number, value }).is_ok() {
                        check(known.name);
                    }
                }
            }
        }
        lister = both.lister;
    }
}

#[test]
fn of_many_connections_few_things_are_asked() {
    let mut lister = Lister::load().expect("the iterator");
    let memory = Memory::prepare(&mut lister).expect("memory that makes sense");
    for family in FAMILIES {
        let kind = Over(Protocol::Tcp, family);
        let told = trial::told(&memory, kind);
        for (level, number) in [
            (libc::SOL_IP, libc::IP_TOS),
            (libc::SOL_IP, libc::IP_OPTIONS),
            (libc::SOL_TCP, libc::TCP_CONGESTION),
            (libc::SOL_TCP, libc::TCP_NODELAY),
            (libc::SOL_TCP, libc::TCP_KEEPIDLE),
            (libc::SOL_TCP, libc::TCP_USER_TIMEOUT),
        ] {
            assert!(told.inet(level, number), "{kind}: {}", inet_options::name(level, number));
        }
        for name in [libc::SO_KEEPALIVE, libc::SO_MARK, libc::SO_TIMESTAMP, libc::SO_BUF_LOCK] {
            assert!(told.general(name), "{kind}: option {name}");
        }
        // Their values say more than what was set, or nothing of it.
        assert!(!told.general(libc::SO_RCVBUF) && !told.inet(libc::SOL_TCP, libc::TCP_QUICKACK));
    }
}

#[test]
fn what_a_trial_sets_it_sets_back() {
    let mut lister = Lister::load().expect("the iterator");
    let memory = Memory::prepare(&mut lister).expect("memory that makes sense");
    let kind = Over(Protocol::Udp, Family::V4);
    drop(trial::attempt(&memory, kind).expect("a trial").expect("one of this kind"));
    let (socket, _) = memory.inet_specimen(kind).expect("one");
    let device = sockopt::get(socket, crate::model::option_table::SO_BINDTOIFINDEX);
    assert_eq!(device.expect("its interface"), [0; 4]);
}
