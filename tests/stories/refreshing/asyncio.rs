//! A server in Python that waits with an epoll for all its clients, as do they, if they are in the tree.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    process::Command,
};

use ucr_tests::{
    Need, Program, World, needs, outside,
    program::{PYTHON, python},
    wait,
};

use super::{WHERE, Where, client, number, refresh, with_clients_inside, with_clients_outside};

const SERVER: &str = include_str!("../../../xtask/src/refresh/programs/echoing.py");
const CLIENT: &str = include_str!("../../../xtask/src/refresh/programs/echo.py");
const CONNECTIONS: usize = 10;

fn can() -> bool {
    needs::met(&[Need::Root, Need::Program(PYTHON)])
}

/// A server that listens there.
fn server(at: &Where) -> Command {
    python(&[WHERE, SERVER].concat(), &[&at.to_string()])
}

fn goes_on_alone(world: &World, at: Where) {
    let client = client(CLIENT, at.clone(), CONNECTIONS);
    with_clients_outside(world, &mut server(&at), at, client, CONNECTIONS);
}

fn goes_on_with_its_clients(world: &World, at: Where) {
    let client = client(CLIENT, at.clone(), CONNECTIONS);
    with_clients_inside(world, &server(&at), at, &client);
}

#[test]
fn an_asyncio_server_goes_on_and_its_clients_notice_nothing() {
    if can() {
        let world = crate::world();
        goes_on_alone(&world, Where::Path(world.path("echo.sock")));
    }
}

#[test]
fn an_asyncio_server_and_its_clients_go_on_with_other_sockets() {
    if can() {
        let world = crate::world();
        goes_on_with_its_clients(&world, Where::Path(world.path("echo.sock")));
    }
}

#[test]
fn an_asyncio_server_goes_on_over_tcp_and_its_clients_notice_nothing() {
    if can() {
        goes_on_alone(&crate::world(), Where::free_port());
    }
}

#[test]
fn an_asyncio_server_and_its_clients_go_on_over_tcp_with_other_sockets() {
    if can() {
        goes_on_with_its_clients(&crate::world(), Where::free_port());
    }
}

#[test]
fn what_an_epoll_watches_it_watches_afterwards() {
    if !can() {
        return;
    }
    let world = crate::world();
    let path = world.path("echo.sock");
    let server = Program::start(&mut server(&Where::from(&path)));
    let client = wait::until("a server to listen", || UnixStream::connect(&path).ok());
    client.set_read_timeout(Some(wait::patience())).expect("not for ever");
    let mut client = BufReader::new(client);
    let mut ask = |count: u32| {
        client.get_mut().write_all(b"line\n").expect("ask a server");
        let mut answer = String::new();
        client.read_line(&mut answer).expect("hear a server");
        assert_eq!(answer, format!("{count} line\n"));
    };
    ask(1);

    // Its listener, the connection, and one end of a pair by which it wakes itself.
    let (sockets, watched) = (outside::sockets(server.pid()), outside::registrations(server.pid()));
    assert_eq!((sockets.len(), watched.len()), (4, 3));
    let report = refresh(&world, server.pid());
    assert_eq!((number(&report, "replaced"), number(&report, "kept")), (3, 1), "{report:#}");
    let replaced = outside::sockets(server.pid());
    assert_eq!(sockets.keys().collect::<Vec<_>>(), replaced.keys().collect::<Vec<_>>());
    assert_eq!(outside::registrations(server.pid()), watched);

    // The connection that is kept, and one that comes.
    ask(2);
    let mut late = UnixStream::connect(&path).expect("connect to the new listener");
    late.write_all(b"line\n").expect("ask a server");
    let mut answer = String::new();
    BufReader::new(late).read_line(&mut answer).expect("hear a server");
    assert_eq!(answer, "1 line\n");
    assert!(server.is_alive());
}
