//! What event polls watch, in all the ways that there are.

use ucr_tests::{Need, needs, outside, ucr::REFUSED};

use super::{number, refresh};
use crate::world;

/// `EPOLLIN`, alone and with `EPOLLET`, `EPOLLONESHOT`, `EPOLLEXCLUSIVE`, `EPOLLET | EPOLLONESHOT`.
const KINDS: [u32; 5] = [1, 1 | 1 << 31, 1 | 1 << 30, 1 | 1 << 28, 1 | 0b11 << 30];

#[test]
fn they_watch_the_new_sockets_as_they_did_the_old_ones() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let (first, second, outer) =
        (victim.number("epoll"), victim.number("epoll"), victim.number("epoll"));
    let mut watched = Vec::new();
    for (at, events) in KINDS.iter().enumerate() {
        let (from, to) = victim.pair("stream");
        let data = format!("fedcba987654321{at:x}");
        victim.ask(&format!("watch {first} {to} {events:x} {data}"));
        watched.push((from, to, data));
    }
    // One of them in another one as well, which says something else.
    let shared = watched[0].1;
    victim.ask(&format!("watch {second} {shared} 80000005 2"));
    // And one that watches the others.
    victim.ask(&format!("watch {outer} {first} 1 3"));
    victim.ask(&format!("watch {outer} {second} 1 4"));
    // A number of its own for the same socket is a registration of its own.
    let again = victim.number(&format!("getfd {} {shared}", victim.pid()));
    victim.ask(&format!("watch {first} {again} 1 5"));
    // What a socket can always do, has been told: an edge is not told again.
    assert_eq!(victim.ask(&format!("await {second} 0")), "2:4");

    let (registrations, sockets) =
        (outside::registrations(victim.pid()), outside::sockets(victim.pid()));
    assert_eq!(registrations.len(), KINDS.len() + 4);
    for _ in 0..3 {
        let report = refresh(&world, victim.pid());
        assert_eq!(number(&report, "registrations"), KINDS.len() + 2, "{report:#}");
        assert_eq!(outside::registrations(victim.pid()), registrations);
        let now = outside::sockets(victim.pid());
        assert!(sockets.iter().all(|(fd, inode)| now.get(fd).is_some_and(|new| new != inode)));
        assert_eq!(now.get(&shared), now.get(&again));
    }

    assert_eq!(victim.ask(&format!("await {first} 0")), "");
    for (from, to, data) in &watched {
        victim.ask(&format!("send {from} something"));
        let mut expected = format!("{data}:1");
        if *to == shared {
            assert_eq!(victim.ask(&format!("await {outer} 0")), "3:1 4:1");
            // By its other number, too.
            expected = format!("5:1 {expected}");
            assert_eq!(victim.ask(&format!("await {second} 0")), "2:5");
        } else {
            assert_eq!(victim.ask(&format!("await {outer} 0")), "3:1");
        }
        assert_eq!(victim.ask(&format!("await {first} 0")), expected);
        assert_eq!(victim.ask(&format!("recv {to}")), "something");
        assert_eq!(victim.ask(&format!("await {first} 0")), "");
    }
    // Who was to be told once has been told.
    for (at, is_told) in [(1, true), (2, false), (4, false)] {
        let (from, to, data) = &watched[at];
        victim.ask(&format!("send {from} more"));
        let expected = if is_told { format!("{data}:1") } else { String::new() };
        assert_eq!(victim.ask(&format!("await {first} 0")), expected);
        assert_eq!(victim.ask(&format!("recv {to}")), "more");
    }
}

#[test]
fn one_that_has_told_once_is_refused_until_it_is_armed_again() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let (from, to) = victim.pair("stream");
    let epoll = victim.number("epoll");
    victim.ask(&format!("watch {epoll} {to} 40000001 7"));
    victim.ask(&format!("send {from} something"));
    assert_eq!(victim.ask(&format!("await {epoll} 0")), "7:1");
    let (registrations, sockets) =
        (outside::registrations(victim.pid()), outside::sockets(victim.pid()));
    let pid = victim.pid().to_string();
    let refused = world.ucr.run(&["refresh", "--pid", &pid]).ended(REFUSED);
    let _named = refused
        .complains(&format!("event poll {epoll} of process {pid} has told once of descriptor {to}"))
        .complains("EPOLLONESHOT");
    assert_eq!(outside::registrations(victim.pid()), registrations);
    assert_eq!(outside::sockets(victim.pid()), sockets);

    victim.ask(&format!("rearm {epoll} {to} 40000001 8"));
    let report = refresh(&world, victim.pid());
    assert_eq!(number(&report, "replaced"), 2, "{report:#}");
    // What has waited since before is told of through the new one.
    assert_eq!(victim.ask(&format!("await {epoll} 0")), "8:1");
    assert_eq!(victim.ask(&format!("recv {to}")), "something");
}
