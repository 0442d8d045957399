//! What was tracked makes a difference: facts that a snapshot alone gets wrong or does not have, and where
//! the image says that each of them comes from.

use serde_json::Value;
use ucr_tests::{Need, Victim, World, needs};

use crate::{dumping::dump, world};

/// The socket at a descriptor, as the image has it.
fn saved(world: &World, victim: &Victim, fd: i32, options: &[&str]) -> Value {
    let image = world.path("image");
    let _written = dump(world, victim, &image, &[&["--tree"], options].concat()).done();
    socket(world, |image| {
        let descriptors = image["descriptors"].as_array().expect("a list");
        let found = descriptors.iter().find(|one| one["pid"] == victim.pid() && one["fd"] == fd);
        found.expect("the descriptor")["socket"].as_u64().expect("an index")
    })
}

/// One socket of the image, by its index.
fn socket(world: &World, index: impl FnOnce(&Value) -> u64) -> Value {
    let image = shown(world);
    let index = usize::try_from(index(&image)).expect("an index");
    image["sockets"][index].clone()
}

fn shown(world: &World) -> Value {
    let image = world.path("image").display().to_string();
    world.ucr.run(&["show", "--json", &image]).done().json()
}

const ALONE: [&str; 2] = ["--backend", "snapshot"];

#[test]
fn a_relative_name_after_its_binder_has_moved_on() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let folder = world.folder().to_str().expect("text").to_owned();
    std::fs::create_dir(world.path("sub")).expect("a folder");
    victim.ask(&format!("chdir {folder}/sub"));
    let listener = victim.listener("stream", b"../relative", 3);
    victim.ask("chdir /");
    std::fs::remove_file(world.path("relative")).expect("remove a socket file");
    let tracked = saved(&world, &victim, listener, &[]);
    assert_eq!(tracked["bound"]["directory"]["text"], format!("{folder}/sub"));
    assert_eq!(tracked["sources"]["directory"], "seen_live");
    let refused = dump(&world, &victim, &world.path("image"), &ALONE);
    let _said = refused.ended(ucr_tests::ucr::REFUSED).complains("nobody saw relative to what");
}

#[test]
fn which_listener_a_connection_came_through() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let name = world.abstract_name(b"service");
    let old = victim.listener("stream", &name, 3);
    let first = victim.client("stream", &name);
    let by_old = victim.accept(old);
    victim.close(old);
    let new = victim.listener("stream", &name, 3);
    let second = victim.client("stream", &name);
    let by_new = victim.accept(new);
    let listeners = |fd: i32, options: &[&str]| {
        let socket = saved(&world, &victim, fd, options);
        let image = shown(&world);
        let all = image["connections"].as_array().expect("a list").clone();
        let own = image["sockets"]
            .as_array()
            .expect("a list")
            .iter()
            .position(|one| one["inode"] == socket["inode"]);
        let server = all.iter().find(|one| one["server"].as_u64() == own.map(|own| own as u64));
        (server.expect("its connection")["listener"].clone(), socket["sources"]["listener"].clone())
    };
    assert_eq!(listeners(by_old, &[]), (Value::Null, Value::Null));
    let (listener, source) = listeners(by_new, &[]);
    assert!(listener.is_u64() && source == "seen_live", "{listener} {source}");
    // The kernel has one name for both.
    let (listener, source) = listeners(by_old, &ALONE);
    assert!(listener.is_u64() && source == "concluded", "{listener} {source}");
    assert!(first != second);
}

#[test]
fn a_socketpair_with_names_is_no_connection() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let (a, b) = victim.pair("seqpacket");
    victim.bind(a, &world.abstract_name(b"one"));
    victim.bind(b, &world.abstract_name(b"other"));
    for (options, kind, source) in
        [(&[][..], "pair", "seen_live"), (&ALONE[..], "accepted", "concluded")]
    {
        let socket = saved(&world, &victim, a, options);
        assert_eq!(socket["sources"]["ends"], source);
        assert_eq!(shown(&world)["connections"][0]["kind"], kind);
    }
}

#[test]
fn who_connected_and_is_gone() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let name = world.abstract_name(b"service");
    let listener = victim.listener("stream", &name, 3);
    let mut other = world.victim_as_nobody();
    let gone = other.pid();
    let fd = other.client("stream", &name);
    other.ask(&format!("send {fd} last-words"));
    other.kill();
    for (options, is_seen) in [(&[][..], true), (&ALONE[..], false)] {
        let _listener = saved(&world, &victim, listener, options);
        let embryo = socket(&world, |image| {
            image["connections"][0]["embryo"].as_u64().expect("a connection that waits")
        });
        // Whose it was is in the kernel's memory; what made it, and when, only if it was seen.
        let who = &embryo["peer_credentials"];
        assert_eq!((&who["pid"], &who["uid"]), (&gone.into(), &ucr_tests::ucr::NOBODY.into()));
        assert_eq!(embryo["sources"]["credentials"], "memory");
        assert_eq!(embryo["creator"]["pid"] == gone, is_seen, "{embryo:#}");
        assert_eq!(embryo["created_at_ns_since_boot"].is_u64(), is_seen, "{embryo:#}");
    }
}
