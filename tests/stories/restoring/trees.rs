//! A tree of processes, each with its own program.

use std::path::Path;

use serde_json::Value;
use ucr_tests::{Need, Victim, World, needs, outside, ucr::USAGE, victim::talk};

use super::take;
use crate::{dumping::dump, world};

struct Family {
    root: Victim,
    child: Victim,
    listener: i32,
    pair: (i32, i32),
    server: i32,
    client: i32,
}

/// A server and its child: a pair between them, a listener that both hold, a connection.
fn family(world: &World) -> Family {
    let mut root = world.victim();
    let name = world.abstract_name(b"family");
    let listener = root.listener("stream", &name, 6);
    let (a, b) = root.pair("stream");
    let mut child = root.child(&world.control());
    root.close(b);
    child.close(a);
    let client = child.client("stream", &name);
    let server = root.accept(listener);
    Family { root, child, listener, pair: (a, b), server, client }
}

#[test]
fn each_process_has_its_sockets_again() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let Family { mut root, mut child, listener, pair: (a, b), server, client } = family(&world);
    talk(&mut root, a, &mut child, b);
    let saved = [root.pid(), child.pid()];
    let before = [outside::sockets(saved[0]), outside::sockets(saved[1])];
    let image = take(&world, root);

    let (mut victims, restore) = world.restore(&image, &saved);
    let (mut child, mut root) = (victims.pop().expect("two"), victims.pop().expect("two"));
    assert_eq!(root.pid(), restore.pid());
    for (victim, before) in [&root, &child].into_iter().zip(&before) {
        let after = outside::sockets(victim.pid());
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    }
    assert_eq!(root.inode(listener), child.inode(listener), "both hold it");
    assert_eq!(outside::seen(root.pid(), a).peer, Some(child.inode(b)));
    assert_eq!(outside::seen(root.pid(), server).peer, Some(child.inode(client)));
    talk(&mut root, a, &mut child, b);
    talk(&mut child, client, &mut root, server);
    world.keep(restore);
}

#[test]
fn accepted_connections_come_back_in_their_order() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    // Who was accepted when is seen live, the first time and the second.
    world.ucr.attach();
    let mut root = world.victim();
    let name = world.path_name("order");
    let listener = root.listener("stream", &name, 9);
    let mut ends = Vec::new();
    let mut child = root.child(&world.control());
    child.close(listener);
    for round in 0..6 {
        // Numbers grow at one end and shrink at the other.
        let client = child.client("stream", &name);
        let server = root.accept(listener);
        let moved = 100 - round;
        root.ask(&format!("dup {server} {moved}"));
        root.close(server);
        ends.push((client, moved));
    }
    let accepted: Vec<i32> = ends.iter().map(|(_, server)| *server).collect();
    let saved = [root.pid(), child.pid()];
    let image = take(&world, root);
    assert_eq!(in_order_of_accept(&world, &image), accepted);
    let (mut victims, restore) = world.restore(&image, &saved);
    let (mut child, mut root) = (victims.pop().expect("two"), victims.pop().expect("two"));
    for (client, server) in ends {
        talk(&mut child, client, &mut root, server);
    }
    let again = world.path("again");
    let _written = dump(&world, &root, &again, &["--tree"]).done();
    assert_eq!(in_order_of_accept(&world, &again), accepted);
    world.keep(restore);
}

/// The descriptors that `accept` returned, as an image has them one after the other.
fn in_order_of_accept(world: &World, image: &Path) -> Vec<i32> {
    let image = world.ucr.run(&["show", "--json", &image.display().to_string()]).done().json();
    let descriptors = image["descriptors"].as_array().expect("a list");
    let connections = image["connections"].as_array().expect("a list").iter();
    let mut servers: Vec<(i64, i32)> = connections
        .filter(|connection| connection["kind"] == "accepted")
        .map(|connection| {
            let leads_there = |d: &&Value| d["socket"] == connection["server"];
            let descriptor = descriptors.iter().find(leads_there).expect("a descriptor");
            let fd = descriptor["fd"].as_i64().and_then(|fd| fd.try_into().ok());
            (connection["order"].as_i64().expect("a number"), fd.expect("a number"))
        })
        .collect();
    servers.sort_unstable();
    servers.into_iter().map(|(_, fd)| fd).collect()
}

#[test]
fn commands_that_do_not_fit_are_all_named() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let Family { root, child, .. } = family(&world);
    let (saved, other) = (root.pid(), child.pid());
    let image = take(&world, root).display().to_string();
    let run = |commands: &[String]| {
        let mut arguments = vec!["restore".to_owned(), image.clone()];
        arguments.extend_from_slice(commands);
        world.ucr.run(&arguments)
    };
    let wrong = [format!("--exec={other}=true"), "--exec=7=true".into(), "--exec=8=true".into()];
    let answer = run(&wrong).ended(USAGE);
    let _named = answer
        .complains(&format!("no command for saved process {saved}"))
        .complains("not in the image: process 7, 8");
    let one = run(&["--".to_owned(), "true".to_owned()]).ended(USAGE);
    let _named = one.complains(&format!("({saved}, {other})"));
    let none = run(&[]).ended(USAGE);
    assert!(!none.stderr.is_empty());
    assert!(!outside::is_name_taken(&world.abstract_name(b"family")[1..]));
}
