//! What tracepoints on system calls miss, brought about on purpose; and that a reconciliation, which
//! asks the kernel itself, makes it good.

use ucr::{snapshot::diag, tracer::hooks::Backend};
use ucr_common::record::{FLAG_PEER_CLOSED, Record, origin};
use ucr_tests::{Need, Perl, World, needs, outside, wait, world::hex};

use crate::{tracing::inode, watched};

/// System call numbers of x86-64.
const RECVFROM: i64 = 45;
const ACCEPT4: i64 = 288;
const EFAULT: i32 = 14;

fn needed(more: &[Need]) -> bool {
    needs::met(&[&[Need::Root, Need::Backend(Backend::Tracepoint)], more].concat())
}

/// The record stays although the kernel has no such socket any more, and goes with a reconciliation.
fn is_stale_until_reconciled(world: &World, inode: u32) {
    wait::until("the kernel to let go of it", || {
        let view = diag::unix_sockets().expect("a snapshot");
        view.get(inode).is_none().then_some(())
    });
    assert!(world.ucr.record(inode).is_some(), "its end was seen");
    let report = world.ucr.run(&["reconcile", "--json"]).done().json();
    assert!(report["removed"].as_u64() >= Some(1), "{report:#}");
    assert!(world.ucr.record(inode).is_none());
}

#[test]
pub(super) fn what_was_in_flight_ends_unseen() {
    if !needed(&[]) {
        return;
    }
    let world = watched(Backend::Tracepoint);
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let carried = victim.socket("dgram");
    let inode = victim.inode(carried);
    victim.ask(&format!("pass {carried} {a}"));
    for fd in [carried, a, b] {
        victim.close(fd);
    }
    is_stale_until_reconciled(&world, inode);
}

#[test]
pub(super) fn what_a_running_call_holds_ends_unseen() {
    if !needed(&[]) {
        return;
    }
    let world = watched(Backend::Tracepoint);
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let inode = victim.inode(a);
    let thread = victim.number(&format!("thread recv {a}"));
    let pid = victim.pid();
    wait::until("recv to wait", || {
        (outside::blocked_in(pid, thread) == Some(RECVFROM)).then_some(())
    });
    victim.close(a);
    victim.ask(&format!("send {b} word"));
    assert_eq!(victim.ask(&format!("join {thread}")), "word");
    is_stale_until_reconciled(&world, inode);
}

#[test]
pub(super) fn an_exec_among_threads_leaves_records() {
    if !needed(&[]) {
        return;
    }
    let world = watched(Backend::Tracepoint);
    let mut victim = world.victim();
    let fd = victim.socket("seqpacket+cloexec");
    let inode = victim.inode(fd);
    // A second thread: as long as it lives, the table is shared.
    victim.ask("count");
    victim.order("exec");
    victim.again();
    assert_eq!(outside::inode(victim.pid(), fd), None);
    is_stale_until_reconciled(&world, inode);
}

/// How often chance is given a chance.
const TRIES: usize = 60;

#[test]
pub(super) fn two_holders_that_end_at_once_leave_a_record() {
    if !needed(&[Need::Program("perl")]) {
        return;
    }
    let world = watched(Backend::Tracepoint);
    let mut perl = Perl::start();
    // Undoing operations on this many semaphores takes a process some 40 ms, between the hook on its
    // end and the closing of its descriptors: enough for the other one to get past that hook.
    perl.ask(
        "syscall(272, 0x08000000) == 0 or die $!; \
         @sets = map { semget(0, 32000, 01600) // die $! } 1 .. 64; 1",
    );
    let code = "my ($r, $w, $s, $t); pipe $r, $w; socketpair $s, $t, AF_UNIX, SOCK_STREAM, 0; \
        @p = (); for my $n (0, 1) { my $p = fork; if (!$p) { setpgrp 0, $p[0] // 0; \
        syscall 33, fileno $s, 900; close $s; close $t; \
        semop $_, pack 's3', 0, 1, 010000 or die $! for @sets; \
        syswrite $w, 'x'; sleep 600 while 1 } push @p, $p; sysread $r, my $x, 1; } \
        close $s; close $t; $p[0]";
    for _ in 0..TRIES {
        let child = perl.number(code);
        let inode = outside::inode(child, 900).expect("a socket");
        assert!(world.ucr.record(inode).is_some());
        perl.ask("kill -9, $p[0]; waitpid $_, 0 for @p; 1");
        if world.ucr.record(inode).is_some() {
            return is_stale_until_reconciled(&world, inode);
        }
    }
    panic!("in {TRIES} tries, they never ended at the same moment");
}

/// What came through a listener and has no inode.
fn embryos(world: &World, listener: u32) -> Vec<Record> {
    let records = world.ucr.ledger().records().expect("read the ledger");
    let waits = |r: &Record| r.listener.inode == u64::from(listener) && r.socket.inode == 0;
    records.into_iter().filter(waits).collect()
}

/// A listener of a perl, at an abstract name, in `$l`.
fn listener(world: &World, perl: &mut Perl) -> (Vec<u8>, u32) {
    let name = world.abstract_name(b"");
    let fd = perl.number(&format!(
        "socket $l, AF_UNIX, SOCK_STREAM, 0; bind $l, pack('S', 1) . pack('H*', '{}') or die $!; \
         listen $l, 5; fileno $l",
        hex(&name)
    ));
    (name, outside::inode(perl.pid(), fd).expect("a socket"))
}

#[test]
pub(super) fn an_accept_that_could_not_return_leaves_a_record() {
    if !needs::met(&[Need::Root, Need::Program("perl")]) {
        return;
    }
    for backend in ucr_tests::backends::attachable() {
        let world = watched(*backend);
        let (mut perl, mut client) = (Perl::start(), world.victim());
        let (name, through) = listener(&world, &mut perl);
        let fd = client.client("stream", &name);
        assert_eq!(embryos(&world, through).len(), 1);
        perl.ask("$length = pack('L', 110)");
        // The name of the client cannot be written to address 1.
        assert_eq!(perl.call(ACCEPT4, "fileno $l, 1, $length, 0"), Err(EFAULT));
        if *backend == Backend::Tracepoint {
            assert_eq!(embryos(&world, through).len(), 1, "it seems to wait still");
            world.ucr.run(&["reconcile"]).done();
        }
        assert_eq!(embryos(&world, through).len(), 0, "{}", backend.name());
        let left = world.ucr.record(client.inode(fd)).expect("a record");
        assert_eq!((left.peer.sk, left.flags & FLAG_PEER_CLOSED), (0, FLAG_PEER_CLOSED));
    }
}

#[test]
pub(super) fn a_connection_is_accepted_before_its_connect_is_seen() {
    if !needed(&[Need::Program("perl")]) {
        return;
    }
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return needs::absent("two processors, one to connect and one to accept");
    }
    let world = watched(Backend::Tracepoint);
    let (mut perl, mut client) = (Perl::start(), world.victim());
    let (name, _) = listener(&world, &mut perl);
    // Each of these is told of the connection before connect returns, which takes its time.
    let watchers = perl.number(
        "my $limit = pack 'QQ', 9000, 9000; syscall 302, 0, 7, $limit, 0; my $event = pack 'L3', 1, 0, 0; my $n = 0; \
         while ($n < 8000) { my $e = syscall 291, 0; last if $e < 0; \
         syscall(233, $e, 1, fileno $l, $event) == 0 or last; $n++ } $n",
    );
    assert_eq!(watchers, 8000);
    perl.ask("syscall 72, fileno $l, 4, 2048");
    // With the policy SCHED_FIFO, which a control group may forbid, nothing takes its processor away
    // at the wrong moment.
    perl.ask("my $priority = pack 'i', 1; syscall 144, 0, 1, $priority");
    let pids = [perl.pid().to_string(), client.pid().to_string()];
    let mut events = world.ucr.follow(&["--pid", &pids[0], "--pid", &pids[1]]);
    for _ in 0..TRIES {
        // Accepts as soon as there is something, which poll (of which nobody is told) says: each accept in
        // vain would be an event, and those that nobody has time to read push out the one that matters.
        perl.tell(
            "my ($c, $p) = (undef, pack 'l s2', fileno $l, 1, 0); 1 until syscall(7, $p, 1, 0) == 1; \
             accept $c, $l or die $!; push @c, $c; fileno $c",
        );
        let fd = client.client("stream", &name);
        let accepted = perl.answer();
        let mut kinds = Vec::new();
        while kinds.len() < 2 {
            let event = events.event("a step", |event| event["event"] != "socket");
            kinds.push((event["event"].clone(), event));
        }
        // Whatever came first, the ledger has both in the end.
        let fd_inode = outside::inode(perl.pid(), accepted.parse().expect("a number"));
        let known = world.ucr.record(fd_inode.expect("a socket")).expect("a record");
        assert_eq!(known.origin, origin::CONNECTION);
        assert_eq!(known.creator.pid, client.pid().cast_unsigned());
        assert_eq!(known.opener.pid, perl.pid().cast_unsigned());
        assert_eq!(known.peer.inode, u64::from(client.inode(fd)));
        if let [(first, accept), _] = &kinds[..]
            && first == "accept"
        {
            assert_eq!(inode(&accept["peer"]), u64::from(client.inode(fd)));
            return;
        }
    }
    // Two processors race here, and nothing can make one of them win.
    needs::absent(&format!("connect was the first to be seen in all of {TRIES} tries"));
}
