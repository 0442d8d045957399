//! Connections that nobody had accepted yet: in their order, with what was sent on them, and with clients
//! that have shut down or left.

use ucr_tests::{Need, Victim, needs, outside, world::hex};

use super::{bring_back, take};
use crate::{dumping::dump, world};

fn text(victim: &mut Victim, fd: i32) -> String {
    match victim.tell(&format!("recv {fd}")) {
        Ok(text) => text,
        Err(errno) => errno,
    }
}

#[test]
fn they_are_accepted_in_their_order_with_all_that_was_sent() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    for kind in ["stream", "seqpacket"] {
        let mut victim = world.victim();
        let name = world.path_name(&format!("{kind}-listener"));
        let listener = victim.listener(kind, &name, 8);
        let early = victim.client(kind, &name);
        let accepted = victim.accept(listener);
        // With a name and data; shut down; large; with descriptors; gone without and with data.
        let named = victim.socket(kind);
        victim.bind(named, &world.abstract_name(kind.as_bytes()));
        victim.connect(named, &name);
        victim.ask(&format!("send {named} named"));
        let shut = victim.client(kind, &name);
        victim.ask(&format!("send {shut} last-words"));
        victim.ask(&format!("shutdown {shut} write"));
        let large = victim.client(kind, &name);
        victim.ask(&format!("msg send {large} fill=50000"));
        let passing = victim.client(kind, &name);
        victim.ask(&format!("msg send {passing} data=78 fds={early},{passing}"));
        let left = victim.client(kind, &name);
        victim.close(left);
        let gone = victim.socket(kind);
        victim.bind(gone, &world.abstract_name(format!("{kind}-gone").as_bytes()));
        victim.connect(gone, &name);
        victim.ask(&format!("send {gone} farewell"));
        victim.close(gone);
        let before = outside::seen(victim.pid(), listener).receive_queue;
        assert_eq!(before, 6);

        let _image = dump(&world, &victim, &world.path("first"), &["--tree"]).done();
        assert_eq!(outside::seen(victim.pid(), listener).receive_queue, 6, "left alone");
        let mut victim = bring_back(&world, &take(&world, victim));
        let pending = outside::seen(victim.pid(), listener).pending;
        let clients: Vec<u32> =
            [named, shut, large, passing].map(|fd| victim.inode(fd)).into_iter().collect();
        assert_eq!(pending, [clients.as_slice(), &[0, 0]].concat());
        let servers: Vec<i32> = (0..6).map(|_| victim.accept(listener)).collect();
        let &[a, b, c, d, e, f] = servers.as_slice() else { panic!("six") };
        assert_eq!(victim.peer_name(a), world.abstract_name(kind.as_bytes()));
        assert_eq!(text(&mut victim, a), "named");
        assert_eq!(text(&mut victim, b), "last-words");
        assert_eq!(text(&mut victim, b), "", "the end of what it sends");
        victim.ask(&format!("send {b} answer"));
        assert_eq!(text(&mut victim, shut), "answer");
        assert_eq!(victim.ask(&format!("msg drain {c} 50000")), "as sent");
        let message = victim.ask(&format!("msg recv {d}"));
        let files = message.split(' ').find_map(|word| word.strip_prefix("fds=")).expect("fds");
        let files: Vec<u32> =
            files.split(',').map(|fd| victim.inode(fd.parse().expect("a number"))).collect();
        assert_eq!(files, [victim.inode(early), victim.inode(passing)]);
        assert_eq!(text(&mut victim, e), "");
        assert_eq!(victim.peer_name(f), world.abstract_name(format!("{kind}-gone").as_bytes()));
        assert_eq!(text(&mut victim, f), "farewell");
        assert_eq!(text(&mut victim, f), "");
        ucr_tests::victim::talk_both(&mut victim, early, accepted);
        assert_eq!(victim.tell(&format!("connect {early} {}", hex(&name))), Err("EISCONN".into()));
    }
}

#[test]
fn more_may_wait_than_the_backlog_says_now() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let name = world.abstract_name(b"listener");
    let listener = victim.listener("stream", &name, 5);
    let clients: Vec<i32> = (0..5).map(|_| victim.client("stream", &name)).collect();
    victim.ask(&format!("listen {listener} 1"));
    let mut victim = bring_back(&world, &take(&world, victim));
    let seen = outside::seen(victim.pid(), listener);
    let inodes: Vec<u32> = clients.iter().map(|fd| victim.inode(*fd)).collect();
    assert_eq!((seen.pending, seen.send_queue), (inodes, 1));
    let server = victim.accept(listener);
    victim.ask(&format!("send {} hello", clients[0]));
    assert_eq!(victim.ask(&format!("recv {server}")), "hello");
}

#[test]
fn those_with_somebody_outside_are_refused_by_name_or_left_dangling() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (mut server, mut client) = (world.victim(), world.victim());
    let name = world.abstract_name(b"listener");
    let listener = server.listener("stream", &name, 5);
    let fd = client.client("stream", &name);
    client.ask(&format!("send {fd} unread"));
    let image = world.path("image");
    // From either side.
    let said = dump(&world, &server, &image, &[]).ended(ucr_tests::ucr::REFUSED);
    let pid = client.pid();
    let said = said.complains(&format!("1 connection not accepted yet, from pid {pid} (victim)"));
    drop(said);
    let pid = server.pid();
    let said = dump(&world, &client, &image, &[]).ended(ucr_tests::ucr::REFUSED);
    drop(said.complains(&format!("waits to be accepted by pid {pid} (victim)")));
    assert!(!image.exists());
    // The listener's side without the client.
    let _written = dump(&world, &server, &image, &["--external", "dangling", "--kill"]).done();
    let _status = server.ended();
    let mut server = bring_back(&world, &image);
    let accepted = server.accept(listener);
    assert_eq!(text(&mut server, accepted), "unread");
    assert_eq!(text(&mut server, accepted), "");
}

#[test]
fn what_was_inherited_from_the_listener_is_there() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let name = world.abstract_name(b"listener");
    let listener = victim.listener("stream", &name, 5);
    victim.ask(&format!("passcred {listener}"));
    let client = victim.client("stream", &name);
    victim.ask(&format!("send {client} hello"));
    let mut victim = bring_back(&world, &take(&world, victim));
    let server = victim.accept(listener);
    let passes = victim.ask(&format!("get {server} {}", libc::SO_PASSCRED));
    assert_eq!(passes, hex(&1_i32.to_ne_bytes()));
    assert_eq!(text(&mut victim, server), "hello");
}
