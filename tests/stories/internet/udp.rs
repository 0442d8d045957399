//! UDP sockets: what waits in them comes back with its senders.

use std::net::UdpSocket;

use ucr_tests::{Need, Storm, needs, world::hex};

use super::{anew, bound, get, is_refused, receive, send, set, take, world};

/// A kind of receiver and where it is bound; by which address it is called; and by whom.
const LOOPBACK: [(&str, &str, &str, &str); 3] = [
    ("udp", "127.0.0.1:0", "127.0.0.1", "127.0.0.2:0"),
    ("udp6", "[::1]:0", "[::1]", "[::1]:0"),
    // One that hears both, and a sender of the other kind.
    ("udp6", "[::]:0", "127.0.0.1", "127.0.0.3:0"),
];

#[test]
fn what_waits_comes_back_in_order_with_its_senders() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for (kind, at, host, from) in LOOPBACK {
        let world = world();
        let mut victim = world.victim();
        let (receiver, name) = bound(&mut victim, kind, at);
        let port = name.rsplit(':').next().expect("a port").to_owned();
        let to = format!("{host}:{port}");
        let senders = [0, 1].map(|_| UdpSocket::bind(from).expect("a sender"));
        // One is longer than a packet may be on most links, one has nothing in it, one fills many pages.
        let messages: [&[u8]; 5] = [b"one", b"", &[7; 3_000], &[9; 60_000], b"\0\xff\n"];
        for (number, message) in messages.iter().enumerate() {
            senders[number % 2].send_to(message, &to).expect("send");
        }
        let mut victim = anew(&world, victim);
        for (number, message) in messages.iter().enumerate() {
            let (sender, data) = receive(&mut victim, receiver);
            assert_eq!(data, hex(message), "message {number} to {at}");
            let expected = senders[number % 2].local_addr().expect("its address").to_string();
            let mapped = format!("[::ffff:{}", expected.replacen(':', "]:", 1));
            assert!(sender == expected || sender == mapped, "{sender} is not {expected}");
        }
        // And it is the same socket to everybody.
        assert_eq!(victim.ask(&format!("iname {receiver}")), name);
        senders[0].send_to(b"still here", &to).expect("send");
        assert_eq!(receive(&mut victim, receiver).1, hex(b"still here"));
    }
}

#[test]
fn whoever_is_connected_hears_its_peer_alone() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (peer, stranger) = (
        UdpSocket::bind("127.0.0.1:0").expect("a peer"),
        UdpSocket::bind("127.0.0.1:0").expect("another one"),
    );
    let to = peer.local_addr().expect("its address").to_string();
    let connected = victim.number("inet udp");
    let (_unbound, (half, _)) =
        (victim.number("inet udp6"), bound(&mut victim, "udp", "0.0.0.0:0"));
    // Somebody had sent before it was connected.
    victim.ask(&format!("ibind {connected} 127.0.0.1:0"));
    let name = victim.ask(&format!("iname {connected}"));
    stranger.send_to(b"early", &name).expect("send");
    victim.ask(&format!("iconnect {connected} {to}"));
    peer.send_to(b"hello", &name).expect("send");
    victim.ask(&format!("iconnect {half} {to}"));
    victim.ask(&format!("shutdown {half} read"));

    let mut victim = anew(&world, victim);
    assert_eq!(victim.ask(&format!("ipeer {connected}")), to);
    stranger.send_to(b"unheard", &name).expect("send");
    peer.send_to(b"again", &name).expect("send");
    for (from, data) in [(&stranger, &b"early"[..]), (&peer, b"hello"), (&peer, b"again")] {
        let from = from.local_addr().expect("its address").to_string();
        assert_eq!(receive(&mut victim, connected), (from, hex(data)));
    }
    victim.ask(&format!("send {connected} answer"));
    let mut buffer = [0; 16];
    let (length, from) = peer.recv_from(&mut buffer).expect("an answer");
    assert_eq!((&buffer[..length], from.to_string()), (&b"answer"[..], name));
}

#[test]
fn whoever_is_connected_over_ipv6_or_in_its_clothes_still_is_and_what_is_shut_down_too() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for (peer, local) in [("[::1]:0", "[::1]:0"), ("127.0.0.1:0", "[::ffff:127.0.0.1]:0")] {
        let world = world();
        let mut victim = world.victim();
        let peer = UdpSocket::bind(peer).expect("a peer");
        let to = peer.local_addr().expect("its address").to_string();
        let to = to.replace("127.0.0.1", "[::ffff:127.0.0.1]");
        let ends = ["none", "write", "both"].map(|how| {
            let (fd, name) = bound(&mut victim, "udp6", local);
            victim.ask(&format!("iconnect {fd} {to}"));
            if how != "none" {
                victim.ask(&format!("shutdown {fd} {how}"));
            }
            (fd, name.replace("[::ffff:127.0.0.1]", "127.0.0.1"))
        });
        let [(open, name), (mute, _), (shut, _)] = &ends;
        peer.send_to(b"before", name).expect("send");

        let mut victim = anew(&world, victim);
        for (fd, _) in &ends {
            assert_eq!(victim.ask(&format!("ipeer {fd}")), to);
        }
        assert_eq!(receive(&mut victim, *open).1, hex(b"before"));
        victim.ask(&format!("send {open} after"));
        let mut buffer = [0; 16];
        let (length, from) = peer.recv_from(&mut buffer).expect("what is sent");
        assert_eq!((&buffer[..length], &from.to_string()), (&b"after"[..], name));
        for fd in [mute, shut] {
            let refused = victim.tell(&format!("send {fd} more"));
            assert!(refused.is_err_and(|error| error.contains("EPIPE")));
        }
    }
}

#[test]
fn a_datagram_that_is_not_finished_is_finished_afterwards() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for (kind, at) in [("udp", "127.0.0.1:0"), ("udp6", "[::1]:0"), ("udp6", "[::]:0")] {
        let world = world();
        let mut victim = world.victim();
        let receiver = UdpSocket::bind(at.replace("[::]", "127.0.0.1")).expect("a receiver");
        let to = receiver.local_addr().expect("its address").to_string();
        let to = if at.starts_with("[::]") {
            to.replacen("127.0.0.1", "[::ffff:127.0.0.1]", 1)
        } else {
            to
        };
        let (corked, _) = bound(&mut victim, kind, at);
        let (told, _) = bound(&mut victim, kind, at);
        set(&mut victim, corked, libc::SOL_UDP, libc::UDP_CORK, 1);
        let parts: [&[u8]; 3] = [b"a beginning, ", &[b'm'; 20_000], b", more"];
        parts.iter().for_each(|part| send(&mut victim, corked, &to, part));
        victim.ask(&format!("imore {told} {to} {}", hex(b"first ")));

        let mut victim = anew(&world, victim);
        send(&mut victim, corked, &to, b", and an end");
        set(&mut victim, corked, libc::SOL_UDP, libc::UDP_CORK, 0);
        send(&mut victim, told, &to, b"and last");
        let mut buffer = vec![0; 65_536];
        for expected in
            [[parts[0], parts[1], parts[2], b", and an end"].concat(), b"first and last".to_vec()]
        {
            let length = receiver.recv(&mut buffer).expect("the whole");
            assert_eq!(buffer[..length], expected, "from {kind} at {at}");
        }
    }
}

#[test]
fn options_of_every_level_come_back() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (four, _) = bound(&mut victim, "udp", "127.0.0.1:0");
    let (six, _) = bound(&mut victim, "udp6", "[::1]:0");
    let options = [
        (four, libc::SOL_SOCKET, libc::SO_BROADCAST, 1),
        (four, libc::SOL_SOCKET, libc::SO_RCVBUF, 50_000),
        (four, libc::SOL_IP, libc::IP_TOS, 0x10),
        (four, libc::SOL_IP, libc::IP_TTL, 9),
        (four, libc::SOL_IP, libc::IP_PKTINFO, 1),
        (four, libc::SOL_IP, libc::IP_RECVERR, 1),
        (four, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        (four, libc::SOL_IP, libc::IP_MULTICAST_TTL, 5),
        (four, libc::SOL_IP, libc::IP_MULTICAST_LOOP, 0),
        (four, libc::SOL_IP, libc::IP_MULTICAST_ALL, 0),
        (four, libc::SOL_UDP, libc::UDP_SEGMENT, 1200),
        (four, libc::SOL_UDP, libc::UDP_GRO, 1),
        (six, libc::SOL_IPV6, libc::IPV6_UNICAST_HOPS, 7),
        (six, libc::SOL_IPV6, libc::IPV6_MULTICAST_HOPS, 3),
        (six, libc::SOL_IPV6, libc::IPV6_MULTICAST_LOOP, 0),
        (six, libc::SOL_IPV6, libc::IPV6_TCLASS, 0x20),
        (six, libc::SOL_IPV6, libc::IPV6_RECVPKTINFO, 1),
        (six, libc::SOL_IPV6, libc::IPV6_RECVERR, 1),
        (six, libc::SOL_IPV6, libc::IPV6_DONTFRAG, 1),
        (six, libc::SOL_IP, libc::IP_TTL, 44),
    ];
    for (fd, level, option, value) in options {
        set(&mut victim, fd, level, option, value);
    }
    let values = |victim: &mut ucr_tests::Victim| {
        options.map(|(fd, level, option, _)| get(victim, fd, level, option))
    };
    let before = values(&mut victim);
    let mut victim = anew(&world, victim);
    assert_eq!(values(&mut victim), before);
}

#[test]
fn what_came_as_one_comes_back_as_what_it_was() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (receiver, name) = bound(&mut victim, "udp", "127.0.0.1:0");
    set(&mut victim, receiver, libc::SOL_UDP, libc::UDP_GRO, 1);
    let (sender, _) = bound(&mut victim, "udp", "127.0.0.1:0");
    set(&mut victim, sender, libc::SOL_UDP, libc::UDP_SEGMENT, 1_000);
    // Over loopback it is never taken apart.
    let parts = [[b'a'; 1_000], [b'b'; 1_000]];
    send(&mut victim, sender, &name, &[&parts.concat()[..], b"end"].concat());
    let mut victim = anew(&world, victim);
    for part in [&parts[0][..], &parts[1], b"end"] {
        assert_eq!(receive(&mut victim, receiver).1, hex(part));
    }
}

#[test]
fn what_is_bound_to_a_device_gets_what_it_had_by_that_device() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for (kind, at, host, from) in LOOPBACK {
        let world = world();
        let mut victim = world.victim();
        let receiver = victim.number(&format!("inet {kind}"));
        // SO_BINDTOIFINDEX: the loopback interface is number 1 in every namespace.
        set(&mut victim, receiver, libc::SOL_SOCKET, 62, 1);
        victim.ask(&format!("ibind {receiver} {at}"));
        let name = victim.ask(&format!("iname {receiver}"));
        let port = name.rsplit(':').next().expect("a port").to_owned();
        let sender = UdpSocket::bind(from).expect("a sender");
        let to = format!("{host}:{port}");
        sender.send_to(b"by the device", to).expect("send");
        let mut victim = anew(&world, victim);
        assert_eq!(receive(&mut victim, receiver).1, hex(b"by the device"));
    }
}

#[test]
fn udp_lite_is_told_from_udp() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    if let Err(why) = victim.tell("inet udplite") {
        assert_eq!(why, "EPROTONOSUPPORT");
        return needs::absent("UDP-Lite");
    }
    for (kind, at) in [("udplite", "127.0.0.1:0"), ("udplite6", "[::1]:0")] {
        let mut victim = world.victim();
        let (receiver, name) = bound(&mut victim, kind, at);
        // UDPLITE_SEND_CSCOV: the checksum covers the header alone.
        set(&mut victim, receiver, libc::SOL_UDP, 10, 8);
        send(&mut victim, receiver, &name, b"to myself");
        let mut victim = anew(&world, victim);
        assert_eq!(receive(&mut victim, receiver), (name, hex(b"to myself")));
        assert_eq!(get(&mut victim, receiver, libc::SOL_UDP, 10), hex(&8_i32.to_ne_bytes()));
        world.end_restored();
    }
}

#[test]
fn errors_that_wait_are_refused_by_name() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let nobody = {
        let gone = UdpSocket::bind("127.0.0.1:0").expect("a port");
        gone.local_addr().expect("its address").to_string()
    };
    let mut victim = world.victim();
    let (fd, _) = bound(&mut victim, "udp", "127.0.0.1:0");
    victim.ask(&format!("iconnect {fd} {nobody}"));
    victim.ask(&format!("send {fd} x"));
    is_refused(&world, &victim, "SO_ERROR");
    // The dump has not taken it away.
    assert_eq!(victim.ask(&format!("error {fd}")), libc::ECONNREFUSED.to_string());
    set(&mut victim, fd, libc::SOL_IP, libc::IP_RECVERR, 1);
    victim.ask(&format!("send {fd} x"));
    victim.ask(&format!("error {fd}"));
    is_refused(&world, &victim, "MSG_ERRQUEUE");
}

#[test]
fn under_traffic_nothing_is_lost_that_was_in_the_queue() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (receiver, name) = bound(&mut victim, "udp", "127.0.0.1:0");
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a sender");
    sender.connect(&name).expect("connect");
    for number in 0..100_u32 {
        sender.send(&number.to_be_bytes()).expect("send");
    }
    let storm = Storm::of(100, move |number| drop(sender.send(&number.to_be_bytes())));
    let image = take(&world, victim);
    let (mut victims, restore) = world.restore(&image, &[0]);
    assert!(restore.complaint().contains("verified: 0 differences"), "{}", restore.complaint());
    world.keep(restore);
    let mut victim = victims.pop().expect("one victim");
    let mut next = || u32::from_str_radix(&receive(&mut victim, receiver).1, 16).expect("a number");
    for number in 0..100 {
        assert_eq!(next(), number);
    }
    // What comes now goes on from somewhere.
    let later = [next(), next()];
    assert!(later[0] >= 100 && later[1] == later[0] + 1, "{later:?}");
    drop(storm);
}
