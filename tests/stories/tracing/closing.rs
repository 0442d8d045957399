//! A socket's record lives as long as the socket, however that ends.

use ucr_tests::{Need, Perl, World, needs, outside, wait};

use crate::world;

fn is_gone(world: &World, inode: u32) {
    wait::until(&format!("the record of inode {inode} to go"), || {
        world.ucr.record(inode).is_none().then_some(())
    });
}

#[test]
fn the_last_close_removes_the_record_and_no_other_does() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let fd = victim.socket("stream");
    let inode = victim.inode(fd);
    assert!(world.ucr.record(inode).is_some());

    victim.ask(&format!("dup {fd} 100"));
    victim.close(fd);
    assert!(world.ucr.record(inode).is_some(), "descriptor 100 still leads to it");
    victim.close(100);
    assert!(world.ucr.record(inode).is_none(), "the last close is seen before it is done");
}

#[test]
fn a_dup_onto_it_is_a_close() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let (kept, covered) = (victim.socket("stream"), victim.socket("seqpacket"));
    let (kept_inode, covered_inode) = (victim.inode(kept), victim.inode(covered));
    victim.ask(&format!("dup {kept} {covered}"));
    assert!(world.ucr.record(covered_inode).is_none());
    assert!(world.ucr.record(kept_inode).is_some());
}

#[test]
fn an_exit_closes_all_of_its_sockets() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    for ending in ["exit", "kill"] {
        let mut victim = world.victim();
        let fds = [victim.socket("stream"), victim.socket("dgram"), victim.pair("stream").0];
        let inodes = fds.map(|fd| victim.inode(fd));
        assert!(inodes.iter().all(|inode| world.ucr.record(*inode).is_some()));
        if ending == "kill" {
            victim.kill();
        } else {
            victim.order("exit");
            assert!(victim.ended().success());
        }
        for inode in inodes {
            is_gone(&world, inode);
        }
    }
}

#[test]
fn a_socket_outlives_a_process_that_shared_it() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let fd = victim.socket("stream");
    let inode = victim.inode(fd);
    let mut child = victim.child(&world.control());
    assert_eq!(child.inode(fd), inode);
    child.order("exit");
    wait::until("the child's end", || (!wait::is_alive(child.pid())).then_some(()));
    assert!(world.ucr.record(inode).is_some(), "its parent still holds it");
    victim.close(fd);
    assert!(world.ucr.record(inode).is_none());
}

#[test]
fn exec_closes_what_is_close_on_exec_and_nothing_else() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let status = world.ucr.run(&["status", "--json"]).done().json();
    let left_out = status["left_out"].to_string();
    let mut victim = world.victim();
    let (goes, stays) = (victim.socket("stream+cloexec"), victim.socket("stream"));
    let (gone, there) = (victim.inode(goes), victim.inode(stays));
    victim.order("exec");
    victim.again();
    assert_eq!(outside::inode(victim.pid(), goes), None);
    assert!(world.ucr.record(there).is_some());
    // Where the kernel has no such hook, `ucr status` says so, and the record goes stale.
    if !left_out.contains("sched_prepare_exec") {
        is_gone(&world, gone);
    }
}

/// System call numbers of x86-64.
const DUP2: i64 = 33;
const DUP3: i64 = 292;
const CLOSE_RANGE: i64 = 436;
const CLOSE_RANGE_UNSHARE: u32 = 2;
const CLOSE_RANGE_CLOEXEC: u32 = 4;

/// Both ends of a pair of a perl, recorded.
fn recorded_pair(world: &World, perl: &mut Perl) -> ([i32; 2], [u32; 2]) {
    let (a, b) = perl.pair();
    let inodes = [a, b].map(|fd| outside::inode(perl.pid(), fd).expect("a socket"));
    assert!(inodes.iter().all(|inode| world.ucr.record(*inode).is_some()));
    ([a, b], inodes)
}

#[test]
fn close_range_is_a_close_of_each() {
    if !needs::met(&[Need::Root, Need::Program("perl")]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    for flags in [0, CLOSE_RANGE_UNSHARE] {
        let mut perl = Perl::start();
        let (fds, inodes) = recorded_pair(&world, &mut perl);
        let range = format!("{}, 0xffffffff, {flags}", fds[0]);
        assert_eq!(perl.call(CLOSE_RANGE, &range), Ok(0));
        assert!(outside::sockets(perl.pid()).is_empty());
        assert!(inodes.iter().all(|inode| world.ucr.record(*inode).is_none()), "flags {flags}");
    }
}

#[test]
fn close_range_in_a_table_that_others_share_leaves_them_theirs() {
    if !needs::met(&[Need::Root, Need::Program("perl")]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut perl = Perl::start();
    let (fds, inodes) = recorded_pair(&world, &mut perl);
    // clone(CLONE_FILES | SIGCHLD): the child takes a table of its own, closes there, and waits.
    let child = perl.number(&format!(
        "pipe($r, $w); my $p = syscall(56, 0x400 | 17, 0, 0, 0, 0); \
         if ($p == 0) {{ syscall(157, 1, 9, 0, 0, 0); \
         syscall({CLOSE_RANGE}, {}, {}, {CLOSE_RANGE_UNSHARE}); syswrite $w, 'x'; \
         sleep 600 while 1 }} sysread $r, my $done, 1; $p",
        fds[0], fds[1]
    ));
    assert!(outside::sockets(child).is_empty());
    assert_eq!(outside::sockets(perl.pid()).len(), 2);
    assert!(inodes.iter().all(|inode| world.ucr.record(*inode).is_some()));
}

#[test]
fn calls_that_fail_close_nothing() {
    if !needs::met(&[Need::Root, Need::Program("perl")]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut perl = Perl::start();
    let ([a, b], inodes) = recorded_pair(&world, &mut perl);
    let (einval, ebadf) = (22, 9);
    // A flag that there is not; one that only marks; both ends the same; nothing to duplicate.
    assert_eq!(perl.call(DUP3, &format!("0, {b}, 4")), Err(einval));
    assert_eq!(perl.call(DUP3, &format!("{b}, {b}, 0")), Err(einval));
    assert_eq!(perl.call(DUP2, &format!("{b}, {b}")), Ok(b));
    assert_eq!(perl.call(DUP2, &format!("999, {b}")), Err(ebadf));
    assert_eq!(perl.call(CLOSE_RANGE, &format!("{a}, {b}, 1")), Err(einval));
    assert_eq!(perl.call(CLOSE_RANGE, &format!("{a}, {b}, 8")), Err(einval));
    assert_eq!(perl.call(CLOSE_RANGE, &format!("{a}, {b}, {CLOSE_RANGE_CLOEXEC}")), Ok(0));
    assert_eq!(perl.call(CLOSE_RANGE, &format!("{b}, {a}, 0")), Err(einval));
    // A socket at a number that has since come to lie beyond RLIMIT_NOFILE.
    assert_eq!(perl.call(DUP2, &format!("{b}, 50")), Ok(50));
    perl.ask(
        "close $kept[1] or die; my $limit = pack('QQ', 20, 20); syscall(302, 0, 7, $limit, 0)",
    );
    assert_eq!(perl.call(DUP2, "0, 50"), Err(ebadf));

    assert_eq!(outside::sockets(perl.pid()).into_keys().collect::<Vec<_>>(), [a, 50]);
    assert!(inodes.iter().all(|inode| world.ucr.record(*inode).is_some()));
    let (pid, image) = (perl.pid().to_string(), world.path("image").display().to_string());
    let report = world.ucr.run(&["dump", "--json", "--pid", &pid, "-o", &image]).done().json();
    assert_eq!(report["counts"]["confirmed"], 2, "{report:#}");
}
