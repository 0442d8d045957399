//! Sockets at ports: whoever comes meanwhile is served, and whenever ucr is killed all is as before, or as it is to be.

use std::{
    cell::RefCell,
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd as _, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};
use ucr::sys::sockopt;
use ucr_tests::{
    Host, Need, Program, Victim, doomed, needs,
    network::ip,
    outside,
    program::{PYTHON, python},
    ucr::REFUSED,
    wait,
};

use super::{killed, number, refresh};
use crate::world;

/// `SO_BINDTOIFINDEX`
const DEVICE: i32 = 62;

/// What a socket of another process says of an option of `SOL_SOCKET`.
fn option(pid: i32, fd: i32, name: i32) -> i32 {
    let pid = Pid::from_raw(pid).expect("a pid");
    let process = pidfd_open(pid, PidfdFlags::empty()).expect("open a process");
    let socket: OwnedFd =
        pidfd_getfd(process, fd, PidfdGetfdFlags::empty()).expect("take a descriptor");
    let value = sockopt::get(socket.as_fd(), name).expect("getsockopt");
    sockopt::as_int(&value).expect("a number")
}

/// One that no program has which another story starts at this moment.
fn own_socket(family: AddressFamily, kind: SocketType) -> OwnedFd {
    socket_with(family, kind, SocketFlags::CLOEXEC, None).expect("a socket")
}

/// Whether somebody who shares his port can listen there.
fn can_share(at: SocketAddr) -> bool {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = own_socket(family, SocketType::STREAM);
    rustix::net::sockopt::set_socket_reuseport(&socket, true).expect("SO_REUSEPORT");
    rustix::net::bind(&socket, &at).is_ok() && rustix::net::listen(&socket, 1).is_ok()
}

/// How many sockets of this network namespace have these ports.
fn between(local: u16, remote: u16) -> usize {
    let ports = [local, remote].map(|port| format!(":{port:04X}"));
    let has_them = |line: &str| {
        let mut ends = line.split_whitespace().skip(1);
        ports.iter().all(|port| ends.next().is_some_and(|end| end.ends_with(port)))
    };
    let tables = ["tcp", "tcp6"].map(|name| {
        let path = format!("/proc/thread-self/net/{name}");
        fs::read_to_string(path).expect("a table of TCP")
    });
    tables.iter().flat_map(|table| table.lines()).filter(|line| has_them(line)).count()
}

/// A listener of TCP, a connection with this process, and a socket of UDP.
struct Ports {
    listener: i32,
    at: SocketAddr,
    connection: i32,
    remote: TcpStream,
    udp: i32,
    udp_at: SocketAddr,
    own: UdpSocket,
}

impl Ports {
    fn new(victim: &mut Victim, host: &str) -> Self {
        let six = if host.starts_with('[') { "6" } else { "" };
        let mut bound = |kind: &str| {
            let fd = victim.number(&format!("inet {kind}{six}"));
            victim.ask(&format!("ibind {fd} {host}:0"));
            let at = victim.ask(&format!("iname {fd}")).parse().expect("an address");
            (fd, at)
        };
        let ((listener, at), (udp, udp_at)) = (bound("tcp"), bound("udp"));
        victim.ask(&format!("listen {listener} 8"));
        let remote = TcpStream::connect(at).expect("connect");
        let connection = victim.accept(listener);
        let own = UdpSocket::bind(format!("{host}:0")).expect("a socket");
        for result in [
            remote.set_read_timeout(Some(wait::patience())),
            own.set_read_timeout(Some(wait::patience())),
        ] {
            result.expect("not for ever");
        }
        Self { listener, at, connection, remote, udp, udp_at, own }
    }

    /// All of them are good, and nothing is left of what was set for a while.
    fn serve(&mut self, victim: &mut Victim) {
        let talk = |victim: &mut Victim, remote: &mut TcpStream, fd: i32| {
            remote.write_all(b"question").expect("ask");
            assert_eq!(victim.ask(&format!("recv {fd}")), "question");
            victim.ask(&format!("send {fd} answer"));
            let mut answer = [0; 6];
            remote.read_exact(&mut answer).expect("hear");
            assert_eq!(&answer, b"answer");
        };
        let pid = victim.pid();
        // Whoever sets them back if ucr was killed does it one by one.
        for fd in [self.listener, self.connection, self.udp] {
            for name in [DEVICE, libc::SO_REUSEPORT, libc::SO_BUF_LOCK] {
                assert!(wait::holds(|| option(pid, fd, name) == 0), "option {name} of {fd}");
            }
        }
        assert!(wait::holds(|| option(pid, self.udp, libc::SO_REUSEADDR) == 0));
        assert!(wait::holds(|| !can_share(self.at)), "{} can be shared", self.at);
        talk(victim, &mut self.remote, self.connection);
        let own = self.remote.local_addr().expect("its address");
        let ends = || between(self.at.port(), own.port());
        assert!(wait::holds(|| ends() == 1), "{} sockets for one end", ends());
        let mut late = TcpStream::connect(self.at).expect("connect");
        let accepted = victim.accept(self.listener);
        talk(victim, &mut late, accepted);
        victim.close(accepted);
        self.own.send_to(b"?", self.udp_at).expect("send");
        let own = self.own.local_addr().expect("its address");
        assert_eq!(victim.ask(&format!("irecv {}", self.udp)), format!("{own} 3f"));
        victim.ask(&format!("isend {} {own} 21", self.udp));
        let mut answer = [0; 2];
        assert_eq!(self.own.recv_from(&mut answer).expect("hear"), (1, self.udp_at));
        assert_eq!(answer[0], b'!');
    }
}

#[test]
fn listeners_connections_and_datagram_sockets_are_others_and_serve() {
    if !needs::met(&[Need::Root, Need::Program("ip")]) {
        return;
    }
    for host in ["127.0.0.1", "[::1]"] {
        Host::new().enter();
        let world = world();
        let mut victim = world.victim();
        let mut ports = Ports::new(&mut victim, host);
        for _ in 0..3 {
            let before = outside::sockets(victim.pid());
            assert_eq!(number(&refresh(&world, victim.pid()), "replaced"), 3);
            let after = outside::sockets(victim.pid());
            assert!(before.iter().all(|(fd, inode)| after[fd] != *inode), "{before:?} {after:?}");
            ports.serve(&mut victim);
        }
        // Nobody else can listen there, or be bound.
        TcpListener::bind(ports.at).expect_err("it is taken");
        UdpSocket::bind(ports.udp_at).expect_err("it is taken");
    }
}

/// Whoever is killed while connections have no socket that answers: nobody is told so.
fn killed_at_any_moment(host: &str) {
    if !needs::met(&[Need::Root, Need::Program("ip")]) {
        return;
    }
    Host::new().enter();
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let _listener = victim.listener("stream", &world.path_name("socket"), 8);
    let ports = RefCell::new(Ports::new(&mut victim, host));
    let command = world.ucr.command(&["refresh", "--pid", &victim.pid().to_string()]);
    let undisturbed = doomed::run(&command, None);
    assert_eq!(undisturbed.code, Some(0), "{}", undisturbed.said);
    let pid = victim.pid();
    let mut serve = || {
        ports.borrow_mut().serve(&mut victim);
        None
    };
    assert_eq!(serve(), None);
    let mut moments = killed::moments(&undisturbed, 25, 1);
    for call in [libc::SYS_setsockopt, libc::SYS_bind, libc::SYS_listen, libc::SYS_connect] {
        let call = doomed::Call::of(call);
        let count = undisturbed.counts().get(&call).copied().unwrap_or_default();
        let of_each = 12.min(count);
        moments.extend((0..of_each).map(|at| doomed::Moment::AfterThe(at * count / of_each, call)));
    }
    let run = |_, moment| doomed::run(&command, moment);
    let problems = killed::go_over(&world, &[pid], &moments, run, serve);
    assert!(problems.left.is_empty(), "{problems:#?}");
}

#[test]
fn killed_at_any_moment_over_ipv4() {
    killed_at_any_moment("127.0.0.1");
}

#[test]
fn killed_at_any_moment_over_ipv6() {
    killed_at_any_moment("[::1]");
}

/// A server of UDP that answers each question with itself.
const ECHO: &str = r#"
import socket, sys
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
echo.bind(("127.0.0.1", 0))
print(echo.getsockname()[1], flush=True)
while True:
    question, who = echo.recvfrom(100)
    echo.sendto(question, who)
"#;

#[test]
fn no_datagram_is_lost_that_a_server_is_sent_meanwhile() {
    if !needs::met(&[Need::Root, Need::Program("ip"), Need::Program(PYTHON)]) {
        return;
    }
    Host::new().enter();
    let world = world();
    let mut server = Program::start(&mut python(ECHO, &[]));
    let port: u16 = server.line().parse().expect("a port");
    let own = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    own.connect(("127.0.0.1", port)).expect("connect");
    own.set_read_timeout(Some(wait::patience())).expect("not for ever");
    thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let mut answer = [0; 8];
            let mut count = 0_u64;
            // Until somebody asks for an end, which is a question as well.
            while answer != [0xff; 8] {
                count += 1;
                own.send(&count.to_ne_bytes()).expect("ask");
                let came = own.recv(&mut answer).expect("hear: a datagram is lost");
                assert!(came == 8 && (answer == count.to_ne_bytes() || answer == [0xff; 8]));
            }
            count
        });
        for _ in 0..20 {
            assert_eq!(number(&refresh(&world, server.pid()), "replaced"), 1);
        }
        let stranger = own.try_clone().expect("the same");
        stranger.send(&[0xff; 8]).expect("ask for the end");
        assert!(asked.join().expect("answers") > 20);
    });
}

#[test]
fn what_waits_to_be_let_in_is_waited_for_and_if_nobody_lets_it_in_all_is_as_before() {
    if !needs::met(&[Need::Root, Need::Program("ip")]) {
        return;
    }
    Host::new().enter();
    let world = world();
    let mut victim = world.victim();
    let mut ports = Ports::new(&mut victim, "127.0.0.1");
    let mut early = TcpStream::connect(ports.at).expect("connect");
    let pid = victim.pid();
    let before = outside::sockets(pid);
    world.ucr.run(&["refresh", "--pid", &pid.to_string()]).ended(REFUSED).complains("not accepted");
    assert_eq!(outside::sockets(pid), before);
    let accepted = victim.accept(ports.listener);
    early.write_all(b"early").expect("write");
    assert_eq!(victim.ask(&format!("recv {accepted}")), "early");
    victim.close(accepted);
    ports.serve(&mut victim);
    assert_eq!(number(&refresh(&world, pid), "replaced"), 3);
    ports.serve(&mut victim);
}

/// What the other end has closed is made by packets that the lock lets through, also where a listener was made before.
#[test]
fn a_connection_that_was_closed_there_is_replaced_beside_its_listener() {
    if !needs::met(&[Need::Root, Need::Program("ip")]) {
        return;
    }
    for host in ["127.0.0.1", "[::1]"] {
        Host::new().enter();
        let world = world();
        let mut victim = world.victim();
        let mut ports = Ports::new(&mut victim, host);
        ports.remote.shutdown(Shutdown::Write).expect("shut down");
        assert_eq!(number(&refresh(&world, victim.pid()), "replaced"), 3);
        victim.ask(&format!("send {} answer", ports.connection));
        let mut answer = [0; 6];
        ports.remote.read_exact(&mut answer).expect("hear");
        assert_eq!(&answer, b"answer");
    }
}

/// A server that greets whoever comes.
const GREETER: &str = r#"
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.socket(family)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((sys.argv[1], 0))
listener.listen(64)
print(listener.getsockname()[1], flush=True)
while True:
    guest, _ = listener.accept()
    guest.sendall(b"hello")
    guest.close()
"#;

#[test]
fn whoever_comes_meanwhile_is_served() {
    if !needs::met(&[Need::Root, Need::Program("ip"), Need::Program(PYTHON)]) {
        return;
    }
    for (host, to) in [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::", "127.0.0.1")] {
        let network = Host::new();
        network.enter();
        let world = world();
        let mut server = Program::start(&mut python(GREETER, &[host]));
        let port: u16 = server.line().parse().expect("a port");
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let comes = || {
                network.enter();
                let mut count = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let mut stream = TcpStream::connect((to, port)).expect("connect");
                    stream.set_read_timeout(Some(wait::patience())).expect("not for ever");
                    let mut greeting = String::new();
                    stream.read_to_string(&mut greeting).expect("hear");
                    assert_eq!(greeting, "hello");
                    count += 1;
                }
                count
            };
            let guests = [(); 3].map(|()| scope.spawn(comes));
            for _ in 0..10 {
                assert!(number(&refresh(&world, server.pid()), "replaced") > 0);
            }
            is_over.store(true, Ordering::Relaxed);
            let counts = guests.map(|guest| guest.join().expect("all are greeted"));
            assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        });
    }
}

/// Whoever asks for a connection, and whose packets are lost, asks again, and finds the new listener.
#[test]
fn a_connection_that_is_being_made_is_made_with_the_new_listener() {
    if !needs::met(&[Need::Root, Need::Program("ip")]) {
        return;
    }
    let (near, far) = Host::pair();
    near.enter();
    let world = world();
    let mut victim = world.victim();
    let listener = victim.number("inet tcp");
    victim.ask(&format!("ibind {listener} 10.99.0.1:0"));
    victim.ask(&format!("listen {listener} 8"));
    let at: SocketAddr = victim.ask(&format!("iname {listener}")).parse().expect("an address");
    // What is answered goes to nobody.
    ip("neighbour replace 10.99.0.2 dev near lladdr 02:00:00:00:00:77");
    let asks = thread::spawn(move || far.within(|| TcpStream::connect(at).expect("connect")));
    wait::until("a request", || {
        let all = fs::read_to_string("/proc/thread-self/net/tcp").expect("the table of TCP");
        // SYN_RECV
        let is_one = |line: &str| line.split_whitespace().nth(3) == Some("03");
        all.lines().any(is_one).then_some(())
    });
    let pid = victim.pid().to_string();
    world.ucr.run(&["refresh", "--pid", &pid]).done().complains("1 connection not made in time");
    ip("neighbour del 10.99.0.2 dev near");
    let accepted = victim.accept(listener);
    let mut stream = asks.join().expect("a thread");
    stream.write_all(b"at last").expect("write");
    assert_eq!(victim.ask(&format!("recv {accepted}")), "at last");
}

#[test]
fn what_shares_a_port_is_refused_by_name() {
    if !needs::met(&[Need::Root, Need::Program("ip")]) {
        return;
    }
    Host::new().enter();
    let world = world();
    let mut victim = world.victim();
    let pid = victim.pid().to_string();
    let refused = |words: &str| {
        world.ucr.run(&["refresh", "--pid", &pid]).ended(REFUSED).complains(words);
    };
    let listener = victim.number("inet tcp");
    victim.ask(&format!("iset {listener} 1 {} 01000000", libc::SO_REUSEPORT));
    victim.ask(&format!("ibind {listener} 127.0.0.1:0"));
    victim.ask(&format!("listen {listener} 3"));
    refused("shares 127.0.0.1:");
    victim.close(listener);

    // Another program may have that port of UDP as well. Alone it is replaced.
    let udp = victim.number("inet udp");
    victim.ask(&format!("iset {udp} 1 {} 01000000", libc::SO_REUSEADDR));
    victim.ask(&format!("ibind {udp} 0.0.0.0:0"));
    assert_eq!(number(&refresh(&world, victim.pid()), "replaced"), 1);
    let at: SocketAddr = victim.ask(&format!("iname {udp}")).parse().expect("an address");
    let other = own_socket(AddressFamily::INET, SocketType::DGRAM);
    rustix::net::sockopt::set_socket_reuseaddr(&other, true).expect("SO_REUSEADDR");
    rustix::net::bind(&other, &at).expect("bind");
    refused("shares 0.0.0.0:");
}
