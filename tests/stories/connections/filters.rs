//! Kernels before 6.6 have no links at interfaces. Filters, which take their place, do not go with their maker.

use std::{
    fs::{self, DirEntry},
    io::Write as _,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ucr_tests::{Host, Need, World, needs, network::ip, outside, perl::Perl, ucr::FAILED, wait};

use super::{Scene, Way, can as can_all, pattern};
use crate::world;

/// `forge`: has a segment come by the loopback interface, from a port to another one, that no socket has sent. That of
/// this process is on the same machine: what it sends to a locked connection does not even leave it.
const FORGE: &str = r#"sub forge { my $a = Socket::inet_pton(AF_INET6, "::1"); my $t = pack("nnNNnnnn", @_, 1, 1, 0x5010, 1000, 0, 0); my $n = 0; $n += $_ for unpack("n*", $a . $a . pack("NN", length($t), 6) . $t); $n = ($n & 0xffff) + ($n >> 16) while $n >> 16; substr($t, 16, 2) = pack("n", ~$n & 0xffff); socket(my $s, 17, SOCK_DGRAM, 0); send($s, pack("NnCC", 6 << 28, length($t), 6, 64) . $a . $a . $t, 0, pack("SnlSCCx8", 17, 0x86dd, 1, 0, 0, 6)) } 1"#;

/// A program that lets every packet in, as `tc` takes it.
const EVERYTHING: &str = "1,6 0 0 4294967295";

fn can() -> bool {
    can_all() && needs::met(&[Need::Program("tc"), Need::Program("ip")])
}

/// A connection over IPv6 in a network namespace where nobody else's filters come and go.
fn scene() -> Scene {
    let mut world = world();
    world.ucr.force_filters();
    scene_of(world)
}

fn scene_of(world: World) -> Scene {
    Host::new().enter();
    let listener = TcpListener::bind((Way::Six.address(), 0)).expect("listen");
    Scene::with(world, Way::Six, Way::Six.address(), &listener)
}

/// How many resets the kernel has sent in this thread's network namespace.
fn resets() -> u64 {
    let told = fs::read_to_string("/proc/thread-self/net/snmp").expect("read it");
    let mut lines = told.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut both = names.split(' ').zip(values.split(' '));
    let (_, value) = both.find(|(name, _)| *name == "OutRsts").expect("a count");
    value.parse().expect("a number")
}

/// Whether the kernel answers what comes from another host for the process that was dumped.
fn is_answered(scene: &Scene) -> bool {
    let (from, to) = (scene.remote.local_addr(), scene.remote.peer_addr());
    let (from, to) = (from.expect("its port").port(), to.expect("its port").port());
    let before = resets();
    let mut stranger = Perl::start();
    stranger.ask(FORGE);
    assert_eq!(stranger.ask(&format!("forge({from}, {to})")), "60");
    // For one that nobody has, and that is not locked: by then the first has come as well.
    assert_eq!(stranger.ask("forge(1, 1)"), "60");
    wait::until("an answer", || (resets() > before).then_some(()));
    resets() > before + 1
}

fn tc(arguments: &str, last: Option<&str>) -> String {
    let mut command = Command::new("tc");
    command.args(arguments.split(' ')).args(last).stdin(Stdio::null());
    let output = command.output().expect("run tc");
    assert!(output.status.success(), "tc {arguments}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn qdiscs() -> String {
    tc("qdisc show", None)
}

/// How many filters of ucr are at an interface.
fn filters(interface: &str) -> usize {
    tc(&format!("filter show dev {interface} ingress"), None).matches("lock_filter").count() / 2
}

/// Whether ucr has hung one on all of them.
fn has_all(interfaces: &[&str]) -> bool {
    interfaces.iter().all(|interface| filters(interface) == 1)
}

/// How many filters are written down of a process of ucr.
fn written(ucr: i32) -> usize {
    let own = format!("{ucr}-");
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let begins =
        |entry: &DirEntry, with: &str| entry.file_name().to_string_lossy().starts_with(with);
    let mut locks = entries(Path::new("/sys/fs/bpf/ucr-lock"));
    let lock = locks.find(|entry| begins(entry, &own));
    lock.map_or(0, |lock| entries(&lock.path()).filter(|entry| begins(entry, "filter-")).count())
}

#[test]
fn who_is_not_locked_any_more_is_answered_for() {
    if !can() {
        return;
    }
    let mut scene = scene();
    scene.dump(&["--kill", "--lock-for", "2s"]).done();
    assert!(!is_answered(&scene));
    wait::until("the lock to end", || is_answered(&scene).then_some(()));
    assert_eq!(filters("lo"), 1);
    scene.victim = Perl::start();
    let _other =
        scene.world.ucr.run(&["dump", "--pid", &scene.victim.pid().to_string(), "-o", "/proc/no"]);
    assert_eq!(filters("lo"), 0, "the next run has taken it off");
}

/// By links, if the kernel has them.
#[test]
fn nobody_answers_at_an_interface() {
    if !can() {
        return;
    }
    let mut scene = scene_of(world());
    scene.dump_and_kill();
    assert!(!is_answered(&scene));
    scene.restore();
    assert!(!is_answered(&scene), "by then there is a socket");
}

#[test]
fn the_other_end_notices_nothing_and_nothing_is_left() {
    if !can() {
        return;
    }
    let mut scene = scene();
    let before = qdiscs();
    let report = scene.world.ucr.run(&["features"]).done();
    assert!(report.stdout.contains("by filters"), "{}", report.stdout);
    assert_eq!(qdiscs(), before, "it is found out elsewhere");
    let (sent, received) = (scene.fill(), scene.fill_victim());
    scene.dump(&[]).done();
    assert_eq!(qdiscs(), before);
    scene.dump_and_kill();
    assert_eq!(filters("lo"), 1);
    assert!(!is_answered(&scene));
    scene.asks_in_vain();
    assert!(!scene.has_noticed());
    scene.restore();
    assert_eq!((qdiscs(), filters("lo")), (before, 0));
    assert!(scene.victim_reads(received));
    assert!(scene.read(sent) == pattern(sent));
    scene.remote.write_all(&pattern(100_000)).expect("write");
    assert!(scene.victim_reads(100_000));
    assert!(!scene.has_noticed());
}

#[test]
fn the_other_end_is_on_another_host() {
    if !can() {
        return;
    }
    let (near, far) = Host::pair();
    let listener = far.within(|| TcpListener::bind("[::]:0").expect("listen"));
    near.enter();
    let mut world = world();
    world.ucr.force_filters();
    let before = qdiscs();
    let address = "fd99::2".parse().expect("an address");
    let mut scene = Scene::with(world, Way::Six, address, &listener);
    scene.dump_and_kill();
    assert_eq!(filters("near"), 1);
    scene.remote.write_all(&pattern(1000)).expect("write");
    scene.asks_in_vain();
    assert!(!scene.has_noticed());
    scene.restore();
    assert!(scene.victim_reads(1000));
    assert_eq!(qdiscs(), before);
}

#[test]
fn nothing_is_left_of_a_dump_that_fails() {
    if !can() {
        return;
    }
    let mut scene = scene();
    let before = qdiscs();
    let pid = scene.victim.pid().to_string();
    let dump = ["dump", "--pid", &pid, "--kill", "-o", "/proc/no/image"];
    let _failed = scene.world.ucr.run(&dump).ended(FAILED);
    let _failed = scene.dump(&["--kill", "--lock-for", "1us"]).ended(FAILED);
    assert_eq!((qdiscs(), filters("lo")), (before, 0));
    scene.victim_writes("still here");
    assert_eq!(scene.read(10), b"still here");
}

#[test]
fn they_let_everything_pass_when_their_maker_is_killed_and_the_next_run_takes_them_off() {
    if !can() {
        return;
    }
    let mut scene = scene();
    // Some that will have other names by then, and some that will not be there.
    ip("link add first type veth peer name second");
    ip("link add third type veth peer name fourth");
    let pid = scene.victim.pid().to_string();
    let dump = ["dump", "--pid", &pid, "--kill", "-o", "/proc/no/image"];
    let all = ["lo", "first", "second", "third", "fourth"];
    let mut sent = 0;
    // A dump may be over before anybody sees that.
    let killed = wait::until("the connection to be locked", || {
        let mut started = scene.world.ucr.start(&dump);
        let ucr = started.pid();
        wait::holds(|| written(ucr) == all.len() || !wait::is_alive(ucr));
        kill(Pid::from_raw(ucr), Signal::SIGSTOP).expect("stop");
        scene.remote.write_all(&pattern(251)[sent % 251..][..1]).expect("write");
        sent += 1;
        let is_locked = scene.asks_in_vain() && has_all(&all);
        started.child().kill().expect("kill");
        drop(started.finish());
        is_locked.then_some(ucr)
    });
    let victim = scene.victim.pid();
    wait::until("the process to go on", || outside::state(victim).filter(|state| *state != 't'));
    scene.victim_writes("still here");
    assert_eq!(scene.read(10), b"still here");
    assert!(scene.victim_reads(sent));
    assert!(has_all(&all) && written(killed) == all.len(), "nobody has taken them off");

    ip("link set first name renamed");
    ip("link del third");
    let answer = scene.dump(&[]).done();
    assert!(!answer.stderr.contains("failed to take"), "{}", answer.stderr);
    let left = qdiscs();
    assert!(!left.contains("clsact") && written(killed) == 0, "{left}");
}

#[test]
fn what_somebody_else_has_hung_up_stays() {
    if !can() {
        return;
    }
    let mut scene = scene();
    ip("link add first type veth peer name second");
    tc("qdisc add dev lo clsact", None);
    let ingress = || tc("filter show dev lo ingress", None);
    let add = |place: &str| {
        tc(&format!("filter add dev {place} protocol all bpf bytecode"), Some(EVERYTHING));
    };
    // In the very first place; and in the room that ucr makes for its own.
    add("lo ingress prio 1");
    let theirs = ingress();
    scene.dump_and_kill();
    assert_eq!((filters("lo"), filters("first"), filters("second")), (1, 1, 1));
    add("second egress");
    // What is there by now has the place of one of ucr's.
    tc("filter del dev first ingress", None);
    add("first ingress prio 1");
    scene.remote.write_all(b"is there anybody?").expect("write");
    scene.asks_in_vain();
    assert!(!scene.has_noticed() && !is_answered(&scene), "theirs came first");
    scene.restore();
    assert_eq!(ingress(), theirs);
    assert_eq!(scene.victim.ask("sysread($s, $q, 100); $q"), "is there anybody?");
    let left = qdiscs();
    for interface in ["lo", "first", "second"] {
        assert!(left.contains(&format!("qdisc clsact ffff: dev {interface} ")), "{left}");
        assert_eq!(filters(interface), 0);
    }
    let egress = tc("filter show dev second egress", None);
    assert!(egress.contains(EVERYTHING), "{egress}");
}
