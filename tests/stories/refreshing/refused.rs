//! What cannot be refreshed is refused by name, and goes on unharmed.

use nix::{
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rustix::process::{Resource, Rlimit, prlimit};
use ucr_tests::{
    Answer, I386, Need, Perl, Uring, World, needs, outside,
    ucr::{FAILED, REFUSED},
    victim::talk_both,
    wait,
};

use super::{number, refresh};
use crate::world;

/// It is refused in these words, and nothing is different.
fn refused(world: &World, pid: i32, code: i32, words: &str) {
    unharmed(pid, code, words, || world.ucr.run(&["refresh", "--pid", &pid.to_string()]));
}

fn unharmed(pid: i32, code: i32, words: &str, run: impl FnOnce() -> Answer) {
    let facts = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).expect("read");
    let of = || (outside::sockets(pid), facts("maps"), facts("limits"));
    let before = of();
    let _answer = run().ended(code).complains(words);
    assert_eq!(of(), before);
    assert!(!matches!(outside::state(pid), Some('t' | 'T')));
}

#[test]
fn sockets_whose_address_nobody_can_have_twice() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let name = world.abstract_name(b"-it");
    let listener = victim.listener("stream", &name, 5);
    refused(&world, victim.pid(), REFUSED, "-it");
    let client = victim.client("stream", &name);
    let accepted = victim.accept(listener);
    talk_both(&mut victim, client, accepted);
    talk_both(&mut victim, a, b);

    // Without them nothing is in the way.
    [listener, client, accepted].into_iter().for_each(|fd| victim.close(fd));
    assert_eq!(number(&refresh(&world, victim.pid()), "replaced"), 2);
    talk_both(&mut victim, a, b);
}

#[test]
fn a_process_with_an_io_uring() {
    if !needs::met(&[Need::Root, Need::Program("cc")]) {
        return;
    }
    let world = world();
    let mut ring = match Uring::start(&world, "plain") {
        Ok(ring) => ring,
        Err(why) => return needs::absent(&why),
    };
    let socket = ring.ask("call socket 1");
    refused(&world, ring.pid(), REFUSED, "is an io_uring");
    ring.ask(&format!("close {socket}"));
    ring.ask("socket 1");
}

#[test]
fn a_process_that_somebody_else_traces() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let traced = Pid::from_raw(victim.pid());
    ptrace::seize(traced, Options::empty()).expect("trace a victim");
    let tracer = format!("is traced by process {}", std::process::id());
    // The kernel names the thread.
    let tracer = tracer.split(" process ").next().expect("words");
    refused(&world, victim.pid(), FAILED, tracer);
    talk_both(&mut victim, a, b);
    ptrace::interrupt(traced).expect("stop a victim");
    let stop = waitpid(traced, Some(WaitPidFlag::__WALL)).expect("wait for a victim");
    assert!(matches!(stop, WaitStatus::PtraceEvent(..)), "{stop:?}");
    ptrace::detach(traced, None::<Signal>).expect("let go of a victim");
    assert_eq!(number(&refresh(&world, victim.pid()), "replaced"), 2);
    talk_both(&mut victim, a, b);
}

#[test]
fn a_process_whose_calls_are_filtered() {
    if !needs::met(&[Need::Root, Need::Program("perl")]) {
        return;
    }
    let world = world();
    let mut perl = Perl::start();
    perl.pair();
    // Everything is allowed: `BPF_RET | BPF_K`, `SECCOMP_RET_ALLOW`.
    let code = "$filter = pack('SCCL', 6, 0, 0, 0x7fff0000); $all = pack('Sx6P', 1, $filter);";
    perl.ask(&format!("{code} 1"));
    // `PR_SET_NO_NEW_PRIVS`, `SECCOMP_SET_MODE_FILTER`.
    perl.call(libc::SYS_prctl, "38, 1, 0, 0, 0").expect("no new privileges");
    perl.call(libc::SYS_seccomp, "1, 0, $all").expect("a filter");
    refused(&world, perl.pid(), REFUSED, "are filtered (seccomp)");
    let sent = "syswrite($kept[0], 'something'); sysread($kept[1], my $heard, 9); $heard";
    assert_eq!(perl.ask(sent), "something");
}

/// What was begun in the others is taken back.
#[test]
fn a_tree_with_such_a_process() {
    if !needs::met(&[Need::Root, Need::Program("perl")]) {
        return;
    }
    let world = world();
    let mut perl = Perl::start();
    perl.pair();
    perl.ask("$filter = pack('SCCL', 6, 0, 0, 0x7fff0000); $all = pack('Sx6P', 1, $filter); 1");
    perl.ask("pipe($told, $tell); 1");
    // It ends with its parent.
    let does = "syscall(157, 1, 9); syscall(157, 38, 1); syscall(317, 1, 0, $all);";
    let child = format!("$child = fork // die; if (!$child) {{ {does} syswrite($tell, 'x'); ");
    perl.ask(&format!("{child} sleep 600; exit }} sysread($told, my $x, 1); 1"));
    let child = perl.number("$child");
    let root = perl.pid().to_string();
    unharmed(child, REFUSED, "are filtered (seccomp)", || {
        let mut answer = None;
        let run = || {
            let refused = world.ucr.run(&["refresh", "--tree", "--pid", &root]);
            answer = Some(refused.clone());
            refused
        };
        unharmed(perl.pid(), REFUSED, &format!("process {child}"), run);
        answer.expect("an answer")
    });
    let sent = "syswrite($kept[0], 'something'); sysread($kept[1], my $heard, 9); $heard";
    assert_eq!(perl.ask(sent), "something");
}

#[test]
fn a_process_without_room_for_memory() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let pid = rustix::process::Pid::from_raw(victim.pid());
    let limit = |current| prlimit(pid, Resource::As, Rlimit { current, maximum: None });
    let before = limit(Some(0)).expect("limit a victim");
    refused(&world, victim.pid(), REFUSED, "mmap");
    prlimit(pid, Resource::As, before).expect("limit a victim no more");
    talk_both(&mut victim, a, b);
    assert_eq!(number(&refresh(&world, victim.pid()), "replaced"), 2);
    talk_both(&mut victim, a, b);
}

#[test]
fn a_program_of_32_bits() {
    if !needs::met(&[Need::Root, Need::Program("cc")]) {
        return;
    }
    let world = world();
    let mut victim = match I386::start(&world) {
        Ok(victim) => victim,
        Err(why) => return needs::absent(&why),
    };
    // `socket(AF_UNIX, SOCK_STREAM)`, and `getpid`.
    let (made, _) = victim.call(359, &[1, 1, 0], &[]);
    assert!(made.is_ok(), "{made:?}");
    refused(&world, victim.pid(), REFUSED, "runs 32-bit code");
    assert_eq!(victim.call(20, &[], &[]).0, Ok(victim.pid()));
}

#[test]
fn a_process_of_somebody_else() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let pid = victim.pid();
    unharmed(pid, FAILED, "ermi", || {
        world.ucr.run_as_nobody(&["refresh", "--pid", &pid.to_string()])
    });
    talk_both(&mut victim, a, b);
}

#[test]
fn a_full_table_of_descriptors_is_no_obstacle() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let (c, d) = victim.pair("dgram");
    // As many as it has, and its limit is reached.
    victim.ask("limit 40");
    let full = wait::holds(|| victim.tell("socket stream") == Err("EMFILE".to_owned()));
    assert!(full && outside::sockets(victim.pid()).len() > 4);
    let limits = || std::fs::read_to_string(format!("/proc/{}/limits", victim.pid()));
    let before = limits().expect("limits");
    assert_eq!(number(&refresh(&world, victim.pid()), "kept"), 0);
    assert_eq!(limits().expect("limits"), before);
    assert!(wait::is_alive(victim.pid()));
    assert_eq!(victim.tell("socket stream"), Err("EMFILE".to_owned()));
    talk_both(&mut victim, a, b);
    talk_both(&mut victim, c, d);
}

#[test]
fn nor_is_one_with_little_room() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    victim.ask("pairs 20");
    victim.ask("limit 80");
    let full = wait::holds(|| victim.tell("socket stream") == Err("EMFILE".to_owned()));
    assert!(full && outside::sockets(victim.pid()).len() > 40);
    for room in 1..=8 {
        let last = *outside::sockets(victim.pid()).keys().next_back().expect("a socket");
        victim.close(last);
        let report = refresh(&world, victim.pid());
        assert_eq!(number(&report, "kept"), 0, "{room}: {report:#}");
        talk_both(&mut victim, a, b);
    }
}
