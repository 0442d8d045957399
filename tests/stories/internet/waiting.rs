//! Connections that a TCP listener has not accepted.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
};

use ucr_tests::{
    Need, Victim, World, needs,
    ucr::{FAILED, REFUSED},
    wait,
    world::hex,
};

use super::{bound, get, is_refused, restored, set, take, world};
use crate::dumping::dump;

/// A socket of the victim's own that is connected to its listener.
fn caller(victim: &mut Victim, kind: &str, to: &str) -> (i32, String) {
    let fd = victim.number(&format!("inet {kind}"));
    victim.ask(&format!("iconnect {fd} {to}"));
    let name = victim.ask(&format!("iname {fd}"));
    (fd, name)
}

/// How many connections wait in an image, in all.
fn waiting(world: &World, image: &std::path::Path) -> usize {
    let shown = world.ucr.run(&["show", "--json", &image.display().to_string()]).done().json();
    let sockets = shown["sockets"].as_array().expect("sockets");
    sockets.iter().filter_map(|socket| socket["inet"]["waiting"].as_array()).map(Vec::len).sum()
}

fn both_ends(kind: &str, at: &str) {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (listener, name) = bound(&mut victim, kind, at);
    victim.ask(&format!("listen {listener} 7"));
    let (silent, _) = caller(&mut victim, kind, &name);
    let (talking, _) = caller(&mut victim, kind, &name);
    let (done, _) = caller(&mut victim, kind, &name);
    let (urgent, _) = caller(&mut victim, kind, &name);
    victim.ask(&format!("send {talking} early"));
    victim.ask(&format!("send {done} last"));
    victim.ask(&format!("shutdown {done} write"));
    victim.ask(&format!("send {urgent} one"));
    victim.ask(&format!("msg send {urgent} data={} oob", hex(b"two")));
    // From now on, who has sent nothing would not wait.
    set(&mut victim, listener, libc::SOL_TCP, libc::TCP_DEFER_ACCEPT, 6);
    let deferring = get(&mut victim, listener, libc::SOL_TCP, libc::TCP_DEFER_ACCEPT);
    let callers = [silent, talking, done, urgent];
    let names = callers.map(|fd| victim.ask(&format!("iname {fd}")));
    let image = take(&world, victim);
    assert_eq!(waiting(&world, &image), callers.len());
    let mut victim = restored(&world, &image);
    assert_eq!(get(&mut victim, listener, libc::SOL_TCP, libc::TCP_DEFER_ACCEPT), deferring);
    let accepted = callers.map(|_| victim.accept(listener));
    assert_eq!(accepted.map(|fd| victim.ask(&format!("ipeer {fd}"))), names, "in their order");
    assert_eq!(callers.map(|fd| victim.ask(&format!("iname {fd}"))), names);
    let [to_silent, to_talking, to_done, to_urgent] = accepted;
    assert_eq!(victim.ask(&format!("recv {to_talking}")), "early");
    assert_eq!(victim.ask(&format!("recv {to_done}")), "last");
    assert_eq!(victim.ask(&format!("recv {to_done}")), "", "it has shut down");
    assert_eq!(victim.ask(&format!("recv {to_urgent}")), "onetw");
    for (from, to) in
        [(silent, to_silent), (to_silent, silent), (to_done, done), (talking, to_talking)]
    {
        victim.ask(&format!("send {from} on"));
        assert_eq!(victim.ask(&format!("recv {to}")), "on");
    }
}

#[test]
fn both_ends_are_in_the_image() {
    both_ends("tcp", "127.0.0.1:0");
}

#[test]
fn both_ends_are_in_the_image_over_ipv6() {
    both_ends("tcp6", "[::1]:0");
}

#[test]
fn both_ends_are_in_the_image_over_ipv4_by_sockets_of_ipv6() {
    both_ends("tcp6", "[::ffff:127.0.0.1]:0");
}

#[test]
fn they_wait_at_the_same_one_of_those_that_share_a_port() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let sharing = |victim: &mut Victim, at: &str| {
        let fd = victim.number("inet tcp");
        set(victim, fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
        victim.ask(&format!("ibind {fd} {at}"));
        victim.ask(&format!("listen {fd} 20"));
        fd
    };
    let first = sharing(&mut victim, "127.0.0.1:0");
    let name = victim.ask(&format!("iname {first}"));
    let group = [first, sharing(&mut victim, &name), sharing(&mut victim, &name)];
    for _ in 0..12 {
        caller(&mut victim, "tcp", &name);
    }
    // Which one accepts which of them, the kernel has chosen by their ports.
    let listing = |shown: &serde_json::Value| {
        let waiting = |socket: &serde_json::Value| {
            let all = socket["inet"]["waiting"].as_array().expect("a list");
            all.iter().map(|one| one["client"].as_u64().expect("an index")).collect::<Vec<_>>()
        };
        let sockets = shown["sockets"].as_array().expect("sockets");
        sockets.iter().map(waiting).collect::<Vec<_>>()
    };
    let show = |image: &std::path::Path| {
        world.ucr.run(&["show", "--json", &image.display().to_string()]).done().json()
    };
    let image = take(&world, victim);
    let before = listing(&show(&image));
    assert!(before.iter().filter(|waiting| !waiting.is_empty()).count() > 1, "{before:?}");
    let victim = restored(&world, &image);
    let again = world.path("again");
    let _written = dump(&world, &victim, &again, &[]).done();
    assert_eq!(listing(&show(&again)), before, "of {group:?}");
}

/// Whatever an image says: only who listens in it is called.
#[test]
fn an_image_that_would_call_somebody_else_is_refused() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (listener, name) = bound(&mut victim, "tcp", "0.0.0.0:0");
    victim.ask(&format!("listen {listener} 7"));
    let port = name.rsplit(':').next().expect("a port").to_owned();
    caller(&mut victim, "tcp", &format!("127.0.0.1:{port}"));
    let path = take(&world, victim);
    let mut image = ucr::image::file::read(&path).expect("the image");
    let mut all = image.sockets.iter_mut().filter_map(|socket| socket.inet.as_mut());
    let client = all.find(|inet| inet.tcp.is_some()).expect("the client");
    client.remote.as_mut().expect("an address").address = "192.0.2.1".parse().expect("an address");
    let forged = world.path("forged");
    ucr::image::file::write(&forged, &image).expect("write");
    let forged = forged.display().to_string();
    let failed = world.ucr.run(&["restore", &forged, "--", "true"]).ended(FAILED);
    let _said = failed.complains("its address is not of this host");
}

#[test]
fn one_from_outside_is_refused_and_still_waits() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (listener, name) = bound(&mut victim, "tcp", "127.0.0.1:0");
    victim.ask(&format!("listen {listener} 7"));
    let mut client = TcpStream::connect(&name).expect("connect");
    let own = client.local_addr().expect("its address");
    is_refused(&world, &victim, &format!("it has not accepted a connection from {own}"));
    let refused = dump(&world, &victim, &world.path("refused"), &[]).ended(REFUSED);
    let _said = refused.complains(&format!("--external {own}=dangling"));
    let accepted = victim.accept(listener);
    client.write_all(b"hello").expect("write");
    assert_eq!(victim.ask(&format!("recv {accepted}")), "hello");
}

#[test]
fn one_from_outside_is_left_out_if_that_is_wanted() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (listener, name) = bound(&mut victim, "tcp", "127.0.0.1:0");
    victim.ask(&format!("listen {listener} 7"));
    let mut client = TcpStream::connect(&name).expect("connect");
    client.set_read_timeout(Some(wait::patience())).expect("not for ever");
    let (own, inside) =
        (client.local_addr().expect("its address"), caller(&mut victim, "tcp", &name));
    let image = world.path("image");
    let (rule, more) = (format!("{own}=dangling"), "--external");
    let said = dump(&world, &victim, &image, &["--tree", "--kill", more, &rule]).done();
    let _said = said.complains(&format!("left out (--external): the connection from {own}"));
    let _status = victim.ended();
    let error = client.read(&mut [0]).expect_err("nobody has accepted it");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let mut victim = restored(&world, &image);
    let accepted = victim.accept(listener);
    assert_eq!(victim.ask(&format!("ipeer {accepted}")), inside.1);
}
