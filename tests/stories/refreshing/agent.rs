//! An SSH agent, which signs what it is sent: the same is always signed alike.

use std::{path::PathBuf, process::Command};

use ucr_tests::{Need, World, needs, program::PYTHON};

use super::{client, with_clients_inside, with_clients_outside};

const CLIENT: &str = include_str!("../../../xtask/src/refresh/programs/agent.py");
const CONNECTIONS: usize = 5;

fn can() -> bool {
    let programs = ["ssh-agent", "ssh-add", "ssh-keygen", PYTHON].map(Need::Program);
    needs::met(&[&[Need::Root][..], &programs].concat())
}

/// An agent, where it listens, and its clients, some of which are programs of their own.
fn cast(world: &World) -> (Command, PathBuf, Command) {
    let path = world.path("agent.sock");
    let mut server = Command::new("ssh-agent");
    server.args(["-D", "-a"]).arg(&path);
    let client = client(CLIENT, &path, CONNECTIONS);
    (server, path, client)
}

#[test]
fn an_agent_goes_on_signing_and_its_clients_notice_nothing() {
    if can() {
        let world = crate::world();
        let (mut server, path, client) = cast(&world);
        with_clients_outside(&world, &mut server, &path, client, CONNECTIONS);
    }
}

#[test]
fn an_agent_and_its_clients_go_on_with_other_sockets() {
    if can() {
        let world = crate::world();
        let (server, path, client) = cast(&world);
        with_clients_inside(&world, &server, &path, &client);
    }
}
