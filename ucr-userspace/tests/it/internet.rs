//! Images of internet sockets: what holds in them, and the steps that bring them back.

use ucr::image::validate::Problem;
use ucr::image::*;
use ucr::model::inet::{Endpoint, Family, Protocol, TcpState};
use ucr::model::*;
use ucr::restore::plan::plan;

use crate::support::*;

fn end(text: &str) -> Endpoint {
    text.parse::<core::net::SocketAddr>().unwrap().into()
}

fn inet(protocol: Protocol, local: &str) -> Inet {
    let local = end(local);
    Inet {
        family: local.family(),
        protocol,
        local: Some(local),
        remote: None,
        options: Vec::new(),
        memberships: Vec::new(),
        turn: None,
        datagrams: Vec::new(),
        held_back: None,
        tcp: None,
        waiting: Vec::new(),
    }
}

fn add(builder: &mut Builder, role: Role, inet: Inet) -> SocketIndex {
    let kind = if inet.protocol.is_datagram() { SocketType::Dgram } else { SocketType::Stream };
    builder.add(Socket { inet: Some(Box::new(inet)), ..socket(kind, role) })
}

/// Of everything something.
pub(crate) fn internet() -> Image {
    let mut builder = Builder::new();
    builder.pair(SocketType::Stream);
    let mut receiver = inet(Protocol::Udp, "0.0.0.0:5000");
    let option = |level, number, value: i32| InetOption {
        level,
        number,
        value: value.to_ne_bytes().to_vec(),
    };
    receiver.options =
        vec![option(libc::SOL_IP, libc::IP_MINTTL, 3), option(libc::SOL_IP, libc::IP_TOS, 0x20)];
    receiver.memberships.push(Membership {
        group: "239.1.2.3".parse().unwrap(),
        interface: 1,
        excludes: false,
        sources: vec!["10.0.0.1".parse().unwrap()],
    });
    let (from, to) = (end("10.0.0.1:99"), end("10.0.0.2:5000"));
    receiver.datagrams.push(Datagram { data: b"hello".to_vec(), from, to });
    receiver.datagrams.push(Datagram { data: Vec::new(), from, to });
    add(&mut builder, Role::Unconnected, receiver);
    for (turn, name) in [(1, "[::1]:6000"), (0, "[::1]:6000")] {
        let mut sharing = inet(Protocol::Udp, name);
        sharing.turn = Some(turn);
        let (from, to) = (end("[::1]:7"), end("[::1]:6000"));
        sharing.datagrams.push(Datagram { data: vec![0], from, to });
        let index = add(&mut builder, Role::Unconnected, sharing);
        let value = 1_i32.to_ne_bytes().to_vec();
        builder.get(index).options.push(SocketOption { name: libc::SO_REUSEPORT, value });
    }
    let mut connected = inet(Protocol::UdpLite, "127.0.0.1:7000");
    connected.remote = Some(end("127.0.0.1:7001"));
    connected.held_back = Some(HeldBack { data: b"half a".to_vec(), to: end("127.0.0.1:7002") });
    let index = add(&mut builder, Role::Connected, connected);
    builder.get(index).shutdown = Shutdown::RECEIVE;
    let instructions = vec![(6, 0, 0, 9)];
    builder.get(index).filter = Some(Filter { instructions, locked: true });
    let mut listener = inet(Protocol::Tcp, "[::]:80");
    listener.options.push(option(libc::SOL_TCP, libc::TCP_FASTOPEN, 5));
    add(&mut builder, Role::Listening { backlog: 9 }, listener);
    let mut connection = inet(Protocol::Tcp, "[::ffff:10.0.0.2]:80");
    connection.remote = Some(end("[::ffff:10.0.0.1]:999"));
    connection.tcp = Some(Box::new(Tcp {
        state: TcpState::CloseWait,
        received: Stream { end: 7, data: b"abc".to_vec() },
        sent: Stream { end: u32::MAX, data: b"defg".to_vec() },
        unsent: 2,
        agreed: Agreed { mss: 1460, scale: Some((7, 9)), sack: true, timestamp: Some(5) },
        window: Some(Window { send: 1, most: 2, receive: 3, send_update: 4, receive_update: 5 }),
        buffers: Buffers { send: 46_080, receive: 131_072 },
        urgent: Some(Urgent { number: 5, progress: Progress::Waiting }),
        sent_urgent: Some(u32::MAX - 1),
    }));
    add(&mut builder, Role::Connected, connection.clone());
    let mut crowded = inet(Protocol::Tcp, "127.0.0.1:81");
    let mut waits = inet(Protocol::Tcp, "127.0.0.1:1000");
    waits.remote = crowded.local;
    let tcp = connection.tcp.unwrap();
    waits.tcp = Some(Box::new(Tcp {
        state: TcpState::FinWait1,
        received: Stream { end: 7, data: Vec::new() },
        sent: Stream { end: 12, data: b"cd".to_vec() },
        urgent: None,
        sent_urgent: None,
        ..*tcp
    }));
    let client = add(&mut builder, Role::Connected, waits);
    crowded.waiting.push(Waiting {
        client,
        received: Stream { end: 11, data: b"abc".to_vec() },
        urgent: Some(Urgent { number: 9, progress: Progress::Waiting }),
    });
    add(&mut builder, Role::Listening { backlog: 0 }, crowded);
    let netlink = Netlink {
        is_raw: true,
        protocol: libc::NETLINK_ROUTE,
        port: 4_000_000_000,
        groups: vec![1, 33],
        peer: Some((7, 2)),
        options: vec![option(270, 11, 1)],
    };
    builder.add(Socket {
        netlink: Some(Box::new(netlink)),
        ..socket(SocketType::Dgram, Role::Unconnected)
    });
    builder.0
}

#[test]
fn internet_sockets_survive_their_file() {
    let image = internet();
    assert_eq!(decode(&encode(&image).unwrap()).unwrap(), image);
}

/// What is wrong with the image when one of its sockets is changed.
fn problem(change: impl FnOnce(&mut Socket, &mut Inet)) -> Problem {
    let mut image = internet();
    let socket = &mut image.sockets[2];
    let mut inet = socket.inet.take().unwrap();
    change(socket, &mut inet);
    socket.inet = Some(inet);
    match encode(&image) {
        Err(EncodeError::Invalid(Invalid::Socket { index: 2, problem })) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_contradiction_is_found() {
    let of = |change: fn(&mut Socket, &mut Inet)| match problem(change) {
        Problem::Inet(what) => what,
        other => panic!("{other:?}"),
    };
    assert!(of(|socket, _| socket.socket_type = SocketType::Stream).contains("type"));
    assert!(of(|socket, _| socket.groups = Some(Vec::new())).contains("unix"));
    assert!(of(|socket, _| socket.role = Role::Embryo).contains("unix"));
    assert!(of(|_, inet| inet.local = Some(end("[::1]:5000"))).contains("another family"));
    assert!(of(|_, inet| inet.local = Some(end("0.0.0.0:0"))).contains("nothing"));
    assert!(of(|_, inet| inet.remote = Some(end("10.0.0.1:1"))).contains("connected"));
    assert!(of(|_, inet| inet.local = Some(end("10.0.0.2:1"))).contains("another port"));
    assert!(of(|_, inet| inet.datagrams[0].from = end("[::1]:1")).contains("family"));
    assert!(of(|_, inet| inet.datagrams[0].data = vec![0; 65_528]).contains("longer than any"));
    let cork = |_: &mut Socket, inet: &mut Inet| {
        let value = 0_i32.to_ne_bytes().to_vec();
        inet.options.push(InetOption { level: libc::SOL_UDP, number: libc::UDP_CORK, value });
    };
    assert!(of(cork).contains("corked"));
    let group = "10.0.0.1".parse().unwrap();
    let membership = Membership { group, interface: 0, excludes: true, sources: Vec::new() };
    assert!(problem(|_, inet| inet.memberships.push(membership)).to_string().contains("multicast"));
    let twice = problem(|_, inet| inet.options.push(inet.options[0].clone()));
    assert_eq!(twice, Problem::OptionTwice(libc::IP_MINTTL));
}

#[test]
fn internet_sockets_in_steps() {
    insta::assert_snapshot!(plan(&internet()).unwrap());
}

/// What is wrong with the image when its TCP connection is changed.
fn wrong(change: fn(&mut Tcp)) -> &'static str {
    let mut image = internet();
    let mut all = image.sockets.iter_mut().filter_map(|socket| socket.inet.as_mut());
    let connection = all.find(|inet| inet.tcp.is_some()).unwrap();
    change(connection.tcp.as_mut().unwrap());
    match encode(&image) {
        Err(EncodeError::Invalid(Invalid::Socket { problem: Problem::Inet(what), .. })) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_connection_that_cannot_be_is_refused() {
    assert!(wrong(|tcp| tcp.unsent = 5).contains("queues"));
    assert!(wrong(|tcp| tcp.agreed.scale = Some((15, 0))).contains("scaled"));
    assert!(wrong(|tcp| tcp.agreed.mss = 0).contains("segments"));
    assert!(wrong(|tcp| tcp.state = TcpState::TimeWait).contains("not connected"));
    assert!(wrong(|tcp| tcp.state = TcpState::SynSent).contains("before it is connected"));
    assert!(wrong(|tcp| tcp.state = TcpState::FinWait2).contains("acknowledged"));
    assert!(wrong(|tcp| tcp.window = None).contains("windows"));
    assert!(wrong(|tcp| tcp.urgent.as_mut().unwrap().number = 7).contains("urgent"));
    assert!(wrong(|tcp| tcp.sent_urgent = Some(1)).contains("urgent"));
}

/// Where in the image the client is that waits to be accepted, the listener, and the netlink socket.
const CLIENT: usize = 8;
const CROWDED: usize = 9;
const NETLINK: usize = 10;

/// What is wrong with the image when it is changed.
fn invalid(change: impl FnOnce(&mut Image)) -> String {
    let mut image = internet();
    change(&mut image);
    encode(&image).expect_err("a contradiction").to_string()
}

#[test]
fn a_connection_that_waits_has_a_client_that_fits() {
    let is_found = |what: &str, change: fn(&mut Inet, &mut Inet)| {
        let said = invalid(|image| {
            let mut client = image.sockets[CLIENT].inet.take().unwrap();
            change(image.sockets[CROWDED].inet.as_mut().unwrap(), &mut client);
            image.sockets[CLIENT].inet = Some(client);
        });
        assert!(said.contains(what), "{said}");
    };
    let none = "has a connection that waits and is none";
    is_found(none, |listener, _| listener.waiting[0].client = SocketIndex(0));
    is_found(none, |listener, _| listener.waiting[0].client = SocketIndex(1000));
    is_found(none, |listener, _| listener.waiting[0].received.end = 13);
    is_found(none, |listener, _| listener.waiting[0].received.end = 9);
    is_found(none, |listener, _| listener.waiting[0].urgent.as_mut().unwrap().number = 11);
    is_found(none, |_, client| client.remote = Some(end("127.0.0.1:82")));
    is_found(none, |_, client| client.remote = Some(end("10.0.0.1:81")));
    is_found(none, |_, client| client.tcp.as_mut().unwrap().state = TcpState::CloseWait);
    is_found(none, |_, client| {
        client.tcp.as_mut().unwrap().received = Stream { end: 7, data: vec![1] };
    });
    is_found("more connections that wait", |listener, _| {
        listener.waiting.push(listener.waiting[0].clone());
    });
    let said = invalid(|image| {
        image.sockets[CROWDED].role = Role::Listening { backlog: 1 };
        let listener = image.sockets[CROWDED].inet.as_mut().unwrap();
        listener.waiting.push(listener.waiting[0].clone());
    });
    assert!(said.contains(none), "{said}");
    let said = invalid(|image| image.sockets[CROWDED].role = Role::Unconnected);
    assert!(said.contains("does not listen"), "{said}");
}

#[test]
fn a_netlink_socket_has_nothing_of_others() {
    let is_found = |what: &str, change: fn(&mut Socket, &mut Netlink)| {
        let said = invalid(|image| {
            let socket = &mut image.sockets[NETLINK];
            let mut netlink = socket.netlink.take().unwrap();
            change(socket, &mut netlink);
            socket.netlink = Some(netlink);
        });
        assert!(said.contains(what), "{said}");
    };
    let others = "has what only other sockets have";
    is_found(others, |socket, _| socket.socket_type = SocketType::Stream);
    is_found(others, |socket, _| socket.inet = Some(Box::new(inet(Protocol::Udp, "0.0.0.0:1"))));
    is_found(others, |socket, _| socket.error = 1);
    is_found("does not know whole", |_, netlink| netlink.protocol = libc::NETLINK_AUDIT);
    is_found("groups", |_, netlink| netlink.groups = vec![2, 1]);
    is_found("groups", |_, netlink| netlink.groups = vec![0]);
    is_found("option", |_, netlink| netlink.options[0].level = libc::SOL_TCP);
    is_found("option", |_, netlink| netlink.options.push(netlink.options[0].clone()));
}

#[test]
fn an_option_that_nobody_knows_is_refused_by_its_number() {
    let mut image = internet();
    let inet = image.sockets[2].inet.as_mut().unwrap();
    inet.options.push(InetOption { level: libc::SOL_IP, number: 4_711, value: vec![1] });
    let error = plan(&image).unwrap_err().to_string();
    assert!(error.contains("option 4711 of level 0"), "{error}");
    let family = image.sockets[2].inet.as_ref().map(|inet| inet.family);
    assert_eq!(family, Some(Family::V4));
}

/// The lock knows a connection by its ends: what has others would not be locked.
#[test]
fn a_connection_has_two_ends() {
    let is_refused = |change: fn(&mut Inet)| {
        let mut image = internet();
        let connection = image
            .sockets
            .iter_mut()
            .find_map(|socket| socket.inet.as_deref_mut().filter(|inet| inet.tcp.is_some()));
        change(connection.expect("a connection"));
        let error = encode(&image).expect_err("ends that no connection has").to_string();
        assert!(error.contains("ends that no connection has"), "{error}");
    };
    is_refused(|inet| inet.local = None);
    is_refused(|inet| inet.local = Some(end("[::]:80")));
    is_refused(|inet| inet.remote = Some(end("[::ffff:10.0.0.1]:0")));
    is_refused(|inet| inet.remote = Some(end("[ff02::1]:80")));
    is_refused(|inet| inet.remote = Some(end("[2001:db8::1]:80")));
}
