//! Many sockets with one port, and many with one address: SO_REUSEPORT, SO_REUSEADDR, multicast.

use std::net::UdpSocket;

use ucr_tests::{Need, needs, world::hex};

use super::{anew, bound, bring_back, is_refused, receive, restored, set, take, world};

#[test]
fn who_shares_a_port_keeps_place_and_queue() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for (kind, at) in [("udp", "127.0.0.1:0"), ("udp6", "[::1]:0")] {
        let world = world();
        let mut victim = world.victim();
        let sharing = |victim: &mut ucr_tests::Victim, at: &str| {
            let fd = victim.number(&format!("inet {kind}"));
            set(victim, fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
            victim.ask(&format!("ibind {fd} {at}"));
            fd
        };
        let first = sharing(&mut victim, at);
        let name = victim.ask(&format!("iname {first}"));
        let mut group = vec![first];
        group.extend([0; 3].map(|_| sharing(&mut victim, &name)));
        // The numbers of the descriptors are not their order.
        victim.ask(&format!("dup {first} 99"));
        victim.close(first);
        group[0] = 99;
        // The kernel chooses by the sender's port.
        let senders: Vec<_> = (0..40).map(|_| UdpSocket::bind(at).expect("a sender")).collect();
        for (number, sender) in senders.iter().enumerate() {
            sender.send_to(format!("{number}").as_bytes(), &name).expect("send");
        }
        let mut victim = bring_back(&world, &take(&world, victim));
        // Whoever sends to the group is heard by the one that had heard it.
        for (number, sender) in senders.iter().enumerate() {
            sender.send_to(format!("again {number}").as_bytes(), &name).expect("send");
        }
        let mut heard = 0;
        for fd in group {
            victim.ask(&format!("nonblock {fd}"));
            let mut all = Vec::new();
            while let Ok(answer) = victim.tell(&format!("irecv {fd}")) {
                all.push(answer.split_once(' ').expect("sender and data").1.to_owned());
            }
            let (before, after) = all.split_at(all.len() / 2);
            let plain = |text: &String| {
                let bytes = ucr_tests::world::unhex(text).expect("hexadecimal");
                String::from_utf8(bytes).expect("text").replace("again ", "")
            };
            let (before, after): (Vec<_>, Vec<_>) =
                (before.iter().map(plain).collect(), after.iter().map(plain).collect());
            assert_eq!(before, after, "of descriptor {fd}");
            heard += after.len();
        }
        assert_eq!(heard, senders.len());
    }
}

#[test]
fn a_program_that_chooses_is_refused_by_name() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let fd = victim.number("inet udp");
    set(&mut victim, fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
    victim.ask(&format!("ibind {fd} 127.0.0.1:0"));
    victim.ask(&format!("ichoose {fd} 0"));
    is_refused(&world, &victim, "SO_ATTACH_REUSEPORT_CBPF");
}

#[test]
fn who_uses_an_address_again_is_not_in_the_way() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let mut name = "127.0.0.1:0".to_owned();
    let mut all = Vec::new();
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a sender");
    for number in 0..3 {
        let fd = victim.number("inet udp");
        set(&mut victim, fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
        victim.ask(&format!("ibind {fd} {name}"));
        name = victim.ask(&format!("iname {fd}"));
        // Whoever came last gets it.
        sender.send_to(format!("{number}").as_bytes(), &name).expect("send");
        all.push(fd);
    }
    let mut victim = bring_back(&world, &take(&world, victim));
    for (number, fd) in all.into_iter().enumerate() {
        assert_eq!(receive(&mut victim, fd).1, hex(format!("{number}").as_bytes()));
    }
}

/// Of those that were bound to one address the last one gets what comes, whatever their descriptors.
#[test]
fn the_last_one_bound_is_the_last_one_again() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    let all = [(); 3].map(|()| victim.number("inet udp"));
    let [last, first, second] = all;
    let mut name = "127.0.0.1:0".to_owned();
    for fd in [first, second, last] {
        set(&mut victim, fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
        victim.ask(&format!("ibind {fd} {name}"));
        name = victim.ask(&format!("iname {fd}"));
    }
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a sender");
    sender.send_to(b"before", &name).expect("send");
    let mut victim = restored(&world, &take(&world, victim));
    sender.send_to(b"after", &name).expect("send");
    for data in ["before", "after"] {
        assert_eq!(receive(&mut victim, last).1, hex(data.as_bytes()));
    }
    // And the one before it when it has gone.
    victim.close(last);
    sender.send_to(b"then", &name).expect("send");
    assert_eq!(receive(&mut victim, second).1, hex(b"then"));
}

#[test]
fn multicast_groups_come_back_with_their_sources() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (four, name) = bound(&mut victim, "udp", "0.0.0.0:0");
    let (six, _) = bound(&mut victim, "udp6", "[::]:0");
    // The loopback interface is number 1 in every namespace.
    for order in [
        format!("ijoin {four} 239.77.0.1 1"),
        format!("ijoin {four} 232.77.0.2 1 127.0.0.1"),
        format!("ijoin {four} 232.77.0.2 1 127.0.0.2"),
        format!("ijoin {four} 239.77.0.3 1"),
        format!("iblock {four} 239.77.0.3 1 127.0.0.9"),
        format!("ijoin {six} ff01::77:1 1"),
        format!("ijoin {six} ff31::77:2 1 ::1"),
        format!("ijoin {six} 239.77.0.4 1"),
    ] {
        victim.ask(&order);
    }
    // By its interface, which no question tells (`struct ip_mreqn`).
    let interface = [&[0; 8], &1_i32.to_ne_bytes()[..]].concat();
    let (level, option) = (libc::SOL_IP, libc::IP_MULTICAST_IF);
    victim.ask(&format!("iset {four} {level} {option} {}", hex(&interface)));
    set(&mut victim, six, libc::SOL_IPV6, libc::IPV6_MULTICAST_IF, 1);
    let port = name.rsplit(':').next().expect("a port").to_owned();
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a sender");
    // To one group, before and after.
    let via = std::net::Ipv4Addr::LOCALHOST;
    let raw = rustix::net::sockopt::set_ip_multicast_if(&sender, &via);
    raw.expect("send by the loopback interface");
    sender.send_to(b"before", format!("239.77.0.1:{port}")).expect("send");

    let mut victim = anew(&world, victim);
    sender.send_to(b"after", format!("232.77.0.2:{port}")).expect("send");
    let from = sender.local_addr().expect("its address").to_string();
    for word in ["before", "after"] {
        assert_eq!(receive(&mut victim, four), (from.clone(), hex(word.as_bytes())));
    }
}

#[test]
fn whoever_shares_a_port_outside_is_left_alone() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (mut victim, mut other) = (world.victim(), world.victim());
    let sharing = |victim: &mut ucr_tests::Victim, at: &str| {
        let fd = victim.number("inet udp");
        set(victim, fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
        victim.ask(&format!("ibind {fd} {at}"));
        fd
    };
    let own = sharing(&mut victim, "127.0.0.1:0");
    let name = victim.ask(&format!("iname {own}"));
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a sender");
    sender.send_to(b"waits", &name).expect("send");
    let image = take(&world, victim);
    let fd = sharing(&mut other, &name);
    let refused = world.ucr.run(&["restore", &image.display().to_string(), "--", "true"]);
    refused.ended(ucr_tests::ucr::FAILED).complains("processes outside share this address");
    sender.send_to(b"for the other", &name).expect("send");
    assert_eq!(receive(&mut other, fd).1, hex(b"for the other"));
}
