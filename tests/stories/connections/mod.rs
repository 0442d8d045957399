//! TCP connections that are dumped and brought back, while the other end stays and must not notice.

mod closing;
mod elsewhere;
mod established;
mod filters;
mod killed;
mod locked;
mod namespaces;
mod refreshed;
mod urgent;
mod windows;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    path::PathBuf,
};

use ucr_tests::{Host, Need, World, needs, perl::Perl, ucr::Answer, wait};

use crate::world;

/// What is sent, as a perl has it: byte `n` is the remainder of `n` by 251.
const PATTERN: &str = r#"$SIG{PIPE} = "IGNORE"; $p = pack("C*", 0..250) x 60000; 1"#;

/// The same.
fn pattern(length: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(length).collect()
}

fn can() -> bool {
    needs::met(&[Need::Root, Need::Program("ip"), Need::Program("perl")])
}

/// Whether a process holds a lock of connections: links of programs at the root of the cgroup tree.
fn is_locked(ucr: i32) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{ucr}/fdinfo"));
    let told = descriptors.into_iter().flatten().flatten();
    let told = told.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    told.into_iter().any(|told| told.contains("link_type:\tcgroup"))
}

/// How both ends call each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Four,
    Six,
    /// IPv4, by a socket of IPv6.
    Mapped,
}

impl Way {
    fn address(self) -> IpAddr {
        match self {
            Self::Four | Self::Mapped => Ipv4Addr::LOCALHOST.into(),
            Self::Six => Ipv6Addr::LOCALHOST.into(),
        }
    }

    /// Code that makes `$s` a socket, and `$a` the address to connect it to.
    fn code(self, address: IpAddr, port: u16) -> String {
        let make = |family: &str, address: &str| {
            let ending = if family == "AF_INET" { "in" } else { "in6" };
            format!(
                r#"socket($s, {family}, SOCK_STREAM, 0); $a = pack_sockaddr_{ending}({port}, Socket::inet_pton({family}, "{address}")); fileno($s)"#
            )
        };
        match self {
            Self::Four => make("AF_INET", &address.to_string()),
            Self::Six => make("AF_INET6", &address.to_string()),
            Self::Mapped => make("AF_INET6", &format!("::ffff:{address}")),
        }
    }
}

/// A connection between a perl, which is dumped, and this process.
struct Scene {
    world: World,
    victim: Perl,
    remote: TcpStream,
    fd: i32,
}

impl Scene {
    /// In a network namespace of its own.
    fn new(way: Way) -> Self {
        Host::new().enter();
        let listener = TcpListener::bind((way.address(), 0)).expect("listen");
        let world = world();
        Self::with(world, way, way.address(), &listener)
    }

    /// Over an address by which the victim comes to that listener.
    fn with(world: World, way: Way, address: IpAddr, listener: &TcpListener) -> Self {
        let port = listener.local_addr().expect("its address").port();
        let mut victim = Perl::start();
        victim.ask(PATTERN);
        let fd = victim.number(&way.code(address, port));
        assert_eq!(victim.ask("connect($s, $a) ? 1 : $!"), "1");
        let (remote, _) = listener.accept().expect("accept");
        remote.set_read_timeout(Some(wait::patience())).expect("not for ever");
        Self { world, victim, remote, fd }
    }

    fn image(&self) -> PathBuf {
        self.world.path("image")
    }

    fn dump(&self, more: &[&str]) -> Answer {
        let (pid, image) = (self.victim.pid().to_string(), self.image().display().to_string());
        let mut arguments = vec!["dump", "--pid", &pid, "-o", &image];
        arguments.extend(more);
        self.world.ucr.run(&arguments)
    }

    /// Dumps the perl, which ends. The other end must not see that.
    fn dump_and_kill(&mut self) {
        self.dump(&["--kill"]).done();
        let pid = self.victim.pid();
        wait::until("the process to end", || (!wait::is_alive(pid)).then_some(()));
    }

    /// What the image says of the connection.
    fn shown(&self) -> serde_json::Value {
        let image = self.image().display().to_string();
        let shown = self.world.ucr.run(&["show", "--json", &image]).done().json();
        shown["sockets"][0]["inet"]["tcp"].clone()
    }

    /// Dumps until the image says something of the connection.
    fn until_shown(&self, what: &str, says: impl Fn(&serde_json::Value) -> bool) {
        wait::until(what, || {
            self.dump(&[]).done();
            says(&self.shown()).then_some(())
        });
    }

    /// Waits until this end has sent once more, twice, what nobody answers; if it has nothing to say, not at all.
    /// Returns whether it had.
    fn asks_in_vain(&self) -> bool {
        wait::until("this end to ask again", || {
            // `struct tcp_info`: retransmissions and probes without an answer; segments that are not acknowledged,
            // bytes that are not sent.
            let (level, option) = (libc::SOL_TCP, libc::TCP_INFO);
            let info = ucr::sys::sockopt::get_at(self.remote.as_fd(), level, option, 256);
            let info = info.expect("TCP_INFO");
            let word = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().expect("4"));
            let has_something = word(24) > 0 || word(144) > 0;
            (!has_something || info[2].max(info[3]) >= 2).then_some(has_something)
        })
    }

    /// Another perl gets the connection, as `$s`.
    fn restore(&mut self) {
        let image = self.image().display().to_string();
        self.victim = Perl::by(self.world.ucr.command(&["restore", &image, "--"]));
        self.victim.ask(PATTERN);
        assert_eq!(self.victim.ask(&format!(r#"open($s, "+<&=", {}) ? 1 : $!"#, self.fd)), "1");
    }

    /// Has the perl write until nothing fits in any more; how much that is.
    fn fill(&mut self) -> usize {
        let code = "$n = 0; while (defined($k = send($s, substr($p, $n, 1004), MSG_DONTWAIT))) { $n += $k } $n";
        usize::try_from(self.victim.number(code)).expect("a size")
    }

    /// The same from this end.
    fn fill_victim(&mut self) -> usize {
        let data = pattern(16 << 20);
        let mut written = 0;
        self.remote.set_nonblocking(true).expect("no waiting");
        loop {
            match self.remote.write(&data[written..written + 1004]) {
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("write: {error}"),
            }
        }
        self.remote.set_nonblocking(false).expect("waiting");
        written
    }

    /// Has the perl read that much; whether it is what was sent.
    fn victim_reads(&mut self, length: usize) -> bool {
        let code = format!(
            r#"$g = ""; while (length($g) < {length} && sysread($s, $q, {length} - length($g))) {{ $g .= $q }} $g eq substr($p, 0, {length}) ? 1 : 0"#
        );
        self.victim.ask(&code) == "1"
    }

    /// What the perl reads up to the end of it.
    fn victim_reads_all(&mut self) -> String {
        self.victim.ask(r#"$g = ""; while (sysread($s, $q, 65536)) { $g .= $q } $g"#)
    }

    /// What was under way in both directions arrives, more as well, and this end has noticed nothing.
    fn goes_on(&mut self, sent: usize, received: usize) {
        assert!(self.victim_reads(received));
        assert!(self.read(sent) == pattern(sent));
        self.remote.write_all(&pattern(100_000)).expect("write");
        assert!(self.victim_reads(100_000));
        self.victim_writes("bye");
        assert_eq!(self.read(3), b"bye");
        assert!(!self.has_noticed());
    }

    fn victim_writes(&mut self, text: &str) {
        let code = format!(r#"syswrite($s, "{text}")"#);
        assert_eq!(self.victim.number(&code), i32::try_from(text.len()).expect("short"));
    }

    /// Reads that much at this end.
    fn read(&mut self, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.remote.read_exact(&mut data).expect("read from the connection");
        data
    }

    /// Whether this end has an error, or has seen the end of the connection, behind what waits there.
    fn has_noticed(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let wanted = PollFlags::ERR | PollFlags::HUP | PollFlags::RDHUP;
        let mut polled = [PollFd::from_borrowed_fd(self.remote.as_fd(), wanted)];
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll");
        polled[0].revents().intersects(wanted)
    }
}
