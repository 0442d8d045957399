//! Who is not root asks the daemon, if its group may.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::Command,
};

use serde_json::json;
use ucr::{history, inspect};
use ucr_tests::{
    Answer, Daemon, Need, World, needs,
    ucr::{FAILED, NOBODY, Started},
    wait,
};

use super::{all, end, has_kernel_address};
use crate::world;

/// A group that nobody is a member of, unless we say so.
const GROUP: &str = "54321";

/// Asks as `nobody`, once as he is, and once as a member of [`GROUP`].
fn as_nobody(world: &World, daemon: &Daemon<'_>, arguments: &[&str]) -> Answer {
    let control = daemon.control().display().to_string();
    world.ucr.run_as_nobody(&[arguments, &["--control", &control]].concat())
}

fn as_member(world: &World, daemon: &Daemon<'_>, arguments: &[&str]) -> Started {
    let ucr = world.ucr.command(arguments);
    // Anybody may run what is open already.
    let program = ucr_tests::ucr::OpenProgram::new(ucr.get_program().as_ref());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--groups", GROUP, "--"]);
    command.arg(program.command().get_program()).args(arguments);
    command.env("UCR_CONTROL", daemon.control()).env("UCR_PIN_DIR", world.ucr.pins());
    Started::new(command)
}

#[test]
fn only_root_may_ask_unless_a_group_is_named() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let open = |path: &std::path::Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("set a mode");
    };
    open(world.folder(), 0o755);
    let daemon = Daemon::start(&world);
    for question in [&["ls"][..], &["who", "1"], &["history"], &["graph"], &["status"], &["trace"]]
    {
        let answer = as_nobody(&world, &daemon, question).ended(FAILED);
        let answer = answer.complains("connect to the daemon").complains("Permission denied");
        let answer = answer.complains("hint: only root and the group");
        assert_eq!(answer.stdout, "");
    }
    // The daemon does not rely on the file's rights.
    assert_eq!(
        fs::metadata(daemon.control()).expect("a socket").permissions().mode() & 0o777,
        0o600
    );
    open(&daemon.control(), 0o666);
    for question in [&["ls"][..], &["who", "1"], &["history"], &["graph"], &["status"], &["trace"]]
    {
        let answer = as_nobody(&world, &daemon, question).ended(FAILED);
        let answer = answer.complains(&format!("the daemon refuses: user {NOBODY} may not ask"));
        let _hint = answer.complains("hint: ask as root, or as a member of the group");
    }
    wait::until("them to be counted", || {
        let refused = daemon.status().expect("a status").refused;
        refused.contains(&("not_allowed".to_owned(), 6)).then_some(())
    });
    // Without a daemon it is said what is missing.
    let answer = world.ucr.run_as_nobody(&["ls", "--control", "/no/daemon"]).ended(FAILED);
    let _hint = answer.complains("hint: run it as root");
}

#[test]
fn a_member_of_the_group_is_told_everything_but_addresses() {
    if !needs::met(&[Need::Root, Need::Program("setpriv")]) {
        return;
    }
    let world = world();
    fs::set_permissions(world.folder(), Permissions::from_mode(0o755)).expect("set a mode");
    let daemon = Daemon::start_with(&world, &[("control.group", &format!("{GROUP:?}"))]);
    let answer = as_nobody(&world, &daemon, &["ls"]).ended(FAILED);
    let _refused = answer.complains("Permission denied");

    let (mut server, mut client) = (world.victim(), world.victim());
    let name = world.path_name("x.sock");
    let listener = server.listener("stream", &name, 4);
    let fd = client.client("stream", &name);
    server.accept(listener);
    let waits = client.client("stream", &name);
    let (one, other) = client.pair("stream");
    client.close(one);
    client.close(other);
    let (pid, inode) = (client.pid().to_string(), client.inode(fd));
    let (live, past) = (all(&inspect::columns::columns()), all(history::columns::all()));
    let events = all(history::columns::events::all());
    let told = |arguments: &[&str]| {
        let answer = as_member(&world, &daemon, arguments).finish().done();
        let all = format!("{}{}", answer.stdout, answer.stderr);
        assert!(!has_kernel_address(&all), "{arguments:?}: {all}");
        answer
    };
    let rows = super::rows(&told(&["ls", "-o", &live, "--json", "--pid", &pid]).json());
    assert_eq!(
        rows.iter().map(|row| row["inode"].clone()).collect::<Vec<_>>(),
        [inode, client.inode(waits)]
    );
    assert_eq!(
        (&rows[0]["peer.pid"], &rows[0]["known"]),
        (&json!(server.pid()), &json!("seen-live"))
    );
    told(&["ls", "-o", &live]);
    told(&["ls", "--all-netns", "--jsonl", "-o", &live]);
    let path = world.path("x.sock").display().to_string();
    for target in [&end(&client, fd), &pid, &path, &format!("inode:{inode}")] {
        assert!(told(&["who", target]).stdout.contains(&format!("(pid {pid}, fd {fd}")));
        told(&["who", "--json", target]);
    }
    for format in ["dot", "json", "svg"] {
        assert!(told(&["graph", "--format", format]).stdout.contains(&path));
    }
    wait::until("the pair to be history", || {
        let gone = super::rows(&told(&["history", "--json", "-o", &past, "--pid", &pid]).json());
        (gone.len() == 2).then_some(())
    });
    told(&["history", "--pid", &pid, "-o", &past]);
    assert!(
        told(&["history", "--events", "--pid", &pid, "-o", &events]).stdout.contains("socketpair")
    );
    let status = told(&["status", "--json"]).json();
    assert_eq!(status["daemon"]["pid"], daemon.pid(), "{status:#}");
    told(&["status"]);

    // And live.
    let follower = as_member(&world, &daemon, &["trace", "--json", "--count", "1", "--pid", &pid]);
    wait::until("it to follow", || follower.complaint().contains("following").then_some(()));
    client.close(fd);
    let answer = follower.finish().done();
    assert_eq!(
        (&answer.json()["event"], &answer.json()["socket"]["inode"]),
        (&json!("close"), &json!(inode))
    );
    assert!(!has_kernel_address(&answer.stdout), "{}", answer.stdout);
}
