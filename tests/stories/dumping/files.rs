//! What became of a socket since it was named, which binding it again would not bring back.

use std::fs;

use nix::fcntl::OFlag;
use serde_json::Value;
use ucr_tests::{Need, Perl, Victim, World, needs, outside, ucr::REFUSED};

use super::{dump, obstacles::at};
use crate::world;

/// Dumps a victim with one obstacle, at this descriptor.
fn refused(world: &World, victim: &Victim, fd: i32) -> Value {
    let image = world.path("image");
    let report = dump(world, victim, &image, &[]).ended(REFUSED).json();
    assert!(!image.exists());
    assert_eq!(report["obstacles"].as_array().expect("a list").len(), 1, "{report:#}");
    at(&report, fd).clone()
}

/// The name of the socket at a descriptor, as the image has it.
fn bound(world: &World, victim: &Victim, fd: i32) -> Value {
    let image = world.path("image");
    let _written = dump(world, victim, &image, &[]).done();
    let shown = world.ucr.run(&["show", "--json", image.to_str().expect("text")]).done().json();
    let sockets = shown["sockets"].as_array().expect("a list");
    let socket = sockets.iter().find(|socket| socket["inode"] == victim.inode(fd));
    socket.expect("the socket in the image")["bound"].clone()
}

#[test]
fn a_socket_file_that_was_renamed_is_told_with_where_it_is() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let listener = victim.listener("stream", &world.path_name("before"), 3);
    fs::rename(world.path("before"), world.path("after")).expect("rename");
    // What lies there now is another's.
    fs::write(world.path("before"), "foreign").expect("write");
    let name = bound(&world, &victim, listener);
    assert_eq!(name["file"]["state"], "moved");
    assert_eq!(name["file"]["path"]["text"], world.path("after").to_str().expect("text"));
    assert_eq!(name["name"]["text"], world.path("before").to_str().expect("text"));

    // Deleted, it had no file.
    fs::remove_file(world.path("after")).expect("delete");
    assert_eq!(bound(&world, &victim, listener)["file"]["state"], "replaced");
    fs::remove_file(world.path("before")).expect("delete");
    assert_eq!(bound(&world, &victim, listener)["file"]["state"], "deleted");
}

#[test]
fn a_socket_file_with_a_second_name_is_refused() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let listener = victim.listener("seqpacket", &world.path_name("one"), 3);
    fs::hard_link(world.path("one"), world.path("two")).expect("link");
    let obstacle = refused(&world, &victim, listener);
    assert_eq!((&obstacle["kind"], &obstacle["links"]), (&"linked".into(), &2.into()));
    let text = obstacle["text"].as_str().expect("text");
    assert!(text.contains("the kernel does not tell the others"), "{text}");
    // Under the second name alone, of which the kernel does not tell either.
    fs::remove_file(world.path("one")).expect("unlink");
    let obstacle = refused(&world, &victim, listener);
    assert_eq!(obstacle["kind"], "moved");
    let text = obstacle["text"].as_str().expect("text");
    assert!(text.contains("/one") && text.contains("linked to it"), "{text}");
    fs::hard_link(world.path("two"), world.path("one")).expect("link");
    fs::remove_file(world.path("two")).expect("unlink");
    let _written = dump(&world, &victim, &world.path("image"), &[]).done();
}

#[test]
fn a_relative_path_s_directory_is_known_from_the_file() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    victim.ask(&format!("chdir {}", world.folder().display()));
    fs::create_dir(world.path("sub")).expect("a folder");
    let listener = victim.listener("stream", b"sub/./relative", 3);
    victim.ask("chdir /");
    let folder = world.folder().to_str().expect("text");
    for state in ["present", "deleted"] {
        let name = bound(&world, &victim, listener);
        assert_eq!(name["directory"]["text"], folder);
        assert_eq!(name["file"]["state"], state);
        if state == "present" {
            fs::remove_dir_all(world.path("sub")).expect("delete");
        }
    }
}

#[test]
fn who_is_to_be_signalled_is_in_the_image() {
    if !needs::met(&[Need::Root, Need::Program("perl")]) {
        return;
    }
    let world = world();
    let mut perl = Perl::start();
    let (a, _) = perl.pair();
    // F_SETOWN
    perl.ask("fcntl($kept[0], 8, $$ + 0) or die $!");
    let (pid, path) = (perl.pid().to_string(), world.path("image"));
    let image = path.display().to_string();
    let _written = world.ucr.run(&["dump", "--pid", &pid, "-o", &image]).done();
    let shown = world.ucr.run(&["show", "--json", &image]).done().json();
    let sockets = shown["sockets"].as_array().expect("a list");
    let told: Vec<_> = sockets.iter().filter(|socket| !socket["notification"].is_null()).collect();
    assert_eq!(told.len(), 1, "{shown:#}");
    let notification = &told[0]["notification"];
    assert_eq!(notification["owner"]["process"], perl.pid(), "{notification}");
    assert_eq!(notification["signal"], 0, "{notification}");
    assert_eq!(outside::flags(perl.pid(), a) & OFlag::O_ASYNC.bits(), 0, "left alone");
}

#[test]
fn a_listener_that_is_gone_is_not_taken_for_its_successor() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    let name = |kind: &str, round: u32| world.abstract_name(format!("-{kind}-{round}").as_bytes());
    let address =
        |victim: &Victim, fd| world.ucr.record(victim.inode(fd)).expect("a record").socket.sk;
    let mut reused = 0;
    for round in 0..50 {
        let listener = victim.listener("stream", &name("gone", round), 5);
        let gone = address(&victim, listener);
        victim.client("stream", &name("gone", round));
        victim.accept(listener);
        victim.close(listener);
        // The kernel likes to give it the same place in memory.
        let successor = victim.listener("stream", &name("next", round), 5);
        reused += u32::from(address(&victim, successor) == gone);
    }
    assert!(reused > 0, "no address was used again: this shows nothing");

    let image = world.path("image");
    let report = dump(&world, &victim, &image, &[]).done().json();
    assert_eq!(report["counts"]["confirmed"], 150, "{report:#}");
    let shown = world.ucr.run(&["show", "--json", image.to_str().expect("text")]).done().json();
    let connections = shown["connections"].as_array().expect("a list");
    assert_eq!(connections.len(), 50);
    for connection in connections {
        assert_eq!(connection["kind"], "accepted");
        assert!(connection["listener"].is_null(), "{connection}");
    }
}
