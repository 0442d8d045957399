//! A socket's record lives as long as the socket, however that ends.

use std::process::{Command, Stdio};

use ucr_tests::{Need, World, needs, outside, wait};

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
    world.ucr.attach();
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
    world.ucr.attach();
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
    world.ucr.attach();
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
    world.ucr.attach();
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
    world.ucr.attach();
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

#[test]
fn close_range_is_a_close_of_each() {
    if !needs::met(&[Need::Root, Need::Program("perl")]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    // A program that has the call at hand: number 436 on every architecture.
    let script = "use Socket; socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, 0); $| = 1; \
                  print fileno($a), ' ', fileno($b), \"\\n\"; <STDIN>; \
                  syscall(436, 3, 0xffffffff, 0); print \"closed\\n\"; <STDIN>;";
    let mut perl = Command::new("perl");
    perl.args(["-e", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut perl = perl.spawn().expect("start perl");
    let pid = i32::try_from(perl.id()).expect("a pid");
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(perl.stdout.take().expect("its output")));
    let fds = lines.next().expect("a line").expect("text");
    let inodes: Vec<u32> = fds
        .split(' ')
        .map(|fd| outside::inode(pid, fd.parse().expect("a number")).expect("a socket"))
        .collect();
    assert!(inodes.iter().all(|inode| world.ucr.record(*inode).is_some()));
    let mut input = perl.stdin.take().expect("its input");
    std::io::Write::write_all(&mut input, b"\n").expect("write to perl");
    assert_eq!(lines.next().expect("a line").expect("text"), "closed");
    assert!(inodes.iter().all(|inode| world.ucr.record(*inode).is_none()));
    drop(input);
    assert!(wait::for_end(&mut perl).success());
}
