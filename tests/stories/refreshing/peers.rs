//! Who is at the other end, as the kernel tells the two (`SO_PEERCRED`), is who was there before.

use std::{fs, os::unix::fs::PermissionsExt as _};

use ucr_tests::{Need, needs, ucr::NOBODY, victim::talk_both};

use super::{number, refresh};
use crate::world;

fn each_end_sees_the_same_process(ids: Option<u32>) {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let everybody = fs::Permissions::from_mode(0o777);
    fs::set_permissions(world.folder(), everybody).expect("let everybody in");
    let mut server = world.victim();
    let mut client = server.child(&world.control());
    let mut grandchild = client.child(&world.control());
    if let Some(id) = ids {
        for victim in [&mut server, &mut client, &mut grandchild] {
            victim.ask(&format!("ids {id} {id}"));
        }
    }
    let name = world.path_name("socket");
    let listener = server.listener("stream", &name, 5);
    let mut ends = Vec::new();
    for other in [&mut client, &mut grandchild] {
        let fd = other.client("stream", &name);
        ends.push((fd, server.accept(listener)));
    }
    let pair = grandchild.pair("seqpacket");
    let id = ids.unwrap_or_default();
    let whom = |pid: i32| format!("{pid} {id} {id}");
    let (by_server, by_client, by_last) =
        (whom(server.pid()), whom(client.pid()), whom(grandchild.pid()));
    let root = server.pid();
    let mut look = || {
        assert_eq!(server.ask(&format!("peercred {}", ends[0].1)), by_client);
        assert_eq!(server.ask(&format!("peercred {}", ends[1].1)), by_last);
        assert_eq!(client.ask(&format!("peercred {}", ends[0].0)), by_server);
        assert_eq!(grandchild.ask(&format!("peercred {}", ends[1].0)), by_server);
        assert_eq!(grandchild.ask(&format!("peercred {}", pair.0)), by_last);
        assert_eq!(grandchild.ask(&format!("peercred {}", pair.1)), by_last);
        let late = client.client("stream", &name);
        let accepted = server.accept(listener);
        assert_eq!(server.ask(&format!("peercred {accepted}")), by_client);
        assert_eq!(client.ask(&format!("peercred {late}")), by_server);
        server.close(accepted);
        client.close(late);
    };
    look();
    for _ in 0..2 {
        let report = refresh(&world, root);
        assert_eq!(number(&report, "kept"), 0, "{report:#}");
        look();
    }
}

#[test]
fn each_end_sees_the_process_that_it_saw() {
    each_end_sees_the_same_process(None);
}

#[test]
fn each_end_sees_it_also_where_nobody_is_root() {
    each_end_sees_the_same_process(Some(NOBODY));
}

#[test]
fn each_end_sees_it_in_a_pid_namespace() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let (mut victim, pid) = world.victim_in_pid_namespace();
    let (a, b) = victim.pair("stream");
    let whom = format!("{} 0 0", victim.pid());
    for _ in 0..2 {
        assert_eq!(victim.ask(&format!("peercred {a}")), whom);
        assert_eq!(victim.ask(&format!("peercred {b}")), whom);
        let report = refresh(&world, pid);
        assert_eq!(number(&report, "replaced"), 2, "{report:#}");
    }
    talk_both(&mut victim, a, b);
}

/// It cannot connect by a descriptor itself there; so ucr does, and says so.
#[test]
fn where_there_is_no_proc_it_is_said_who_is_seen() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    victim.ask(&format!("chroot {}", world.folder().display()));
    victim.ask("chdir /");
    let listener = victim.listener("stream", b"/socket", 5);
    let client = victim.client("stream", b"/socket");
    let accepted = victim.accept(listener);
    let whom = format!("{} 0 0", victim.pid());
    let pid = victim.pid().to_string();
    let refreshed = world.ucr.run(&["refresh", "--pid", &pid]).done();
    refreshed.complains("in SO_PEERCRED, not the saved one");
    assert_eq!(victim.ask(&format!("peercred {client}")), whom);
    assert_ne!(victim.ask(&format!("peercred {accepted}")), whom);
}
