//! Sockets that another process holds as well, taken over as they are: whoever is at the other end notices
//! nothing.

use std::path::Path;

use ucr_tests::{Need, Victim, World, needs, outside, ucr::REFUSED, victim::talk, world::hex};

use super::bring_back;
use crate::{dumping::dump, world};

const KEEP: [&str; 2] = ["--external", "keep"];

fn text(victim: &mut Victim, fd: i32) -> String {
    victim.tell(&format!("recv {fd}")).unwrap_or_else(|errno| errno)
}

/// Dumps a victim with what it shares, and ends it.
fn take(world: &World, victim: Victim, image: &Path) {
    let _written = dump(world, &victim, image, &[&KEEP[..], &["--kill"]].concat()).done();
    let _status = victim.ended();
}

/// A restore that does not begin, since a holder is gone.
fn refused(world: &World, image: &Path, holder: (i32, i32)) {
    let control = world.control();
    let [program, control] = world.victim_command(&control);
    let image = image.to_str().expect("text");
    let said = world.ucr.run(&["restore", image, "--", &program, &control]).ended(REFUSED);
    let (pid, fd) = holder;
    let said = said.complains(&format!("taken from process {pid} (descriptor {fd})"));
    drop(said.complains("refused: 1 obstacle").complains("dump again, with it or without"));
}

#[test]
fn a_socket_that_somebody_outside_holds_is_the_very_same_afterwards() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (mut server, mut client, mut holder) = (world.victim(), world.victim(), world.victim());
    let name = world.path_name("listener");
    let listener = server.listener("stream", &name, 8);
    let fd = client.client("stream", &name);
    let accepted = server.accept(listener);
    let (image, pid) = (world.path("image"), client.pid());
    client.ask(&format!("set {fd} {} 1", libc::SO_PASSCRED));
    // With nobody who would have it.
    let said = dump(&world, &client, &image, &[&KEEP[..], &["--kill"]].concat()).ended(REFUSED);
    drop(said.complains("only processes that end hold it"));
    let held = holder.number(&format!("getfd {pid} {fd}"));
    // Nobody said that it may be kept.
    let said = dump(&world, &client, &image, &["--external", "dangling"]).ended(REFUSED);
    drop(said.complains(&format!("also held by pid {} (victim) fd {held}", holder.pid())));
    assert!(!image.exists());
    let before = outside::seen(pid, fd);
    take(&world, client, &image);
    server.ask(&format!("send {accepted} while-away"));

    let mut client = bring_back(&world, &image);
    let now = outside::seen(client.pid(), fd);
    assert_eq!((now.cookie, now.inode, now.peer), (before.cookie, before.inode, before.peer));
    assert_eq!(text(&mut client, fd), "while-away");
    talk(&mut client, fd, &mut server, accepted);

    let gone = (holder.pid(), held);
    holder.kill();
    refused(&world, &image, gone);
    talk(&mut client, fd, &mut server, accepted);
}

#[test]
fn a_process_that_goes_on_shares_its_sockets_with_the_restored_one() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (mut server, mut client) = (world.victim(), world.victim());
    let name = world.abstract_name(b"listener");
    let listener = server.listener("seqpacket", &name, 8);
    let fd = client.client("seqpacket", &name);
    let accepted = server.accept(listener);
    let image = world.path("image");
    let _written = dump(&world, &client, &image, &KEEP).done();
    let mut second = bring_back(&world, &image);
    assert_eq!(second.inode(fd), client.inode(fd));
    talk(&mut second, fd, &mut server, accepted);
    talk(&mut client, fd, &mut server, accepted);
    // The descriptor leads elsewhere; then nobody has it.
    let pid = client.pid();
    client.close(fd);
    refused(&world, &image, (pid, fd));
    let another = client.socket("stream");
    assert_eq!(another, fd, "the lowest number is taken again");
    let control = world.control();
    let [program, control] = world.victim_command(&control);
    let image = image.to_str().expect("text");
    let said = world.ucr.run(&["restore", image, "--", &program, &control]).ended(REFUSED);
    drop(said.complains(&format!("process {pid}, whose descriptor {fd} leads to something else")));
}

#[test]
fn what_is_connected_to_a_kept_socket_is_kept_as_well() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let mut outsider = world.victim();
    // Pairs, of which somebody else has halves; a receiver with two senders, one of them outside; and what
    // it has sent to one that nobody else has.
    let (a, b) = victim.pair("stream");
    let (x, y) = victim.pair("dgram");
    let alone = victim.pair("stream");
    std::fs::create_dir(world.path("folder")).expect("make a folder");
    let name = world.path_name("folder/receiver");
    let receiver = victim.socket("dgram");
    victim.bind(receiver, &name);
    let sender = victim.socket("dgram");
    victim.connect(sender, &name);
    let other = outsider.socket("dgram");
    outsider.connect(other, &name);
    let pid = victim.pid();
    let beside = victim.socket("dgram");
    victim.bind(beside, &world.path_name("beside"));
    let to = hex(&world.path_name("beside"));
    victim.ask(&format!("msg send {receiver} data=78 to={to}"));
    let fds = [a, b, x, y, receiver, sender];
    let getfd = |outsider: &mut Victim, fd: i32| outsider.number(&format!("getfd {pid} {fd}"));
    for fd in [a, x, receiver] {
        getfd(&mut outsider, fd);
    }
    // The others have no holder but the process itself.
    let first = world.path("first");
    let said = dump(&world, &victim, &first, &[&KEEP[..], &["--kill"]].concat()).ended(REFUSED);
    drop(said.complains("refused: 3 obstacles").complains("only processes that end hold it"));
    let _written = dump(&world, &victim, &first, &KEEP).done();
    let shown = world.ucr.run(&["show", first.to_str().expect("text")]).done().stdout;
    let kept = shown.matches(&format!("outside: keep, from pid {pid} ")).count();
    assert_eq!((kept, shown.matches("outside: keep, from pid ").count()), (3, 6), "{shown}");
    for fd in [b, y, sender] {
        getfd(&mut outsider, fd);
    }
    let inodes = fds.map(|fd| victim.inode(fd));
    let fresh = victim.inode(alone.0);
    let image = world.path("image");
    take(&world, victim, &image);
    outsider.ask(&format!("send {other} meanwhile"));
    // What becomes of its file is nothing to ucr.
    std::fs::remove_dir_all(world.path("folder")).expect("remove a folder");
    std::fs::write(world.path("folder"), "no folder").expect("write a file");
    let mut victim = bring_back(&world, &image);
    assert_eq!(fds.map(|fd| victim.inode(fd)), inodes);
    assert_ne!(victim.inode(alone.0), fresh, "made anew: nobody else has to do with it");
    ucr_tests::victim::talk_both(&mut victim, a, b);
    ucr_tests::victim::talk_both(&mut victim, x, y);
    let heard = victim.ask(&format!("msg recv {beside}"));
    assert!(heard.starts_with(&format!("data=78 from={} ", hex(&name))), "{heard}");
    ucr_tests::victim::talk_both(&mut victim, alone.0, alone.1);
    assert_eq!(text(&mut victim, receiver), "meanwhile");
    outsider.ask(&format!("send {other} still"));
    assert_eq!(text(&mut victim, receiver), "still");
    victim.ask(&format!("send {sender} own"));
    assert_eq!(text(&mut victim, receiver), "own");
    assert_eq!(hex(&victim.name(receiver)), hex(&name));
}
