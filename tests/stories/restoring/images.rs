//! Files that are no image, or no longer one: each says what is wrong with it.

use std::{fs, os::unix::net::UnixListener};

use ucr_tests::{Need, World, needs, ucr::FAILED};

use super::take;
use crate::world;

/// A good image's bytes.
fn good(world: &World) -> Vec<u8> {
    let mut victim = world.victim();
    let name = world.abstract_name(b"");
    let listener = victim.listener("stream", &name, 3);
    victim.client("stream", &name);
    victim.accept(listener);
    fs::read(take(world, victim)).expect("the image")
}

/// What `show` and `restore` say of it.
fn refused(world: &World, bytes: &[u8]) -> String {
    let file = world.path("broken");
    fs::write(&file, bytes).expect("write");
    let name = file.to_str().expect("text");
    let shown = world.ucr.run(&["show", name]).ended(FAILED);
    let restored = world.ucr.run(&["restore", name, "--", "true"]).ended(FAILED);
    for answer in [&shown, &restored] {
        assert!(answer.stderr.contains(name), "{}", answer.stderr);
        assert!(!answer.stderr.contains("panicked"), "{}", answer.stderr);
        assert_eq!(answer.stdout, "");
    }
    shown.stderr
}

#[test]
fn each_kind_of_damage_has_its_own_error() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let good = good(&world);
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    let mut flipped = good.clone();
    let middle = good.len() / 2;
    flipped[middle] ^= 0x10;
    let longer = [good.as_slice(), b"x"].concat();
    let damaged = [
        ("empty", Vec::new()),
        ("truncated head", good[..20].to_vec()),
        ("truncated", good[..good.len() - 1].to_vec()),
        ("longer", longer),
        ("flipped", flipped),
        ("newer", changed(8, 99)),
        ("flags", changed(12, 1)),
        ("foreign", b"#!/bin/sh\necho this is a shell script, no image\n".to_vec()),
    ];
    let mut said = Vec::new();
    for (what, bytes) in damaged {
        let text = refused(&world, &bytes);
        // Numbers differ between any two; the words must.
        let words: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        assert!(!said.contains(&words), "{what} says what another said: {text}");
        said.push(words);
    }
    assert!(said[0].contains("empty"), "{}", said[0]);
    assert!(said[5].contains("newer"), "{}", said[5]);
    assert!(said[4].contains("checksum"), "{}", said[4]);
}

#[test]
fn no_bit_can_flip_unnoticed() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let good = good(&world);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(ucr::image::decode(&bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn what_is_no_file_is_no_image() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let socket = world.path("socket");
    let _listener = UnixListener::bind(&socket).expect("bind");
    for path in [world.folder(), &socket, "/dev/zero".as_ref(), &world.path("missing")] {
        let name = path.to_str().expect("text");
        let answer = world.ucr.run(&["show", name]).ended(FAILED);
        assert!(answer.stderr.contains(name), "{}", answer.stderr);
    }
}
