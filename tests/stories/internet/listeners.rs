//! TCP listeners.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use ucr_tests::{Need, needs, ucr::REFUSED, world::hex};

use super::{anew, bound, get, set, take, world};

#[test]
fn listeners_come_back_with_what_decides_whom_they_hear() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (four, name) = bound(&mut victim, "tcp", "127.0.0.1:0");
    let (dual, dual_name) = bound(&mut victim, "tcp6", "[::]:0");
    let six = victim.number("inet tcp6");
    set(&mut victim, six, libc::SOL_IPV6, libc::IPV6_V6ONLY, 1);
    victim.ask(&format!("ibind {six} [::]:0"));
    // Addresses that this host does not have.
    let (free, transparent) = (victim.number("inet tcp"), victim.number("inet tcp"));
    set(&mut victim, free, libc::SOL_IP, libc::IP_FREEBIND, 1);
    victim.ask(&format!("ibind {free} 192.0.2.1:0"));
    set(&mut victim, transparent, libc::SOL_IP, libc::IP_TRANSPARENT, 1);
    victim.ask(&format!("ibind {transparent} 192.0.2.2:0"));
    for (number, fd) in [four, dual, six, free, transparent].into_iter().enumerate() {
        victim.ask(&format!("listen {fd} {}", number + 7));
    }
    let options = [
        (four, libc::SOL_TCP, libc::TCP_DEFER_ACCEPT, 6),
        (four, libc::SOL_TCP, libc::TCP_FASTOPEN, 5),
        (four, libc::SOL_TCP, libc::TCP_USER_TIMEOUT, 12_345),
        (four, libc::SOL_TCP, libc::TCP_KEEPIDLE, 77),
        (four, libc::SOL_TCP, libc::TCP_KEEPINTVL, 7),
        (four, libc::SOL_TCP, libc::TCP_KEEPCNT, 3),
        (four, libc::SOL_TCP, libc::TCP_NODELAY, 1),
        (four, libc::SOL_TCP, libc::TCP_NOTSENT_LOWAT, 9_999),
        (four, libc::SOL_TCP, libc::TCP_MAXSEG, 1_000),
        (four, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (dual, libc::SOL_TCP, libc::TCP_LINGER2, 9),
        (dual, libc::SOL_TCP, libc::TCP_SYNCNT, 2),
        (dual, libc::SOL_TCP, libc::TCP_WINDOW_CLAMP, 30_000),
    ];
    for (fd, level, option, value) in options {
        set(&mut victim, fd, level, option, value);
    }
    // A key, a header with nothing but padding, and the processor that packets are to come by.
    let others = [
        (four, libc::SOL_TCP, libc::TCP_FASTOPEN_KEY, vec![7; 16]),
        (six, libc::SOL_IPV6, libc::IPV6_DSTOPTS, vec![0, 0, 1, 4, 0, 0, 0, 0]),
        (dual, libc::SOL_SOCKET, libc::SO_INCOMING_CPU, 1_i32.to_ne_bytes().to_vec()),
    ];
    for (fd, level, option, value) in &others {
        victim.ask(&format!("iset {fd} {level} {option} {}", hex(value)));
    }
    let congestion = hex(b"reno");
    victim.ask(&format!("iset {dual} {} {} {congestion}", libc::SOL_TCP, libc::TCP_CONGESTION));
    let values = |victim: &mut ucr_tests::Victim| {
        options.map(|(fd, level, option, _)| get(victim, fd, level, option))
    };
    let before = values(&mut victim);
    set(&mut victim, four, libc::SOL_TCP, libc::TCP_DEFER_ACCEPT, 0);
    let mut victim = anew(&world, victim);
    let after = values(&mut victim);
    assert_eq!((after[0].as_str(), &after[1..]), (hex(&[0; 4]).as_str(), &before[1..]));
    for (fd, level, option, value) in others {
        assert_eq!(get(&mut victim, fd, level, option), hex(&value), "option {option}");
    }
    let port = dual_name.rsplit(':').next().expect("a port").to_owned();
    for (fd, to) in
        [(four, name), (dual, format!("127.0.0.1:{port}")), (dual, format!("[::1]:{port}"))]
    {
        let mut client = TcpStream::connect(&to).expect("connect");
        let accepted = victim.accept(fd);
        client.write_all(b"hello").expect("write");
        assert_eq!(victim.ask(&format!("recv {accepted}")), "hello");
        victim.ask(&format!("send {accepted} there"));
        let mut answer = [0; 5];
        client.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"there");
        victim.close(accepted);
    }
}

/// Where another kernel has other algorithms, that is said before anything is touched.
#[test]
fn a_congestion_control_that_is_not_here_is_named() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (listener, _) = bound(&mut victim, "tcp", "127.0.0.1:0");
    victim.ask(&format!("listen {listener} 7"));
    let reno = hex(b"reno");
    victim.ask(&format!("iset {listener} {} {} {reno}", libc::SOL_TCP, libc::TCP_CONGESTION));
    let path = take(&world, victim);
    let mut image = ucr::image::file::read(&path).expect("the image");
    let inet = image.sockets.iter_mut().find_map(|socket| socket.inet.as_mut()).expect("it");
    let mut options = inet.options.iter_mut();
    let option = options.find(|option| option.number == libc::TCP_CONGESTION).expect("reno");
    option.value = b"elsewhere\0\0\0\0\0\0\0".to_vec();
    let forged = world.path("elsewhere");
    ucr::image::file::write(&forged, &image).expect("write");
    let forged = forged.display().to_string();
    let refused = world.ucr.run(&["restore", &forged, "--", "true"]).ended(REFUSED);
    let refused = refused.complains("socket 0 is to have the congestion control elsewhere");
    let _said = refused.complains("hint: load its module first");
}
