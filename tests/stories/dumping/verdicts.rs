//! What agrees is confirmed, what is older predates, and what nobody tracked is not claimed to be.

use ucr_tests::{Need, Victim, World, needs, outside, world::hex};

use super::{count, dump, socket};
use crate::world;

/// Every kind of socket that can be dumped; the descriptors.
fn build(world: &World, victim: &mut Victim) -> Vec<i32> {
    let mut fds = Vec::new();
    for kind in ["stream", "seqpacket"] {
        for name in [world.abstract_name(kind.as_bytes()), world.path_name(kind)] {
            let listener = victim.listener(kind, &name, 5);
            let client = victim.client(kind, &name);
            fds.extend([listener, client, victim.accept(listener)]);
        }
        let bound = victim.socket(kind);
        victim.bind(bound, &world.abstract_name(format!("-{kind}-bound").as_bytes()));
        let (a, b) = victim.pair(kind);
        fds.extend([bound, a, b, victim.socket(kind)]);
    }
    fds
}

#[test]
fn everything_seen_live_is_confirmed() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let fds = build(&world, &mut victim);
    let image = world.path("image");
    let report = dump(&world, &victim, &image, &[]).done().json();
    assert_eq!(report["tracing_attached"], true);
    assert_eq!(count(&report, "confirmed"), fds.len() as u64, "{report:#}");
    assert_eq!(report["sockets"].as_array().expect("sockets").len(), fds.len());
    for fd in &fds {
        let shown = socket(&report, victim.inode(*fd));
        let seen = outside::seen(victim.pid(), *fd);
        assert_eq!(shown["verdict"], "confirmed");
        assert_eq!(shown["cookie"], seen.cookie);
        assert_eq!(shown["peer"].as_u64(), seen.peer.map(u64::from));
        assert_eq!(shown["name"]["hex"], hex(seen.name.as_bytes()));
        assert_eq!(shown["descriptors"][0]["fd"], *fd);
    }
    let file = std::fs::metadata(&image).expect("the image");
    assert_eq!(report["image"]["bytes"], file.len());
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.permissions());
    assert_eq!(mode & 0o7777, 0o600);

    // People see the same.
    let pid = victim.pid().to_string();
    let image = image.to_str().expect("text");
    let shown = world.ucr.run(&["dump", "--pid", &pid, "-o", image]).done();
    assert_eq!(shown.stdout.matches("confirmed").count(), fds.len(), "{}", shown.stdout);
    let summary = format!("{} confirmed, 0 predate the tracer, 0 only tracked", fds.len());
    let _summed = shown.complains(&summary);
}

#[test]
fn what_is_older_than_the_tracer_predates_it() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let fds = build(&world, &mut victim);
    world.ucr.attach();
    let younger = victim.socket("stream");
    let report = dump(&world, &victim, &world.path("image"), &[]).done().json();
    assert_eq!(count(&report, "predates"), fds.len() as u64, "{report:#}");
    assert_eq!(count(&report, "confirmed"), 1);
    assert_eq!(socket(&report, victim.inode(younger))["verdict"], "confirmed");
}

#[test]
fn without_tracing_nothing_is_claimed() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let fds = build(&world, &mut victim);
    let report = dump(&world, &victim, &world.path("image"), &[]).done().json();
    assert_eq!(report["tracing_attached"], false);
    assert_eq!(count(&report, "confirmed"), 0);
    for fd in fds {
        assert_eq!(socket(&report, victim.inode(fd))["verdict"], "not_tracked");
    }
    let pid = victim.pid().to_string();
    let image = world.path("image").display().to_string();
    let shown = world.ucr.run(&["dump", "--pid", &pid, "-o", &image]).done();
    let _said = shown.complains("nothing could be checked");
}

#[test]
fn a_tree_shares_sockets() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let mut child = victim.child(&world.control());
    victim.close(b);
    child.close(a);
    let own = child.socket("stream");
    let image = world.path("image");
    let report = dump(&world, &victim, &image, &["--tree"]).done().json();
    assert_eq!(report["processes"], 2);
    assert_eq!(count(&report, "confirmed"), 3, "{report:#}");
    let end = socket(&report, child.inode(b));
    assert_eq!(end["descriptors"][0]["pid"], child.pid());
    assert_eq!(end["peer"], victim.inode(a));
    assert_eq!(socket(&report, child.inode(own))["verdict"], "confirmed");
}
