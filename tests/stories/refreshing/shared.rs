//! One socket that several processes have, and a message on its way as well, becomes one socket.

use ucr::sys::compare::same_file;
use ucr_tests::{Need, needs, outside};

use super::{number, refresh};
use crate::world;

#[test]
fn one_socket_in_three_processes_and_a_message_is_one_afterwards() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut root = world.victim();
    let (carrier, receiver) = root.pair("stream");
    let (shared, other) = root.pair("stream");
    let listener = root.listener("seqpacket", &world.path_name("socket"), 5);
    let mut child = root.child(&world.control());
    let mut grandchild = child.child(&world.control());
    root.ask(&format!("pass {shared} {carrier}"));
    root.ask(&format!("pass {listener} {carrier}"));
    // One that lives in a message alone.
    let (alone, end) = root.pair("dgram");
    root.ask(&format!("pass {alone} {carrier}"));
    root.close(alone);
    root.ask(&format!("send {end} through-the-message"));

    let pids = [root.pid(), child.pid(), grandchild.pid()];
    let before = outside::sockets(pids[0]);
    for _ in 0..3 {
        let report = refresh(&world, pids[0]);
        assert_eq!(number(&report, "kept"), 0, "{report:#}");
    }
    for fd in [carrier, receiver, shared, other, listener] {
        let inodes = pids.map(|pid| outside::inode(pid, fd));
        assert!(inodes[0].is_some() && inodes.iter().all(|inode| *inode == inodes[0]));
        assert_ne!(inodes[0], before.get(&fd).copied());
        for pid in &pids[1..] {
            assert!(same_file((pids[0], fd), (*pid, fd)).expect("compare"), "{fd}");
        }
    }

    // The message comes to the last of them.
    let taken = [receiver; 3].map(|fd| grandchild.number(&format!("take {fd}")));
    for (taken, fd) in taken.iter().zip([shared, listener]) {
        assert!(same_file((pids[2], *taken), (pids[0], fd)).expect("compare"), "{fd}");
    }
    assert_eq!(grandchild.ask(&format!("recv {}", taken[2])), "through-the-message");

    // What one does to it, all see.
    child.ask(&format!("nonblock {shared}"));
    for pid in pids {
        assert_ne!(outside::flags(pid, shared) & libc::O_NONBLOCK, 0);
    }
    assert_eq!(root.tell(&format!("recv {shared}")), Err("EAGAIN".to_owned()));
    root.ask(&format!("send {other} first"));
    assert_eq!(grandchild.ask(&format!("recv {}", taken[0])), "first");
    let client = root.client("seqpacket", &world.path_name("socket"));
    let accepted = grandchild.accept(taken[1]);
    root.ask(&format!("send {client} second"));
    assert_eq!(grandchild.ask(&format!("recv {accepted}")), "second");
}
