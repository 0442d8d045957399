//! Peers in processes that are not dumped: refused by name, connected to anew, or taken for closed.

use std::path::Path;

use ucr_tests::{
    Need, Victim, World, needs, outside,
    ucr::{Answer, REFUSED},
    wait,
    world::hex,
};

use super::{bring_back, stock::Redis};
use crate::{dumping::dump, world};

/// What a victim receives, or the error's name.
fn text(victim: &mut Victim, fd: i32) -> String {
    victim.tell(&format!("recv {fd}")).unwrap_or_else(|errno| errno)
}

/// Asks redis-server something.
fn says(victim: &mut Victim, fd: i32, request: &str, answer: &str) {
    victim.ask(&format!("msg send {fd} data={}", hex(request.as_bytes())));
    let heard = wait::until("the server's answer", || victim.tell(&format!("msg recv {fd}")).ok());
    assert!(heard.starts_with(&format!("data={} ", hex(answer.as_bytes()))), "{heard}");
}

/// Dumps a victim by these rules and ends it.
fn take(world: &World, victim: Victim, rules: &[&str], image: &Path) {
    let rules = rules.iter().flat_map(|rule| ["--external", rule]);
    let options: Vec<&str> = rules.chain(["--kill"]).collect();
    let _written = dump(world, &victim, image, &options).done();
    let _status = victim.ended();
}

/// A restore that does not begin.
fn refused(world: &World, image: &Path) -> Answer {
    let control = world.control();
    let [program, control] = world.victim_command(&control);
    let image = image.to_str().expect("text");
    world.ucr.run(&["restore", image, "--", &program, &control]).ended(REFUSED)
}

#[test]
fn a_client_of_a_stock_server_connects_anew_and_goes_on() {
    if !needs::met(&[Need::Root, Need::Program("redis-server")]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let (server, _first) = Redis::start(&world);
    let name = server.path.to_str().expect("text").to_owned();
    let mut other = world.victim();
    let elsewhere = world.abstract_name(b"elsewhere");
    let listener = other.listener("stream", &elsewhere, 8);
    for number in 0..3 {
        let mut client = world.victim();
        let fd = client.client("stream", name.as_bytes());
        let story = format!("told-{number}");
        says(&mut client, fd, &format!("SET story {story}\r\n"), "+OK\r\n");
        let rule = match number {
            0 => "reconnect".to_owned(),
            1 => format!("{}=reconnect", name.replace("redis.sock", "redis*")),
            _ => format!("inode:{}=reconnect", client.inode(fd)),
        };
        let image = world.path(&format!("image-{number}"));
        let shown = server.path.display().to_string();
        let said = dump(&world, &client, &image, &[]).ended(REFUSED);
        drop(said.complains(&shown).complains(&format!("pid {} (redis-server)", server.pid())));
        // A peer that no rule is about.
        let beside = client.client("stream", &elsewhere);
        let accepted = other.accept(listener);
        if number > 0 {
            let said = dump(&world, &client, &image, &["--external", &rule]).ended(REFUSED);
            let report = said.json();
            assert_eq!(report["obstacles"].as_array().expect("a list").len(), 1, "{report:#}");
            let pid = other.pid();
            drop(
                said.complains(&format!("fd {beside} ")).complains(&format!("pid {pid} (victim)")),
            );
        }
        assert!(!image.exists());
        client.close(beside);
        other.close(accepted);
        let seen = outside::seen(client.pid(), fd);
        take(&world, client, &[&rule], &image);

        let mut client = bring_back(&world, &image);
        assert_eq!(client.peer_name(fd), name.as_bytes());
        says(&mut client, fd, "GET story\r\n", &format!("${}\r\n{story}\r\n", story.len()));
        // The server has answered, so it has accepted.
        let now = outside::seen(client.pid(), fd);
        assert!(now.peer.is_some() && now.peer != seen.peer && now.cookie != seen.cookie);
    }

    // With the server gone there is nobody to connect to; nothing is begun.
    let image = world.path("image-2");
    drop(server);
    let said = refused(&world, &image).complains(&name).complains("nobody answers there");
    drop(said.complains("start the server first"));
}

#[test]
fn who_was_accepted_or_has_unread_data_cannot_connect_anew() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (mut server, mut client) = (world.victim(), world.victim());
    let name = world.path_name("listener");
    let listener = server.listener("stream", &name, 8);
    // Bound as well, so that the server's end has a peer with a name.
    let fd = client.socket("stream");
    client.bind(fd, &world.abstract_name(b"client"));
    client.connect(fd, &name);
    let accepted = server.accept(listener);
    let image = world.path("image");
    let rule = ["--external", "reconnect"];
    let said = dump(&world, &server, &image, &rule).ended(REFUSED);
    drop(said.complains("it did not connect itself"));
    server.ask(&format!("send {accepted} unread"));
    let said = dump(&world, &client, &image, &rule).ended(REFUSED);
    drop(said.complains("without losing 6 bytes"));
    assert!(!image.exists());
    assert_eq!(text(&mut client, fd), "unread");
    ucr_tests::victim::talk(&mut client, fd, &mut server, accepted);
}

#[test]
fn a_dangling_end_finds_its_peer_closed() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    for kind in ["stream", "seqpacket"] {
        let (mut server, mut client) = (world.victim(), world.victim());
        let path = world.path_name(&format!("{kind}-listener"));
        let listener = server.listener(kind, &path, 8);
        let fd = client.client(kind, &path);
        let accepted = server.accept(listener);
        server.ask(&format!("send {accepted} queued"));
        let image = world.path(kind);
        take(&world, client, &["dangling"], &image);
        // What the client had not read was lost with it.
        assert_eq!(text(&mut server, accepted), "ECONNRESET");

        let mut client = bring_back(&world, &image);
        assert_eq!(client.peer_name(fd), path);
        assert_eq!(outside::seen(client.pid(), fd).peer, None);
        assert_eq!(text(&mut client, fd), "queued");
        assert_eq!(text(&mut client, fd), "");
        assert_eq!(client.tell(&format!("send {fd} x")), Err("EPIPE".to_owned()));
        assert_eq!(outside::seen(server.pid(), listener).receive_queue, 0, "nobody connected");

        // An abstract name can be had only when nobody else has it.
        let (mut server, mut client) = (world.victim(), world.victim());
        let name = world.abstract_name(kind.as_bytes());
        let listener = server.listener(kind, &name, 8);
        let fd = client.client(kind, &name);
        let _accepted = server.accept(listener);
        let image = world.path(&format!("{kind}-abstract"));
        take(&world, client, &["dangling"], &image);
        drop(refused(&world, &image).complains("is taken by a live socket"));
        server.kill();
        let mut client = bring_back(&world, &image);
        assert_eq!(client.peer_name(fd), name);
        assert_eq!(text(&mut client, fd), "");
    }
}

#[test]
fn datagram_sockets_reconnect_or_find_nobody() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    for rule in ["reconnect", "dangling"] {
        let (mut receiver, mut sender) = (world.victim(), world.victim());
        let name = world.path_name(&format!("{rule}-receiver"));
        let own = world.path_name(&format!("{rule}-sender"));
        let there = receiver.socket("dgram");
        receiver.bind(there, &name);
        let fd = sender.socket("dgram");
        sender.bind(fd, &own);
        sender.connect(fd, &name);
        let send = |from: &mut Victim, fd: i32, to: &[u8]| {
            from.tell(&format!("msg send {fd} data=78 to={}", hex(to)))
        };
        if rule == "dangling" {
            assert_eq!(send(&mut receiver, there, &own), Ok("1".to_owned()));
        }
        let image = world.path(rule);
        take(&world, sender, &[rule], &image);

        let mut sender = bring_back(&world, &image);
        assert_eq!((sender.name(fd), sender.peer_name(fd)), (own.clone(), name.clone()));
        if rule == "reconnect" {
            sender.ask(&format!("send {fd} again"));
            let heard = receiver.ask(&format!("msg recv {there}"));
            let wanted = format!("data={} from={} ", hex(b"again"), hex(&own));
            assert!(heard.starts_with(&wanted), "{heard}");
            assert_eq!(send(&mut receiver, there, &own), Ok("1".to_owned()));
        }
        let heard = sender.ask(&format!("msg recv {fd}"));
        assert!(heard.starts_with(&format!("data=78 from={} ", hex(&name))), "{heard}");
        // Who hears that its peer is gone loses what it has not received (`unix_dgram_disconnected`).
        if rule == "dangling" {
            assert_eq!(sender.tell(&format!("send {fd} x")), Err("ECONNREFUSED".to_owned()));
        }
    }
}

#[test]
fn who_sends_from_outside_is_refused_or_left() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (mut receiver, mut sender) = (world.victim(), world.victim());
    let name = world.path_name("receiver");
    let there = receiver.socket("dgram");
    receiver.bind(there, &name);
    let fd = sender.socket("dgram");
    sender.connect(fd, &name);
    sender.ask(&format!("send {fd} before"));
    let image = world.path("image");
    let said = dump(&world, &receiver, &image, &[]).ended(REFUSED);
    drop(said.complains(&format!("sockets held by pid {} (victim)", sender.pid())));
    take(&world, receiver, &["dangling"], &image);
    assert_eq!(sender.tell(&format!("send {fd} lost")), Err("ECONNREFUSED".to_owned()));
    let mut receiver = bring_back(&world, &image);
    assert_eq!(text(&mut receiver, there), "before");
    sender.connect(fd, &name);
    sender.ask(&format!("send {fd} after"));
    assert_eq!(text(&mut receiver, there), "after");
}
