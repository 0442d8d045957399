//! UDP and TCP: dumped, restored, and as they were.

pub(crate) mod blind_spots;
mod ended;
mod groups;
mod interfaces;
mod listeners;
mod pairs;
mod tracing;
mod udp;
mod waiting;

use std::path::{Path, PathBuf};

use ucr_tests::{Host, Victim, World, outside, ucr::REFUSED, world::hex};

use crate::dumping::dump;

/// In a network namespace of its own: nobody else's ports and packets are there.
fn world() -> World {
    Host::new().enter();
    crate::world()
}

/// A bound socket of a kind (`udp`, `tcp6`, …) and its address.
fn bound(victim: &mut Victim, kind: &str, at: &str) -> (i32, String) {
    let fd = victim.number(&format!("inet {kind}"));
    victim.ask(&format!("ibind {fd} {at}"));
    let name = victim.ask(&format!("iname {fd}"));
    (fd, name)
}

/// Sends a datagram.
fn send(victim: &mut Victim, fd: i32, to: &str, data: &[u8]) {
    victim.ask(&format!("isend {fd} {to} {}", hex(data)));
}

/// Receives a datagram: from whom, and what.
fn receive(victim: &mut Victim, fd: i32) -> (String, String) {
    let answer = victim.ask(&format!("irecv {fd}"));
    // Of nothing there is no blank before it.
    let (from, data) = answer.split_once(' ').unwrap_or((&answer, ""));
    (from.to_owned(), data.to_owned())
}

/// An option that is a number.
fn set(victim: &mut Victim, fd: i32, level: i32, option: i32, value: i32) {
    victim.ask(&format!("iset {fd} {level} {option} {}", hex(&value.to_ne_bytes())));
}

fn get(victim: &mut Victim, fd: i32, level: i32, option: i32) -> String {
    victim.ask(&format!("iget {fd} {level} {option}"))
}

/// Dumps a victim with its tree and ends it; the image.
fn take(world: &World, victim: Victim) -> PathBuf {
    let image = world.path("image");
    let _written = dump(world, &victim, &image, &["--tree", "--kill"]).done();
    let _status = victim.ended();
    image
}

/// Has the sockets of a victim replaced while it lives, and then brings them back in another one. Each time all that is in
/// an image has to be the same.
fn anew(world: &World, victim: Victim) -> Victim {
    let (before, after) = (world.path("before"), world.path("after"));
    let _written = dump(world, &victim, &before, &[]).done();
    let numbers = outside::sockets(victim.pid());
    let pid = victim.pid().to_string();
    world.ucr.run(&["refresh", "--pid", &pid]).done();
    let others = outside::sockets(victim.pid());
    let same = numbers.iter().filter(|(fd, inode)| others.get(fd) == Some(inode)).count();
    assert_eq!((numbers.len(), same), (others.len(), 0), "{numbers:?} {others:?}");
    let _written = dump(world, &victim, &after, &[]).done();
    assert_eq!(facts(world, &before), facts(world, &after));
    bring_back(world, &take(world, victim))
}

/// Restores an image of one process into another victim, and dumps that again: what is in both images has to be the
/// same.
fn bring_back(world: &World, image: &Path) -> Victim {
    let victim = restored(world, image);
    let again = world.path("again");
    let _written = dump(world, &victim, &again, &[]).done();
    assert_eq!(facts(world, image), facts(world, &again));
    victim
}

/// Restores an image of one process into another victim.
fn restored(world: &World, image: &Path) -> Victim {
    let (mut victims, restore) = world.restore(image, &[0]);
    let victim = victims.pop().expect("one victim");
    let said = restore.complaint();
    assert!(said.contains("verified: 0 differences"), "{said}");
    world.keep(restore);
    victim
}

/// What an image says of internet sockets, without what identifies a socket within one life of it.
fn facts(world: &World, image: &Path) -> Vec<serde_json::Value> {
    let shown = world.ucr.run(&["show", "--json", &image.display().to_string()]).done().json();
    let sockets = shown["sockets"].as_array().expect("sockets").clone();
    let facts = sockets.into_iter().filter(|socket| !socket["inet"].is_null()).map(|mut socket| {
        for known_once in ["inode", "cookie", "index", "sources"] {
            socket.as_object_mut().expect("a socket").remove(known_once);
        }
        // What was sent to many is sent to this socket alone.
        for datagram in socket["inet"]["datagrams"].as_array_mut().into_iter().flatten() {
            datagram.as_object_mut().expect("a datagram").remove("to");
        }
        socket
    });
    facts.collect()
}

/// That a dump is refused for this reason.
fn is_refused(world: &World, victim: &Victim, why: &str) {
    let image = world.path("refused");
    let refused = dump(world, victim, &image, &[]);
    refused.ended(REFUSED).complains(why);
    assert!(!image.exists());
}
