//! Redis, with many clients, and messages that go from one of them to another one.

use std::{path::PathBuf, process::Command};

use ucr_tests::{Need, World, needs, program::PYTHON};

use crate::services::redis::command;

use super::{client, with_clients_inside, with_clients_outside};

const CLIENT: &str = include_str!("../../../xtask/src/refresh/programs/redis.py");

/// Beside a publisher and a subscriber.
const CONNECTIONS: usize = 20;

fn can() -> bool {
    needs::met(&[Need::Root, Need::Program("redis-server"), Need::Program(PYTHON)])
}

/// A server, where it listens, and its clients.
fn cast(world: &World) -> (Command, PathBuf, Command) {
    let path = world.path("redis.sock");
    let socket = path.to_str().expect("text");
    let server = command(world, &["--port", "0", "--unixsocket", socket]);
    let client = client(CLIENT, &path, CONNECTIONS);
    (server, path, client)
}

#[test]
fn redis_goes_on_and_its_clients_notice_nothing() {
    if can() {
        let world = crate::world();
        let (mut server, path, client) = cast(&world);
        with_clients_outside(&world, &mut server, &path, client, CONNECTIONS + 2);
    }
}

#[test]
fn redis_and_its_clients_go_on_with_other_sockets() {
    if can() {
        let world = crate::world();
        let (server, path, client) = cast(&world);
        with_clients_inside(&world, &server, &path, &client);
    }
}
