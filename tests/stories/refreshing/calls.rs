//! Calls that the kernel ends early when a process is stopped, and of which the program is to learn nothing: it goes on
//! waiting.

use std::os::unix::net::UnixDatagram;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ucr_tests::{Need, Perl, World, needs, outside, wait};

use super::{number, refresh};
use crate::world;

/// Ten minutes, as `struct timeval` or `timespec`.
const LONG: &str = "pack('qq', 600, 0)";

fn can() -> bool {
    needs::met(&[Need::Root, Need::Program("perl")])
}

/// A perl that waits in a call while its sockets are replaced. What wakes it, and what it is told then.
fn waits_on(
    world: &World,
    perl: &mut Perl,
    (call, arguments): (i64, &str),
    wake: impl FnOnce(),
    told: &str,
) {
    perl.tell(&format!("my $r = syscall({call}, {arguments}); $r < 0 ? 'errno ' . ($! + 0) : $r"));
    let pid = perl.pid();
    let waits = || {
        wait::until(&format!("perl to wait in call {call}"), || {
            (outside::blocked_in(pid, pid) == Some(call)).then_some(())
        });
    };
    waits();
    for _ in 0..2 {
        let report = refresh(world, pid);
        assert!(number(&report, "replaced") > 0, "{report:#}");
    }
    wake();
    assert_eq!(perl.answer(), told, "call {call}");
}

#[test]
fn waiting_for_a_signal() {
    if !can() {
        return;
    }
    let (world, mut perl) = (world(), Perl::start());
    world.ucr.watch();
    perl.pair();
    // SIGUSR1 is blocked, and waited for.
    perl.ask("use POSIX; sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGUSR1)); 1");
    perl.ask(&format!("$set = pack('Q', 1 << 9); $time = {LONG}; 1"));
    let pid = Pid::from_raw(perl.pid());
    let wake = || kill(pid, Signal::SIGUSR1).expect("send a signal");
    waits_on(&world, &mut perl, (libc::SYS_rt_sigtimedwait, "$set, 0, $time, 8"), wake, "10");
}

#[test]
fn waiting_at_a_semaphore() {
    if !can() {
        return;
    }
    let (world, mut perl, mut other) = (world(), Perl::start(), Perl::start());
    world.ucr.watch();
    perl.pair();
    let id = perl.call(libc::SYS_semget, "0, 1, 0600").expect("a semaphore");
    perl.ask(&format!("$id = {id}; $down = pack('sss', 0, -1, 0); 1"));
    other.ask("$up = pack('sss', 0, 1, 0); 1");
    let wake = || {
        other.call(libc::SYS_semop, &format!("{id}, $up, 1")).expect("let it go on");
    };
    waits_on(&world, &mut perl, (libc::SYS_semop, "$id, $down, 1"), wake, "0");
    perl.call(libc::SYS_semctl, &format!("{id}, 0, 0")).expect("remove a semaphore");
}

#[test]
fn reading_into_several_pieces_with_a_limit_of_time() {
    if !can() {
        return;
    }
    let (world, mut perl) = (world(), Perl::start());
    world.ucr.watch();
    let path = world.path("receiver").display().to_string();
    perl.ask("socket($receiver, AF_UNIX, SOCK_DGRAM, 0); 1");
    perl.ask(&format!("bind($receiver, pack_sockaddr_un('{path}')); 1"));
    perl.ask(&format!("setsockopt($receiver, SOL_SOCKET, SO_RCVTIMEO, {LONG})"));
    perl.ask("$n = fileno($receiver); $bytes = ' ' x 9; $pieces = pack('PQ', $bytes, 9); 1");
    let sender = UnixDatagram::unbound().expect("a socket");
    let wake = || {
        sender.send_to(b"something", &path).expect("send something");
    };
    waits_on(&world, &mut perl, (libc::SYS_readv, "$n, $pieces, 1"), wake, "9");
    assert_eq!(perl.ask("$bytes"), "something");
}

#[test]
fn connecting_with_a_limit_of_time() {
    if !can() {
        return;
    }
    let (world, mut perl) = (world(), Perl::start());
    world.ucr.watch();
    let mut server = world.victim();
    perl.pair();
    // Its queue is full.
    let listener = server.listener("stream", &world.path_name("socket"), 0);
    server.client("stream", &world.path_name("socket"));
    let path = world.path("socket").display().to_string();
    perl.ask("socket($client, AF_UNIX, SOCK_STREAM, 0); $n = fileno($client); 1");
    perl.ask(&format!("setsockopt($client, SOL_SOCKET, SO_SNDTIMEO, {LONG})"));
    perl.ask(&format!("$name = pack_sockaddr_un('{path}'); $size = length($name); 1"));
    let wake = || {
        server.accept(listener);
    };
    waits_on(&world, &mut perl, (libc::SYS_connect, "$n, $name, $size"), wake, "0");
}
