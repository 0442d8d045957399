//! Datagram sockets: each has the peer that it had, and nobody else.

use ucr_tests::{Need, Victim, needs, outside};

use super::{bring_back, take};
use crate::world;

/// A bound datagram socket.
fn bound(victim: &mut Victim, name: &[u8]) -> i32 {
    let fd = victim.socket("dgram");
    victim.bind(fd, name);
    fd
}

/// That a message sent from one socket arrives at another.
fn reaches(victim: &mut Victim, from: i32, to: i32) {
    let word = format!("from-{from}-to-{to}");
    victim.ask(&format!("send {from} {word}"));
    assert_eq!(victim.ask(&format!("recv {to}")), word);
}

/// Who has whom as peer, by descriptors.
fn peers(victim: &Victim, fds: &[i32]) -> Vec<(i32, Option<i32>)> {
    let own = outside::sockets(victim.pid());
    let peer = |fd: i32| {
        let inode = outside::seen(victim.pid(), fd).peer?;
        own.iter().find(|(_, known)| **known == inode).map(|(fd, _)| *fd)
    };
    fds.iter().map(|fd| (*fd, peer(*fd))).collect()
}

#[test]
fn each_way_of_being_connected_comes_back() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let at = |rest: &str| world.abstract_name(rest.as_bytes());
    let unbound = victim.socket("dgram");
    let autobound = victim.socket("dgram");
    victim.ask(&format!("autobind {autobound}"));
    // Many to one, by a path.
    let path = world.path_name("receiver");
    let receiver = bound(&mut victim, &path);
    let senders = [0, 1, 2].map(|_| victim.client("dgram", &path));
    // A chain: each has connected before its peer did.
    let chain = ["a", "b", "c"].map(|name| bound(&mut victim, &at(name)));
    victim.connect(chain[0], &at("b"));
    victim.connect(chain[1], &at("c"));
    // Each other, and itself.
    let mutual = ["one", "other"].map(|name| bound(&mut victim, &at(name)));
    victim.connect(mutual[0], &at("other"));
    victim.connect(mutual[1], &at("one"));
    let own = bound(&mut victim, &at("own"));
    victim.connect(own, &at("own"));
    // A name whose file is gone.
    let lost = bound(&mut victim, &world.path_name("lost"));
    let to_lost = victim.client("dgram", &world.path_name("lost"));
    std::fs::remove_file(world.path("lost")).expect("remove a socket file");

    let fds: Vec<i32> =
        [&[unbound, autobound, receiver, own, lost, to_lost][..], &senders, &chain, &mutual]
            .concat();
    let (before, name) = (peers(&victim, &fds), victim.name(autobound));
    let names: Vec<_> = fds.iter().map(|fd| victim.name(*fd)).collect();
    let mut victim = bring_back(&world, &take(&world, victim));
    assert_eq!(peers(&victim, &fds), before);
    assert_eq!(fds.iter().map(|fd| victim.name(*fd)).collect::<Vec<_>>(), names);
    assert_eq!(victim.name(autobound), name);
    assert!(!world.path("lost").exists());
    for (from, to) in &before {
        // One that has a peer hears only that one.
        let is_heard = |to: i32| {
            let hears = before.iter().find(|(fd, _)| *fd == to).and_then(|(_, peer)| *peer);
            hears.is_none_or(|peer| peer == *from)
        };
        match *to {
            Some(to) if is_heard(to) => reaches(&mut victim, *from, to),
            Some(_) => assert_eq!(victim.tell(&format!("send {from} x")), Err("EPERM".to_owned())),
            None => {}
        }
    }
    assert_eq!(victim.tell(&format!("send {unbound} x")), Err("ENOTCONN".to_owned()));
}

#[test]
fn what_is_left_of_a_pair_comes_back() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let target = bound(&mut victim, &world.abstract_name(b"target"));
    let whole = victim.pair("dgram");
    // One whose other half has turned away, one whose other half has turned to somebody else, and one
    // that is nobody's any more.
    let (left, free) = victim.pair("dgram");
    victim.ask(&format!("disconnect {free}"));
    let (still, turned) = victim.pair("dgram");
    victim.connect(turned, &world.abstract_name(b"target"));
    let (alone, gone) = victim.pair("dgram");
    victim.ask(&format!("disconnect {alone}"));
    victim.close(gone);

    // Two with names that have left each other, and come back after somebody had connected to one.
    let (back, again) = victim.pair("dgram");
    victim.bind(back, &world.abstract_name(b"back"));
    victim.bind(again, &world.abstract_name(b"again"));
    victim.ask(&format!("disconnect {back}"));
    let third = victim.client("dgram", &world.abstract_name(b"back"));
    victim.connect(back, &world.abstract_name(b"again"));

    let fds = [target, whole.0, whole.1, left, free, still, turned, alone, back, again, third];
    let before = peers(&victim, &fds);
    let who = |victim: &mut Victim| fds.map(|fd| victim.ask(&format!("peercred {fd}")));
    let ids =
        |all: [String; 11]| all.map(|who| who.split(' ').skip(1).collect::<Vec<_>>().join(" "));
    let credentials = ids(who(&mut victim));
    let mut victim = bring_back(&world, &take(&world, victim));
    assert_eq!(peers(&victim, &fds), before);
    assert_eq!(ids(who(&mut victim)), credentials);
    assert_eq!(victim.tell(&format!("send {still} x")), Err("EPERM".to_owned()));
    for (from, to) in
        [(left, free), (turned, target), whole, (whole.1, whole.0), (back, again), (again, back)]
    {
        reaches(&mut victim, from, to);
    }
}

#[test]
fn what_the_other_half_of_a_pair_had_sent_before_it_left_is_there() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let _target = bound(&mut victim, &world.abstract_name(b"target"));
    let (left, free) = victim.pair("dgram");
    let (still, turned) = victim.pair("dgram");
    victim.ask(&format!("send {free} before-it-left"));
    victim.ask(&format!("send {turned} before-it-turned"));
    victim.ask(&format!("disconnect {free}"));
    victim.connect(turned, &world.abstract_name(b"target"));
    victim.ask(&format!("send {left} afterwards"));
    let mut victim = bring_back(&world, &take(&world, victim));
    assert_eq!(victim.ask(&format!("recv {left}")), "before-it-left");
    assert_eq!(victim.ask(&format!("recv {still}")), "before-it-turned");
    assert_eq!(victim.ask(&format!("recv {free}")), "afterwards");
}

#[test]
fn a_tree_sends_across_processes_again() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut root = world.victim();
    let name = world.abstract_name(b"service");
    let service = bound(&mut root, &name);
    let mut child = root.child(&world.control());
    child.close(service);
    let client = child.client("dgram", &name);
    let saved = [root.pid(), child.pid()];
    let image = take(&world, root);
    let (mut victims, restore) = world.restore(&image, &saved);
    let (mut child, mut root) = (victims.pop().expect("two"), victims.pop().expect("two"));
    assert_eq!(outside::seen(child.pid(), client).peer, Some(root.inode(service)));
    child.ask(&format!("send {client} hello"));
    assert_eq!(root.ask(&format!("recv {service}")), "hello");
    world.keep(restore);
}

#[test]
fn what_halves_had_sent_before_they_left_is_there() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    // Both have left; one has got a name since; one has closed, without and with a name.
    let (parted, former) = victim.pair("dgram");
    victim.ask(&format!("disconnect {parted}"));
    victim.ask(&format!("send {former} parted"));
    victim.ask(&format!("disconnect {former}"));
    let (still, named) = victim.pair("dgram");
    victim.ask(&format!("send {named} still"));
    victim.bind(named, &world.abstract_name(b"named"));
    victim.ask(&format!("disconnect {named}"));
    let mut receivers = vec![(parted, "parted"), (still, "still")];
    for name in ["", "late"] {
        let (alone, gone) = victim.pair("dgram");
        victim.ask(&format!("disconnect {alone}"));
        victim.ask(&format!("send {gone} alone"));
        if !name.is_empty() {
            victim.bind(gone, &world.abstract_name(name.as_bytes()));
        }
        victim.close(gone);
        receivers.push((alone, "alone"));
    }
    let fds = [parted, former, still, named];
    let before = peers(&victim, &fds);
    let mut victim = bring_back(&world, &take(&world, victim));
    assert_eq!(peers(&victim, &fds), before);
    for (fd, text) in receivers {
        assert_eq!(victim.ask(&format!("recv {fd}")), text);
    }
    reaches(&mut victim, still, named);
}
