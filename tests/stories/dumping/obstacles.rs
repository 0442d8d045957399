//! What cannot be dumped is refused by name, all of it at once, and the target goes on.

use serde_json::Value;
use ucr_tests::{Need, needs, ucr::REFUSED, victim::talk};

use super::dump;
use crate::world;

/// The obstacle at a descriptor.
pub(super) fn at(report: &Value, fd: i32) -> &Value {
    let obstacles = report["obstacles"].as_array().expect("a list");
    let found = obstacles.iter().find(|obstacle| obstacle["fd"] == fd);
    found.unwrap_or_else(|| panic!("no obstacle at {fd}: {report:#}"))
}

#[test]
fn all_of_them_are_listed_at_once() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    let mut other = world.victim();
    let outside_name = world.abstract_name(b"-outside");
    let outside = other.listener("stream", &outside_name, 5);

    let packet = victim.socket("packet");
    let far = other.socket("dgram");
    other.bind(far, &outside_name);
    let near = victim.client("dgram", &outside_name);
    // What carries a file that is no socket, and a connection that has not been accepted there.
    let (sender, carrying) = victim.pair("stream");
    let away = victim.number("open /dev/null");
    victim.ask(&format!("msg send {sender} data=78 fds={away}"));
    victim.close(away);
    let external = victim.client("stream", &outside_name);
    let theirs = other.accept(outside);
    let waiting = victim.client("stream", &outside_name);

    let image = world.path("image");
    let refused = dump(&world, &victim, &image, &[]).ended(REFUSED);
    assert!(!image.exists());
    let report = refused.json();
    let expected = [
        (packet, "family", "AF_PACKET"),
        (near, "external_peer", "victim"),
        (carrying, "file_in_flight", "/dev/null, which is no unix socket"),
        (waiting, "not_accepted", "waits to be accepted by pid"),
        (external, "external_peer", "victim"),
    ];
    for (fd, kind, words) in expected {
        let obstacle = at(&report, fd);
        assert_eq!(obstacle["kind"], kind, "{obstacle}");
        assert_eq!(obstacle["pid"], victim.pid());
        assert_eq!(obstacle["inode"], victim.inode(fd));
        let text = obstacle["text"].as_str().expect("text");
        assert!(text.contains(words), "{text}");
        // The same line for people.
        assert!(refused.stderr.contains(text), "{}", refused.stderr);
    }
    let holder = &at(&report, external)["holders"][0];
    assert_eq!((&holder["pid"], &holder["fd"]), (&other.pid().into(), &theirs.into()));
    assert_eq!(report["obstacles"].as_array().expect("a list").len(), expected.len());

    // Nothing was touched: what was queued is still there, who waited is accepted.
    assert!(victim.ask(&format!("msg recv {carrying}")).starts_with("data=78 "));
    other.accept(outside);
    talk(&mut victim, external, &mut other, theirs);
}

#[test]
fn what_a_process_outside_shares_is_refused_with_its_holder() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let name = world.abstract_name(b"");
    let listener = victim.listener("stream", &name, 5);
    let child = victim.child(&world.control());
    let image = world.path("image");
    let report = dump(&world, &victim, &image, &[]).ended(REFUSED).json();
    let obstacle = at(&report, listener);
    assert_eq!(obstacle["kind"], "shared_outside", "{obstacle}");
    assert_eq!(obstacle["holders"][0]["pid"], child.pid());
    // Seen from the whole tree nothing is outside.
    let _written = dump(&world, &victim, &image, &["--tree"]).done();
}

#[test]
fn what_no_order_of_calls_brings_back_is_not_written() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    // What is queued comes from one that had the name which its receiver has now.
    let name = world.abstract_name(b"name");
    let (early, late) = (victim.socket("dgram"), victim.socket("dgram"));
    let receiver = world.path_name("receiver");
    victim.bind(late, &receiver);
    victim.bind(early, &name);
    victim.ask(&format!("msg send {early} data=78 to={}", ucr_tests::world::hex(&receiver)));
    victim.close(early);
    let again = victim.socket("dgram");
    victim.bind(again, &name);
    let image = world.path("image");
    let refused = dump(&world, &victim, &image, &[]).ended(REFUSED);
    let _said =
        refused.complains("it could not be restored: a socket that has closed had the name");
    assert!(!image.exists());
    victim.close(again);
    let _written = dump(&world, &victim, &image, &[]).done();
}

#[test]
fn a_peer_in_the_tree_is_no_obstacle_but_alone_it_is() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("seqpacket");
    let mut child = victim.child(&world.control());
    victim.close(b);
    child.close(a);
    let image = world.path("image");
    let report = dump(&world, &victim, &image, &[]).ended(REFUSED).json();
    assert_eq!(at(&report, a)["kind"], "external_peer");
    assert_eq!(at(&report, a)["holders"][0]["pid"], child.pid());
    let _written = dump(&world, &victim, &image, &["--tree"]).done();
}

#[test]
fn a_relative_path_that_nobody_saw_being_bound_is_refused() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    std::fs::create_dir(world.path("below")).expect("a folder");
    victim.ask(&format!("chdir {}", world.path("below").display()));
    let fd = victim.socket("stream");
    // Nor does the kernel's name for the file tell, where the path goes up.
    victim.bind(fd, b"../relative");
    victim.ask("chdir /");
    let image = world.path("image");
    let report = dump(&world, &victim, &image, &[]).ended(REFUSED).json();
    assert_eq!(at(&report, fd)["kind"], "unknown_directory", "{report:#}");
}

#[test]
fn looking_at_a_datagram_socket_takes_nothing_from_it() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    // Readable, since it is shut down, but nothing is there.
    let (shut, _peer) = victim.pair("dgram");
    victim.ask(&format!("shutdown {shut} read"));
    let image = world.path("image");
    dump(&world, &victim, &image, &[]).done();
    // Its peer has turned away and thrown away what it had not read: an error waits to be told.
    let (left, turned) = victim.pair("dgram");
    victim.ask(&format!("send {left} unread"));
    victim.ask(&format!("disconnect {turned}"));
    for _ in 0..2 {
        dump(&world, &victim, &image, &[]).done();
    }
    assert_eq!(victim.tell(&format!("recv {left}")), Err("ECONNRESET".to_owned()));
    dump(&world, &victim, &image, &[]).done();
}
