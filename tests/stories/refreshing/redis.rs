//! Redis, with many clients, and messages that go from one of them to another one.

use std::process::Command;

use ucr_tests::{Need, World, needs, program::PYTHON};

use crate::services::redis::command;

use super::{Where, client, with_clients_inside, with_clients_outside};

const CLIENT: &str = include_str!("../../../xtask/src/refresh/programs/redis.py");

/// Beside a publisher and a subscriber.
const CONNECTIONS: usize = 20;

fn can() -> bool {
    needs::met(&[Need::Root, Need::Program("redis-server"), Need::Program(PYTHON)])
}

/// A server that listens there, and its clients.
fn cast(world: &World, at: &Where) -> (Command, Command) {
    let server = match at {
        Where::Path(_) => command(world, &["--port", "0", "--unixsocket", &at.to_string()]),
        Where::Port(port) => command(world, &["--bind", "127.0.0.1", "--port", &port.to_string()]),
    };
    (server, client(CLIENT, at.clone(), CONNECTIONS))
}

fn goes_on_alone(world: &World, at: Where) {
    let (mut server, client) = cast(world, &at);
    with_clients_outside(world, &mut server, at, client, CONNECTIONS + 2);
}

fn goes_on_with_its_clients(world: &World, at: Where) {
    let (server, client) = cast(world, &at);
    with_clients_inside(world, &server, at, &client);
}

#[test]
fn redis_goes_on_and_its_clients_notice_nothing() {
    if can() {
        let world = crate::world();
        goes_on_alone(&world, Where::Path(world.path("redis.sock")));
    }
}

#[test]
fn redis_and_its_clients_go_on_with_other_sockets() {
    if can() {
        let world = crate::world();
        goes_on_with_its_clients(&world, Where::Path(world.path("redis.sock")));
    }
}

#[test]
fn redis_goes_on_over_tcp_and_its_clients_notice_nothing() {
    if can() {
        goes_on_alone(&crate::world(), Where::free_port());
    }
}

#[test]
fn redis_and_its_clients_go_on_over_tcp_with_other_sockets() {
    if can() {
        goes_on_with_its_clients(&crate::world(), Where::free_port());
    }
}
