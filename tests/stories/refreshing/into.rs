//! In two goes: a dump that leaves a process stopped, and a restore into processes that live.

use ucr_tests::{
    Need, Victim, World, needs, outside,
    ucr::{Answer, REFUSED},
    victim::talk_both,
    wait,
};

use crate::world;

fn dump(world: &World, victim: &Victim, options: &[&str]) -> String {
    let (pid, image) = (victim.pid().to_string(), world.path("image").display().to_string());
    let arguments = [&["dump", "--pid", &pid, "-o", &image], options].concat();
    world.ucr.run(&arguments).done();
    image
}

fn into(world: &World, image: &str, pairs: &[String]) -> Answer {
    let pairs: Vec<&str> = pairs.iter().map(String::as_str).collect();
    world.ucr.run(&[&["restore", image, "--into"], pairs.as_slice()].concat())
}

/// Whether none is the same.
fn are_others(victim: &Victim, before: &std::collections::BTreeMap<i32, u32>) -> bool {
    let after = outside::sockets(victim.pid());
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    before.iter().all(|(fd, inode)| after.get(fd) != Some(inode))
}

#[test]
fn who_was_left_stopped_goes_on_with_new_sockets() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let name = world.path_name("socket");
    let listener = victim.listener("stream", &name, 5);
    let client = victim.client("stream", &name);
    let accepted = victim.accept(listener);
    victim.ask(&format!("send {client} before"));
    let before = outside::sockets(victim.pid());

    let image = dump(&world, &victim, &["--leave-stopped"]);
    wait::for_state(victim.pid(), 'T');
    // It waits for an order meanwhile, and does not hear it.
    victim.order(&format!("recv {accepted}"));
    into(&world, &image, &[]).done();
    assert_eq!(victim.answer("recv"), "before");
    assert_ne!(outside::state(victim.pid()), Some('T'));
    assert!(are_others(&victim, &before));
    talk_both(&mut victim, client, accepted);
    let late = victim.client("stream", &name);
    let accepted = victim.accept(listener);
    talk_both(&mut victim, late, accepted);
}

#[test]
fn sockets_of_one_process_come_into_another_one() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let (mut saved, mut other) = (world.victim(), world.victim());
    let mut pairs = Vec::new();
    for kind in ["stream", "dgram+cloexec", "seqpacket+nonblock"] {
        let pair = saved.pair(kind);
        assert_eq!(other.pair("stream"), pair);
        pairs.push(pair);
    }
    let (a, b) = pairs[0];
    saved.ask(&format!("send {a} from-there"));
    other.ask(&format!("send {a} from-here"));
    let (own, others) = (outside::sockets(saved.pid()), outside::sockets(other.pid()));
    let image = dump(&world, &saved, &[]);
    into(&world, &image, &[format!("{}={}", saved.pid(), other.pid())]).done();

    assert!(are_others(&other, &others));
    assert_eq!(outside::sockets(saved.pid()), own);
    assert_eq!(other.ask(&format!("recv {b}")), "from-there");
    for (fd, end) in &pairs {
        assert_eq!(outside::flags(saved.pid(), *fd), outside::flags(other.pid(), *fd));
        assert_eq!(
            outside::seen(saved.pid(), *fd).socket_type,
            outside::seen(other.pid(), *fd).socket_type
        );
        talk_both(&mut other, *fd, *end);
    }
    assert_eq!(saved.ask(&format!("recv {b}")), "from-there");
    talk_both(&mut saved, a, b);
    // It is itself whom others see at the other end.
    let ids = other.ask(&format!("peercred {a}"));
    assert_eq!(ids, format!("{} 0 0", other.pid()));
}

#[test]
fn an_image_of_what_has_changed_is_refused_by_name() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let (c, d) = victim.pair("stream");
    let image = dump(&world, &victim, &[]);
    let pid = victim.pid();
    let refused = |words: &str| {
        let before = outside::sockets(pid);
        let _named = into(&world, &image, &[]).ended(REFUSED).complains(words);
        assert_eq!(outside::sockets(pid), before);
        assert_ne!(outside::state(pid), Some('T'));
    };
    victim.close(d);
    refused(&format!("descriptor {d} of process {pid} is not open"));
    assert_eq!(victim.number("open /dev/null"), d);
    refused(&format!("descriptor {d} of process {pid} is no socket but /dev/null"));
    victim.close(d);
    victim.ask(&format!("dup {b} {d}"));
    refused(&format!("descriptor {d} of process {pid} is one socket with others"));
    victim.close(d);
    victim.ask(&format!("dup {c} {d}"));
    victim.ask(&format!("dup {a} 100"));
    refused(&format!("descriptor 100 of process {pid} is a socket that is to be replaced"));
    talk_both(&mut victim, a, b);
}
