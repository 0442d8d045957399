//! The cross-check can fail: what is wrong in the ledger is found, named with both values, and
//! keeps the image from being written.

use ucr_common::record::Record;
use ucr_tests::{Need, Victim, World, needs, outside, ucr::REFUSED};

use super::{count, dump, socket};
use crate::world;

/// A victim with a listener, a client and an accepted end, seen live.
fn connected(world: &World) -> (Victim, i32, i32) {
    world.ucr.attach();
    let mut victim = world.victim();
    let name = world.abstract_name(b"true");
    let listener = victim.listener("stream", &name, 5);
    let client = victim.client("stream", &name);
    victim.accept(listener);
    (victim, listener, client)
}

/// Dumps after something wrong was planted, under each `--verify`.
fn caught(world: &World, victim: &Victim, inode: u32, field: &str, tracked: &str, seen: &str) {
    let image = world.path("image");
    let refused = dump(world, victim, &image, &[]).ended(REFUSED);
    assert!(!image.exists(), "nothing is written");
    let report = refused.json();
    assert_eq!(report["image"], serde_json::Value::Null);
    let conflict = &socket(&report, inode)["verdict"]["conflict"];
    assert_eq!(conflict[0]["field"], field, "{report:#}");
    assert_eq!(conflict[0]["tracked"], tracked);
    assert_eq!(conflict[0]["seen"], seen);
    assert_eq!(conflict.as_array().expect("a list").len(), 1);
    assert_eq!(count(&report, "conflict"), 1, "{report:#}");

    let pid = victim.pid().to_string();
    let file = image.to_str().expect("text");
    let shown = world.ucr.run(&["dump", "--pid", &pid, "-o", file]).ended(REFUSED);
    let line = format!("conflict at inode {inode}: {field}: tracked {tracked}, kernel says {seen}");
    assert!(shown.stdout.contains(&line), "{}", shown.stdout);
    let _hinted = shown.complains("--verify warn");

    for (verify, warns) in [("warn", true), ("off", false)] {
        let written = dump(world, victim, &image, &["--verify", verify]).done();
        assert_eq!(written.stderr.contains("warning"), warns, "{}", written.stderr);
        assert!(image.exists());
        std::fs::remove_file(&image).expect("remove the image");
        assert_eq!(count(&written.json(), "conflict"), 1, "it is not denied, either");
    }
}

#[test]
fn a_wrong_peer_is_named() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (victim, listener, client) = connected(&world);
    let wrong = victim.inode(listener);
    let right = outside::seen(victim.pid(), client).peer.expect("a peer");
    let listener_sk = world.ucr.record(wrong).expect("a record").socket.sk;
    world.ucr.falsify(victim.inode(client), |record: &mut Record| {
        record.peer.sk = listener_sk;
        record.peer.inode = wrong.into();
    });
    let (tracked, seen) = (wrong.to_string(), right.to_string());
    caught(&world, &victim, victim.inode(client), "peer", &tracked, &seen);
}

#[test]
fn a_wrong_name_is_named() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (victim, listener, _) = connected(&world);
    let inode = victim.inode(listener);
    let right = world.ucr.record(inode).expect("a record");
    let right = ucr::model::UnixName::from_sun_path(right.name.as_bytes()).to_string();
    world.ucr.falsify(inode, |record: &mut Record| record.name.bytes[1..5].fill(b'?'));
    let wrong = format!("@????{}", right.get(5..).expect("a longer name"));
    caught(&world, &victim, inode, "name", &wrong, &right);
}

#[test]
fn a_missing_entry_is_named() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (victim, _, client) = connected(&world);
    let inode = victim.inode(client);
    let sk = world.ucr.record(inode).expect("a record").socket.sk;
    world.ucr.ledger().remove(sk).expect("remove a record");
    let image = world.path("image");
    let refused = dump(&world, &victim, &image, &[]).ended(REFUSED);
    assert!(!image.exists(), "nothing is written");
    let _said =
        refused.clone().complains("disagree; nothing was written").complains("--verify warn");
    let report = refused.json();
    assert_eq!(report["image"], serde_json::Value::Null);
    assert_eq!(socket(&report, inode)["verdict"], "only_snapshot", "{report:#}");
    assert_eq!((count(&report, "only_snapshot"), count(&report, "confirmed")), (1, 2));

    let pid = victim.pid().to_string();
    let name = image.display().to_string();
    let shown = world.ucr.run(&["dump", "--pid", &pid, "-o", &name, "--verify", "warn"]).done();
    assert!(shown.stdout.contains("only in the snapshot"), "{}", shown.stdout);
    let _warned = shown.complains("warning");
    assert!(image.exists());
    // A refusal does not touch what is there.
    let before = std::fs::read(&image).expect("the image");
    let _refused = dump(&world, &victim, &image, &[]).ended(REFUSED);
    assert_eq!(std::fs::read(&image).expect("the image"), before);
}

#[test]
fn what_is_wrong_everywhere_is_named_everywhere() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (victim, listener, client) = connected(&world);
    world.ucr.falsify(victim.inode(listener), |record| {
        record.backlog = 99;
        record.state = 7;
    });
    world.ucr.falsify(victim.inode(client), |record| {
        record.shutdown = 1;
        record.socket.cookie += 1;
        record.socket_type = 5;
    });
    let report = dump(&world, &victim, &world.path("image"), &[]).ended(REFUSED).json();
    let fields = |fd| {
        let conflict = &socket(&report, victim.inode(fd))["verdict"]["conflict"];
        let all = conflict.as_array().expect("a list").iter();
        all.map(|one| one["field"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(fields(listener), ["state", "backlog"]);
    assert_eq!(fields(client), ["cookie", "type", "shutdown"]);
}
