//! A server in Python that waits with an epoll for all its clients, as do they, if they are in the tree.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
};

use ucr_tests::{
    Need, Program, World, needs, outside,
    program::{PYTHON, python},
    wait,
};

use super::{client, number, refresh, with_clients_inside, with_clients_outside};

const SERVER: &str = include_str!("../../../xtask/src/refresh/programs/echoing.py");
const CLIENT: &str = include_str!("../../../xtask/src/refresh/programs/echo.py");
const CONNECTIONS: usize = 10;

fn can() -> bool {
    needs::met(&[Need::Root, Need::Program(PYTHON)])
}

fn server(path: &Path) -> Command {
    python(SERVER, &[path.to_str().expect("text")])
}

/// A server, where it listens, and its clients.
fn cast(world: &World) -> (Command, PathBuf, Command) {
    let path = world.path("echo.sock");
    let client = client(CLIENT, &path, CONNECTIONS);
    (server(&path), path, client)
}

#[test]
fn an_asyncio_server_goes_on_and_its_clients_notice_nothing() {
    if can() {
        let world = crate::world();
        let (mut server, path, client) = cast(&world);
        with_clients_outside(&world, &mut server, &path, client, CONNECTIONS);
    }
}

#[test]
fn an_asyncio_server_and_its_clients_go_on_with_other_sockets() {
    if can() {
        let world = crate::world();
        let (server, path, client) = cast(&world);
        with_clients_inside(&world, &server, &path, &client);
    }
}

#[test]
fn what_an_epoll_watches_it_watches_afterwards() {
    if !can() {
        return;
    }
    let world = crate::world();
    let path = world.path("echo.sock");
    let server = Program::start(&mut server(&path));
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
