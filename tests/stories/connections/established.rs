//! Both directions are open.

use std::io::Write as _;

use super::{Scene, Way, can, pattern};

/// Both ends write until nothing fits in, and read only when the dumped one is another process.
fn full(way: Way) {
    if !can() {
        return;
    }
    let mut scene = Scene::new(way);
    let (sent, received) = (scene.fill(), scene.fill_victim());
    scene.dump_and_kill();
    let shown = scene.shown();
    assert_eq!(shown["state"], "established");
    assert!(shown["unsent"].as_u64().is_some_and(|unsent| unsent > 0), "{}", shown["unsent"]);
    scene.asks_in_vain();
    assert!(!scene.has_noticed());

    scene.restore();
    assert!(scene.victim_reads(received));
    // Then there is room for more.
    assert!(scene.read(sent) == pattern(sent));
    scene.victim_writes("and on");
    assert_eq!(scene.read(6), b"and on");
    scene.remote.write_all(&pattern(1000)).expect("write");
    assert!(scene.victim_reads(1000));
    assert!(!scene.has_noticed());
}

#[test]
fn full_queues_over_ipv4() {
    full(Way::Four);
}

#[test]
fn full_queues_over_ipv6() {
    full(Way::Six);
}

#[test]
fn full_queues_over_ipv4_by_a_socket_of_ipv6() {
    full(Way::Mapped);
}

#[test]
fn one_that_goes_on_is_as_before() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Four);
    scene.victim.ask("setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1)");
    scene.victim_writes("one");
    scene.dump(&[]).done();
    scene.victim_writes("two");
    assert_eq!(scene.read(6), b"onetwo");
    // Repair mode would have made it forget this.
    assert_eq!(scene.victim.ask(r#"unpack("i", getsockopt($s, SOL_SOCKET, SO_REUSEADDR))"#), "1");
    scene.remote.write_all(&pattern(5000)).expect("write");
    assert!(scene.victim_reads(5000));
}

#[test]
fn its_options_come_back() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Four);
    for code in [
        "setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1)",
        "setsockopt($s, SOL_SOCKET, SO_KEEPALIVE, 1)",
        "setsockopt($s, Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1)",
        "setsockopt($s, Socket::IPPROTO_TCP, Socket::TCP_KEEPIDLE, 77)",
        "setsockopt($s, Socket::IPPROTO_TCP, Socket::TCP_CORK, 1)",
        "setsockopt($s, Socket::IPPROTO_TCP, Socket::TCP_QUICKACK, 0)",
        "setsockopt($s, SOL_SOCKET, SO_RCVBUF, 50000)",
    ] {
        assert_eq!(scene.victim.ask(code), "1");
    }
    scene.dump_and_kill();
    scene.restore();
    for (option, value) in [
        ("SOL_SOCKET, SO_REUSEADDR", "1"),
        ("SOL_SOCKET, SO_KEEPALIVE", "1"),
        ("Socket::IPPROTO_TCP, Socket::TCP_NODELAY", "1"),
        ("Socket::IPPROTO_TCP, Socket::TCP_KEEPIDLE", "77"),
        ("Socket::IPPROTO_TCP, Socket::TCP_CORK", "1"),
        ("Socket::IPPROTO_TCP, Socket::TCP_QUICKACK", "0"),
        ("SOL_SOCKET, SO_RCVBUF", "100000"),
    ] {
        let found = scene.victim.ask(&format!(r#"unpack("i", getsockopt($s, {option}))"#));
        assert_eq!(found, value, "{option}");
    }
    scene.victim.ask("setsockopt($s, Socket::IPPROTO_TCP, Socket::TCP_CORK, 0)");
    scene.victim_writes("well");
    assert_eq!(scene.read(4), b"well");
}

#[test]
fn both_ends_in_one_image() {
    if !can() {
        return;
    }
    let mut scene = Scene::new(Way::Four);
    // The perl talks to itself.
    for code in [
        "socket($l, AF_INET, SOCK_STREAM, 0); bind($l, pack_sockaddr_in(0, INADDR_LOOPBACK)); listen($l, 1)",
        "socket($b, AF_INET, SOCK_STREAM, 0); connect($b, getsockname($l)); accept($c, $l); 1",
        r#"syswrite($b, "there"); syswrite($c, "back")"#,
    ] {
        scene.victim.ask(code);
    }
    let numbers = scene.victim.ask("join(' ', fileno($b), fileno($c))");
    scene.dump_and_kill();
    scene.restore();
    let (b, c) = numbers.split_once(' ').expect("two");
    scene.victim.ask(&format!(r#"open($b, "+<&=", {b}); open($c, "+<&=", {c})"#));
    let read = |from: &str| format!("sysread({from}, $q, 100); $q");
    assert_eq!(scene.victim.ask(&read("$c")), "there");
    assert_eq!(scene.victim.ask(&read("$b")), "back");
    scene.victim.ask(r#"syswrite($b, "again")"#);
    assert_eq!(scene.victim.ask(&read("$c")), "again");
}
