//! Who made a connection is shown as before: process, user, groups; also if he is long gone.

use std::{fs, process::Command};

use ucr_tests::{Need, Victim, needs};

use super::{bring_back, take};
use crate::{dumping::dump, world};

/// `SO_PEERCRED` and `SO_PEERGROUPS` of some descriptors.
fn credentials(victim: &mut Victim, fds: &[i32]) -> Vec<(String, String)> {
    let one =
        |fd: &i32| (victim.ask(&format!("peercred {fd}")), victim.ask(&format!("peergroups {fd}")));
    fds.iter().map(one).collect()
}

/// The children of a process that are there, zombies among them.
fn children(pid: i32) -> String {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let of = |task: std::io::Result<fs::DirEntry>| {
        fs::read_to_string(task.expect("a thread").path().join("children")).unwrap_or_default()
    };
    tasks.map(of).collect()
}

#[test]
fn both_sides_of_a_connection_are_who_they_were() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut server = world.victim();
    let name = world.path_name("service");
    // Root alone may write to the file: whoever connects later must not need to.
    server.ask("groups 2001 2000");
    server.ask("ids 1001 1002");
    let listener = server.socket("stream");
    server.ask("ids 0 0");
    server.bind(listener, &name);
    server.ask("ids 1001 1002");
    server.ask(&format!("listen {listener} 5"));
    server.ask("ids 0 0");
    // A client that is gone: what it left are its connection's two ends, and who it was.
    let mut client = server.child(&world.control());
    client.ask("groups 3000");
    let own = client.socket("stream");
    client.connect(own, &name);
    let (over, from) = (server.socket("dgram"), client.socket("dgram"));
    let handed = world.abstract_name(b"-handed");
    server.bind(over, &handed);
    client.connect(from, &handed);
    client.ask(&format!("pass {own} {from}"));
    let far = server.accept(listener);
    let near = server.number(&format!("take {over}"));
    // Both ends of a pair show one and the same.
    server.ask("groups");
    server.ask("ids 1003 1004");
    let (a, b) = server.pair("seqpacket");
    server.ask("ids 0 0");
    let (gone, root) = (client.pid(), server.pid());
    client.order("exit");
    server.ask("reap");

    let fds = [listener, far, near, a, b];
    let before = credentials(&mut server, &fds);
    assert_eq!(before[0], (format!("{root} 1001 1002"), "2000 2001".to_owned()));
    assert_eq!(before[1], (format!("{gone} 0 0"), "3000".to_owned()));
    assert_eq!(before[2], before[0]);
    assert_eq!(before[3], (format!("{root} 1003 1004"), String::new()));
    let mut server = bring_back(&world, &take(&world, server));
    assert_ne!(server.pid(), root);
    assert_eq!(credentials(&mut server, &fds), before);
    assert_eq!(children(server.pid()), "", "nobody is left who helped");
    server.ask(&format!("send {near} hello"));
    assert_eq!(server.ask(&format!("recv {far}")), "hello");
    // Whoever comes now sees the listener as before.
    let late = server.client("stream", &name);
    assert_eq!(credentials(&mut server, &[late]), before[..1]);
}

#[test]
fn a_pid_that_somebody_has_is_named_with_its_holder() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let saved = victim.pid();
    let path = world.path("image");
    dump(&world, &victim, &path, &["--leave-running"]).done();
    let (mut victims, restore) = world.restore(&path, &[0]);
    let said = restore.complaint();
    let own = restore.pid();
    let note = format!(
        "note: 2 of them show pid {own} in SO_PEERCRED, not the saved one (pid {saved}: taken by a \
         live process (victim))"
    );
    assert!(said.contains(&note), "{said}");
    let restored = victims.first_mut().expect("one");
    let shown = credentials(restored, &[a, b]);
    assert!(shown.iter().all(|(ids, _)| *ids == format!("{own} 0 0")), "{shown:?}");
    world.keep(restore);
}

#[test]
fn the_pid_of_a_connection_that_waits_is_named_as_well() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (mut server, mut client) = (world.victim(), world.victim());
    let listener = server.listener("stream", &world.abstract_name(b"listener"), 5);
    // It hands its end over and stays alive.
    let over = server.socket("dgram");
    server.bind(over, &world.abstract_name(b"over"));
    let from = client.client("dgram", &world.abstract_name(b"over"));
    let own = client.client("stream", &world.abstract_name(b"listener"));
    client.ask(&format!("pass {own} {from}"));
    for fd in [own, from] {
        client.close(fd);
    }
    let _end = server.number(&format!("take {over}"));
    let image = take(&world, server);
    let (mut victims, restore) = world.restore(&image, &[0]);
    let said = restore.complaint();
    let note = format!(
        "note: 1 of them show pid {} in SO_PEERCRED, not the saved one (pid {}: taken by a live \
         process (victim))",
        restore.pid(),
        client.pid()
    );
    assert!(said.contains(&note), "{said}");
    let server = victims.first_mut().expect("one");
    let accepted = server.accept(listener);
    let shown = credentials(server, &[accepted]);
    assert_eq!(shown[0].0, format!("{} 0 0", restore.pid()));
    world.keep(restore);
}

#[test]
fn without_the_right_to_choose_a_pid_the_note_says_so() {
    if !needs::met(&[Need::Root, Need::Program("setpriv")]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    victim.pair("stream");
    let image = take(&world, victim).display().to_string();
    let ucr = world.ucr.command(&["restore", &image, "--", "true"]);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_admin,-checkpoint_restore", "--inh-caps", "-all", "--"]);
    command.arg(ucr.get_program()).args(ucr.get_args());
    let output = command.output().expect("run ucr");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("not permitted: choosing a pid takes CAP_CHECKPOINT_RESTORE"), "{said}");
}
