//! What memory tells, held against what the sockets themselves tell.

use std::{
    io::Write as _,
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
    },
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{Shutdown, setsockopt, shutdown, sockopt},
    unistd::Pid as NixPid,
};

use super::*;
use crate::{
    model::Pid,
    snapshot::{descriptors::Lister, memory::MemoryError},
    sys::{
        notify::{self, OwnerEx},
        sockopt as raw,
    },
};

/// What both ways tell of a descriptor of ours; and whether it was asked anything.
fn both(
    states: &mut States<'_>,
    memory: &Memory,
    lister: &mut Lister,
    socket: BorrowedFd<'_>,
) -> (SocketDetails, SocketDetails, bool) {
    let own = Pid(NixPid::this().as_raw());
    let listed = lister.sockets_of(own).expect("a list");
    let fd = socket.as_raw_fd().cast_unsigned();
    let listed = listed.iter().find(|d| d.fd == fd).expect("listed");
    let sock = memory.sock(listed.socket.sk).expect("it");
    let new = Defaults::probe(SocketType::from_raw(sock.socket_type.into()).expect("a type"));
    let asked = state::read(socket, &new.expect("a new one")).expect("its state");
    let reach = || socket.try_clone_to_owned();
    let (told, way) = states.read(&sock, listed, reach).expect("its state");
    (asked, told, way.is_some())
}

#[test]
fn memory_tells_what_the_socket_itself_tells() {
    let mut lister = Lister::load().expect("the iterator");
    let memory = Memory::prepare(&mut lister).expect("memory that makes sense");
    assert!(likeness_is_told(&memory).expect("a trial"), "this kernel keeps an option elsewhere");
    let mut states = States::new(&memory);
    let name = format!("ucr-states-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let listener = UnixListener::bind_addr(&address).expect("bind");
    let client = UnixStream::connect_addr(&address).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    let (plain, other) = UnixStream::pair().expect("a pair");
    let (loud, _quiet) = UnixStream::pair().expect("a pair");
    (&other).write_all(b"words").expect("write");
    setsockopt(&loud, sockopt::PassCred, &true).expect("SO_PASSCRED");
    raw::set(client.as_fd(), libc::SO_PRIORITY, &5_i32.to_ne_bytes()).expect("SO_PRIORITY");
    raw::set(server.as_fd(), libc::SO_LINGER, &[1, 0, 0, 0, 7, 0, 0, 0]).expect("SO_LINGER");
    fcntl(&loud, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("O_NONBLOCK");
    shutdown(plain.as_raw_fd(), Shutdown::Write).expect("shutdown");
    let alone = UnixDatagram::unbound().expect("a socket");
    let receiver = UnixDatagram::bind_addr(
        &SocketAddr::from_abstract_name(format!("{name}-r")).expect("a name"),
    )
    .expect("bind");
    alone.connect_addr(&receiver.local_addr().expect("its name")).expect("connect");
    alone.send(b"").expect("send nothing");
    let told = UnixStream::pair().expect("a pair").0;
    let owner = OwnerEx { kind: notify::PROCESS, pid: NixPid::this().as_raw() };
    notify::set(told.as_fd(), owner, libc::SIGUSR1).expect("F_SETOWN_EX, F_SETSIG");
    let all = [
        listener.as_fd(),
        client.as_fd(),
        server.as_fd(),
        plain.as_fd(),
        other.as_fd(),
        loud.as_fd(),
        alone.as_fd(),
        receiver.as_fd(),
        told.as_fd(),
    ];
    for _ in 0..2 {
        for socket in all {
            let (asked, told, _) = both(&mut states, &memory, &mut lister, socket);
            assert_eq!(told, asked);
        }
    }
}

#[test]
fn of_sockets_that_are_alike_one_is_asked() {
    let mut lister = Lister::load().expect("the iterator");
    let memory = Memory::prepare(&mut lister).expect("memory that makes sense");
    let mut states = States::new(&memory);
    let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().expect("a pair")).collect();
    let sockets: Vec<_> = pairs.iter().flat_map(|(a, b)| [a.as_fd(), b.as_fd()]).collect();
    let asked: Vec<bool> =
        sockets.iter().map(|s| both(&mut states, &memory, &mut lister, *s).2).collect();
    assert_eq!(asked, [true, false, false, false, false, false]);
    let last = sockets.last().expect("some");
    // Each option makes it unlike the others, and is told.
    for (option, value) in [
        (libc::SO_RCVLOWAT, 3_i32),
        (libc::SO_PEEK_OFF, 0),
        (libc::SO_PASSSEC, 1),
        (libc::SO_MARK, 9),
    ] {
        raw::set(*last, option, &value.to_ne_bytes()).expect("set");
        let (asked, told, way) = both(&mut states, &memory, &mut lister, *last);
        assert!(way, "option {option}");
        assert_eq!(told, asked);
        assert!(told.options.iter().any(|o| o.name == option && o.value == value.to_ne_bytes()));
    }
}

#[test]
fn what_is_out_of_reach_is_told_as_such() {
    let mut lister = Lister::load().expect("the iterator");
    let memory = Memory::prepare(&mut lister).expect("memory that makes sense");
    let mut states = States::new(&memory);
    let (one, _other) = UnixStream::pair().expect("a pair");
    let own = Pid(NixPid::this().as_raw());
    let fd = one.as_raw_fd().cast_unsigned();
    let listed = lister.sockets_of(own).expect("a list");
    let listed = listed.iter().find(|d| d.fd == fd).expect("listed");
    let sock = memory.sock(listed.socket.sk).expect("it");
    let lost = states.read(&sock, listed, || Err("gone"));
    assert!(matches!(lost, Err(Unknown::OutOfReach("gone"))), "{lost:?}");
    let beyond = memory.sock(8);
    assert!(matches!(beyond, Err(MemoryError::Unreadable { .. })), "{beyond:?}");
}
