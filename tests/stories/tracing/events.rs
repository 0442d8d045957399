//! Every kind of event, with the fields that make it useful.

use ucr_tests::{Need, Victim, needs, world::hex};

use super::{inode, text};
use crate::world;

#[test]
fn the_life_of_a_connection_is_seen_step_by_step() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut server = world.victim();
    let mut client = world.victim();
    let (server_pid, client_pid) = (server.pid().to_string(), client.pid().to_string());
    let mut events = world.ucr.follow(&["--pid", &server_pid, "--pid", &client_pid]);
    let name = world.abstract_name(b"");

    let listener = server.socket("stream");
    let event = events.next("socket");
    assert_eq!(event["pid"], server.pid());
    assert_eq!(event["tid"], server.pid());
    assert_eq!(event["uid"], 0);
    assert_eq!(text(&event["comm"]), "victim");
    assert_eq!(event["fd"], listener);
    assert_eq!(event["type"], "stream");
    assert_eq!(inode(&event["socket"]), u64::from(server.inode(listener)));
    assert_eq!(event["netns"], own_netns());
    let time = event["time_ns_since_boot"].clone();

    server.bind(listener, &name);
    let event = events.next("bind");
    assert_eq!(event["name"]["kind"], "abstract");
    assert_eq!(event["name"]["hex"], hex(&name[1..]));
    assert_eq!(event["result"], 0);

    server.ask(&format!("listen {listener} 7"));
    let event = events.next("listen");
    assert_eq!(event["argument"], 7);
    assert_eq!(event["name"]["hex"], hex(&name[1..]));

    let fd = client.client("stream", &name);
    let event = events.next("connect");
    assert_eq!((&event["pid"], &event["fd"]), (&client.pid().into(), &fd.into()));
    assert_eq!(inode(&event["socket"]), u64::from(client.inode(fd)));
    assert_eq!(event["name"]["hex"], hex(&name[1..]), "the name it connected to");

    let accepted = server.accept(listener);
    let event = events.next("accept");
    assert_eq!(inode(&event["socket"]), u64::from(server.inode(accepted)));
    assert_eq!(inode(&event["peer"]), u64::from(client.inode(fd)));
    assert_eq!((&event["fd"], &event["fd2"]), (&listener.into(), &accepted.into()));
    let through = u64::from(server.inode(listener));
    assert_eq!(inode(&event["listener"]), through);
    // The ledger has the same, and who opened which end.
    let tracked = world.ucr.record(server.inode(accepted)).expect("the accepted end");
    assert_eq!(tracked.listener.inode, through);
    assert_eq!(tracked.creator.pid, client.pid().cast_unsigned(), "made by connect");
    assert_eq!(tracked.opener.pid, server.pid().cast_unsigned(), "accepted");

    server.ask(&format!("shutdown {accepted} write"));
    let event = events.next("shutdown");
    assert_eq!(event["argument"], 2, "SEND_SHUTDOWN");

    let socket = server.inode(accepted);
    server.close(accepted);
    let event = events.next("close");
    assert_eq!(inode(&event["socket"]), u64::from(socket));
    assert!(event["time_ns_since_boot"].as_u64() > time.as_u64(), "time goes on");

    let (a, b) = client.pair("seqpacket");
    let event = events.next("socketpair");
    assert_eq!((&event["fd"], &event["fd2"]), (&a.into(), &b.into()));
    assert_eq!(inode(&event["socket"]), u64::from(client.inode(a)));
    assert_eq!(inode(&event["peer"]), u64::from(client.inode(b)));
    assert_eq!(event["type"], "seqpacket");
}

fn own_netns() -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self/ns/net").expect("our network namespace").ino()
}

#[test]
fn a_name_of_odd_bytes_arrives_byte_by_byte() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
    let mut longest = world.abstract_name(b"-");
    longest.resize(108, b'x');
    for name in [world.abstract_name(b"a\0b\n\xff\x1b[2J"), longest] {
        let fd = victim.socket("stream");
        victim.bind(fd, &name);
        let event = events.next("bind");
        assert_eq!(event["name"]["hex"], hex(&name[1..]));
        assert_eq!(event["name"]["kind"], "abstract");
    }
    // Nothing that a terminal would obey.
    let answer = world.ucr.run(&["status"]);
    assert!(!answer.stdout.contains('\u{1b}'));
}

#[test]
fn a_path_of_108_bytes_is_whole() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
    let name = longest_path(&world);
    let fd = victim.socket("stream");
    victim.bind(fd, &name);
    let event = events.next("bind");
    assert_eq!(event["name"]["kind"], "pathname");
    assert_eq!(event["name"]["hex"], hex(&name));
}

/// A path that fills `sun_path`, without room for a final NUL.
fn longest_path(world: &ucr_tests::World) -> Vec<u8> {
    let mut path = world.path_name("l");
    path.resize(108, b'o');
    path
}

#[test]
fn where_the_binder_stood_is_seen() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
    let folder = std::fs::canonicalize(world.folder()).expect("the folder");
    let folder = folder.to_str().expect("text");
    std::fs::create_dir_all(world.path("jail/inner")).expect("folders");

    victim.ask(&format!("chdir {folder}/jail"));
    let fd = victim.socket("stream");
    victim.bind(fd, b"relative");
    let event = events.next("bind");
    // Both are spelled from the top of the mount namespace, where this may not run itself.
    let top = text(&event["root"]).trim_end_matches('/').to_owned();
    assert_eq!(text(&event["cwd"]), format!("{top}{folder}/jail"));
    assert_eq!(event["name"]["text"], "relative");

    victim.ask(&format!("chroot {folder}/jail"));
    victim.ask("chdir /inner");
    let fd = victim.socket("stream");
    victim.bind(fd, b"/inner/jailed");
    let event = events.next("bind");
    assert_eq!(text(&event["cwd"]), format!("{top}{folder}/jail/inner"));
    assert_eq!(text(&event["root"]), format!("{top}{folder}/jail"));
    assert!(world.path("jail/inner/jailed").exists());
}

#[test]
fn calls_that_fail_are_shown_on_demand_and_leave_no_trace() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let name = world.abstract_name(b"");
    let holder = victim.listener("stream", &name, 1);
    let second = victim.socket("stream");
    let pid = victim.pid().to_string();
    let before = world.ucr.record(victim.inode(second)).expect("a record");

    let fails = |victim: &mut Victim| {
        let taken = victim.tell(&format!("bind {second} {}", hex(&name)));
        assert_eq!(taken, Err("EADDRINUSE".to_owned()));
        let listening = victim.tell(&format!("listen {second} 5"));
        assert_eq!(listening, Err("EINVAL".to_owned()));
        let absent = world.abstract_name(b"-absent");
        let refused = victim.tell(&format!("connect {second} {}", hex(&absent)));
        assert_eq!(refused, Err("ECONNREFUSED".to_owned()));
    };

    let mut events = world.ucr.follow(&["--pid", &pid, "--failed"]);
    fails(&mut victim);
    let event = events.next("bind");
    assert_eq!(event["errno"], "EADDRINUSE");
    assert_eq!(event["name"]["hex"], hex(&name[1..]), "the name asked for");
    assert_eq!(events.next("listen")["errno"], "EINVAL");
    assert_eq!(events.next("connect")["errno"], "ECONNREFUSED");
    let _ended = events.signal(nix::sys::signal::Signal::SIGINT).done();

    // Not asked for, they are not shown: the next thing seen is one that works.
    let mut events = world.ucr.follow(&["--pid", &pid]);
    fails(&mut victim);
    victim.close(holder);
    assert_eq!(events.event("anything", |_| true)["event"], "close");

    let after = world.ucr.record(victim.inode(second)).expect("a record");
    assert_eq!((after.state, after.bound_at), (before.state, before.bound_at));
    assert_eq!((after.name.len, after.peer.sk, after.opened_at), (0, 0, 0));
}
