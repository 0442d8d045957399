//! Socket files are others afterwards, in the same places, and look the same.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
        net::UnixStream,
    },
    path::Path,
};

use ucr_tests::{Need, needs, outside, ucr::NOBODY, victim::talk_both};

use super::{number, refresh};
use crate::world;

/// Who may do what with a file, and whose it is.
fn rights(path: &Path) -> (u32, u32, u32) {
    let facts = fs::symlink_metadata(path).expect("a file");
    (facts.mode(), facts.uid(), facts.gid())
}

#[test]
fn a_file_has_the_rights_and_the_owner_that_it_had() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    // What is sent to a name that only some may reach waits there, too.
    for (name, mode) in [("closed", 0o600), ("shared", 0o660), ("open", 0o777)] {
        let listener = victim.listener("stream", &world.path_name(name), 5);
        let path = world.path(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set rights");
        chown(&path, Some(NOBODY), Some(NOBODY)).expect("give away");
        let before = (rights(&path), fs::symlink_metadata(&path).expect("a file").ino());
        refresh(&world, victim.pid());
        assert_eq!(rights(&path), before.0);
        assert_ne!(fs::symlink_metadata(&path).expect("a file").ino(), before.1);
        let client = victim.client("stream", &world.path_name(name));
        let accepted = victim.accept(listener);
        talk_both(&mut victim, client, accepted);
        [client, accepted].into_iter().for_each(|fd| victim.close(fd));
    }
    assert_eq!(fs::read_dir(world.folder()).expect("a folder").count(), 3 + 2);
}

#[test]
fn a_name_is_what_it_was_wherever_its_file_is() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    fs::create_dir(world.path("folder")).expect("a folder");
    symlink("folder", world.path("link")).expect("a link");
    victim.ask(&format!("chdir {}", world.path("folder").display()));
    let relative = victim.listener("stream", b"../folder/relative", 5);
    let linked = victim.listener("stream", &world.path_name("link/linked"), 5);
    let renamed = victim.listener("stream", &world.path_name("renamed"), 5);
    let removed = victim.listener("stream", &world.path_name("removed"), 5);
    let receiver = victim.socket("dgram");
    victim.bind(receiver, &world.path_name("receiver"));
    let sender = victim.client("dgram", &world.path_name("receiver"));
    let left = victim.client("stream", &world.path_name("removed"));
    let accepted = victim.accept(removed);
    victim.ask("chdir /");
    fs::rename(world.path("renamed"), world.path("other")).expect("rename");
    fs::remove_file(world.path("removed")).expect("remove");
    victim.ask(&format!("send {sender} waiting"));
    let all = [relative, linked, renamed, removed, receiver, accepted];
    let names = all.map(|fd| victim.name(fd));
    let before = outside::sockets(victim.pid());

    for _ in 0..2 {
        let report = refresh(&world, victim.pid());
        assert_eq!(number(&report, "kept"), 0, "{report:#}");
    }
    let after = outside::sockets(victim.pid());
    assert!(before.iter().all(|(fd, inode)| after.get(fd).is_some_and(|now| now != inode)));
    assert_eq!(all.map(|fd| victim.name(fd)), names);
    for (path, listener) in
        [("folder/relative", relative), ("folder/linked", linked), ("other", renamed)]
    {
        let client = UnixStream::connect(world.path(path));
        let _client = client.unwrap_or_else(|error| panic!("{path}: {error}"));
        let accepted = victim.accept(listener);
        victim.close(accepted);
    }
    assert!(!world.path("renamed").exists() && !world.path("removed").exists());
    assert_eq!(victim.ask(&format!("recv {receiver}")), "waiting");
    victim.ask(&format!("send {sender} on"));
    assert_eq!(victim.ask(&format!("recv {receiver}")), "on");
    talk_both(&mut victim, left, accepted);
}

#[test]
fn a_process_with_a_root_directory_of_its_own() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let folder = world.path("root");
    fs::create_dir(&folder).expect("a folder");
    victim.ask(&format!("chroot {}", folder.display()));
    victim.ask("chdir /");
    let listener = victim.listener("stream", b"/socket", 5);
    let client = victim.client("stream", b"/socket");
    let accepted = victim.accept(listener);
    let (a, b) = victim.pair("seqpacket");
    for _ in 0..2 {
        let report = refresh(&world, victim.pid());
        assert_eq!(number(&report, "kept"), 0, "{report:#}");
        talk_both(&mut victim, client, accepted);
        talk_both(&mut victim, a, b);
        assert_eq!(victim.peer_name(client), b"/socket");
        let late = victim.client("stream", b"/socket");
        let accepted = victim.accept(listener);
        talk_both(&mut victim, late, accepted);
        [late, accepted].into_iter().for_each(|fd| victim.close(fd));
        let _client = UnixStream::connect(folder.join("socket")).expect("connect from outside");
        let accepted = victim.accept(listener);
        victim.close(accepted);
    }
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1);
}
