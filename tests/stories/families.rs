//! Sockets that are neither unix nor of UDP or TCP: netlink ones, which come back as long as nothing waits at them, and
//! those that are refused by name.

use std::{path::PathBuf, process::Command};

use nix::sched::{CloneFlags, unshare};
use ucr_tests::{Need, World, needs, perl::Perl, ucr::REFUSED, wait};

use crate::world;

/// Code that makes `$s` a netlink socket of a protocol, at a port of its own, in these groups.
fn netlink(protocol: i32, groups: u32) -> String {
    format!(
        r#"socket($s, 16, 3, {protocol}) or die $!; bind($s, pack("S S L L", 16, 0, 77000 + $$, {groups})) or die $!; fileno($s)"#
    )
}

fn image(world: &World) -> PathBuf {
    world.path("image")
}

fn dump(world: &World, victim: &Perl, more: &[&str]) -> ucr_tests::ucr::Answer {
    let (pid, image) = (victim.pid().to_string(), image(world).display().to_string());
    let mut arguments = vec!["dump", "--pid", &pid, "-o", &image];
    arguments.extend(more);
    world.ucr.run(&arguments)
}

#[test]
fn a_netlink_socket_that_waits_for_nothing_comes_back() {
    if !needs::met(&[Need::Root, Need::Program("perl"), Need::Program("ip")]) {
        return;
    }
    // Nobody else changes anything here.
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    let world = world();
    let mut victim = Perl::start();
    // Links.
    let fd = victim.number(&netlink(0, 1));
    // Also addresses of IPv6, by a group that has a number only; strict checks; a filter; not to block.
    let settings = [
        r#"setsockopt($s, 270, 1, pack("L", 9)) or die $!"#,
        r#"setsockopt($s, 270, 12, pack("L", 1)) or die $!"#,
        r#"setsockopt($s, 1, 8, pack("L", 70000)) or die $!"#,
        "use Fcntl; fcntl($s, F_SETFL, O_NONBLOCK)",
    ];
    for line in settings {
        victim.ask(line);
    }
    let name = victim.ask(r#"unpack("H*", getsockname($s))"#);
    // Nobody else can have its port as long as it lives.
    let refused = world.ucr.run(&["refresh", "--pid", &victim.pid().to_string()]);
    let _said = refused.ended(REFUSED).complains("is a netlink socket");
    let said = dump(&world, &victim, &["--kill"]).done();
    assert!(said.stdout.contains("NETLINK_ROUTE"), "{}", said.stdout);
    let pid = victim.pid();
    wait::until("the process to end", || (!wait::is_alive(pid)).then_some(()));
    let path = image(&world).display().to_string();
    let shown = world.ucr.run(&["show", "--json", &path]).done().json();
    let netlink = &shown["sockets"][0]["netlink"];
    assert_eq!(netlink["groups"], serde_json::json!([1, 9]), "{netlink}");

    let mut victim = Perl::by(world.ucr.command(&["restore", &path, "--"]));
    victim.ask(&format!(r#"open($s, "+<&=", {fd}) or die $!"#));
    assert_eq!(victim.ask(r#"unpack("H*", getsockname($s))"#), name);
    let strict = r#"unpack("L", getsockopt($s, 270, 12))"#;
    assert_eq!(victim.ask(strict), "1");
    // The kernel tells of what happens.
    assert_eq!(victim.ask(r#"defined(recv($s, $m, 4096, 0)) ? 1 : 0"#), "0");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("run ip");
    assert!(up.success());
    // RTM_NEWLINK.
    let kind = r#"recv($s, $m, 65536, 0); unpack("x4 S", $m)"#;
    wait::until("the kernel to tell of a link", || (victim.ask(kind) == "16").then_some(()));
}

#[test]
fn one_with_answers_that_wait_is_refused() {
    if !needs::met(&[Need::Root, Need::Program("perl")]) {
        return;
    }
    let world = world();
    let mut victim = Perl::start();
    victim.ask(&netlink(0, 0));
    // RTM_GETLINK of all.
    let ask = r#"send($s, pack("L S S L L C x15", 32, 18, 0x301, 1, 0, 0), 0)"#;
    assert_eq!(victim.ask(ask), "32");
    let refused = dump(&world, &victim, &[]).ended(REFUSED);
    let _said = refused.complains("what a netlink socket has not received");
    assert_eq!(victim.ask(r#"recv($s, $m, 65536, 0); length($m) > 0 ? 1 : 0"#), "1", "it goes on");
}

/// Sockets by the code that makes them, and what a dump says of them.
const STRANGERS: [(&str, &str); 8] = [
    ("socket($s, 16, 3, 12)", "a netlink socket (AF_NETLINK, raw, NETLINK_NETFILTER)"),
    ("socket($s, 2, 1, 262)", "an MPTCP socket (AF_INET, stream, protocol 262)"),
    ("socket($s, 10, 1, 132)", "an SCTP socket (AF_INET6, stream, protocol 132)"),
    ("socket($s, 2, 3, 1)", "a raw socket (AF_INET, raw, protocol 1)"),
    ("socket($s, 17, 3, 768)", "a packet socket (AF_PACKET, raw"),
    ("socket($s, 40, 1, 0)", "a vsock socket (AF_VSOCK, stream"),
    ("socket($s, 38, 5, 0)", "a socket of the crypto API (AF_ALG, seqpacket"),
    ("socket($s, 2, 2, 1)", "a ping socket (AF_INET, dgram, protocol 1)"),
];

#[test]
fn what_cannot_be_dumped_is_refused_by_name() {
    if !needs::met(&[Need::Root, Need::Program("perl")]) {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").expect("allow ping sockets");
    let world = world();
    let mut victim = Perl::start();
    let mut seen = 0;
    for (code, text) in STRANGERS {
        // Which of them there are is up to the kernel.
        match victim.ask(&format!("undef $s; {code} ? 1 : $! + 0")).as_str() {
            "1" => {
                let refused = dump(&world, &victim, &[]).ended(REFUSED);
                let _said = refused.complains(text);
                seen += 1;
            }
            errno => {
                let errno = errno.parse().expect("a number");
                let absent = [libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT, libc::ESOCKTNOSUPPORT];
                assert!(absent.contains(&errno), "{code}: {errno}");
            }
        }
    }
    // These there are everywhere.
    assert!(seen >= 3, "{seen}");
}

#[test]
fn keys_and_protocols_on_top_of_tcp_are_refused_by_name() {
    if !needs::met(&[Need::Root, Need::Program("perl")]) {
        return;
    }
    let world = world();
    let mut victim = Perl::start();
    // `struct tcp_md5sig`: an address, flags, and a key of 4 bytes.
    let signed = r#"socket($s, 2, 1, 6); setsockopt($s, 6, 14, pack("S n C4 x120 C C S L a80", 2, 0, 127, 0, 0, 1, 0, 0, 4, 0, "abcd")) ? 1 : $! + 0"#;
    let mut seen = 0;
    match victim.ask(signed).as_str() {
        "1" => {
            let refused = dump(&world, &victim, &[]).ended(REFUSED);
            let _said = refused.complains("TCP_MD5SIG or TCP_AO_ADD_KEY: keys");
            seen += 1;
        }
        errno => assert_eq!(errno, libc::ENOPROTOOPT.to_string()),
    }
    let pair = r#"undef $s; socket($l, 2, 1, 6); listen($l, 1); socket($s, 2, 1, 6); connect($s, getsockname($l)); accept($t, $l); setsockopt($s, 6, 31, "tls") ? 1 : $! + 0"#;
    match victim.ask(pair).as_str() {
        "1" => {
            let refused = dump(&world, &victim, &[]).ended(REFUSED);
            let _said = refused.complains("TCP_ULP: tls, a protocol on top of TCP");
            seen += 1;
        }
        errno => assert_eq!(errno, libc::ENOENT.to_string()),
    }
    if seen == 0 {
        needs::absent("with signed segments or TLS");
    }
}
