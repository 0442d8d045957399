//! `ucr history`: who had a socket that is gone, when, and with whom?

use serde_json::{Value, json};
use ucr::history::columns;
use ucr_tests::{
    Daemon, Need, Victim, World, needs,
    ucr::{FAILED, USAGE},
    wait,
};

use super::{ODD, all, bytes, end, is_safe, now, odd_victim, rows, typed};
use crate::world;

/// Closed sockets, the latest first, with all columns.
fn gone(daemon: &Daemon<'_>, filters: &[&str]) -> Vec<Value> {
    let every = all(columns::all());
    let arguments = [&["history", "--json", "-o", &every], filters].concat();
    rows(&daemon.run(&arguments).done().json())
}

/// Waits until so many are there: they are written a moment later.
fn so_many(daemon: &Daemon<'_>, count: usize, filters: &[&str]) -> Vec<Value> {
    wait::until(&format!("{count} sockets in the history: {filters:?}"), || {
        Some(gone(daemon, filters)).filter(|rows| rows.len() >= count)
    })
}

/// A socket's row.
fn row(rows: &[Value], inode: u32) -> &Value {
    let row = rows.iter().find(|row| row["inode"] == inode);
    row.unwrap_or_else(|| panic!("no {inode}: {rows:#?}"))
}

/// Who did something to a socket.
fn by(row: &Value, deed: &str) -> Value {
    row[format!("{deed}.pid").as_str()].clone()
}

/// A connection through a listener: the client's descriptor, and the server's.
fn connection(server: &mut Victim, listener: i32, client: &mut Victim, name: &[u8]) -> (i32, i32) {
    let fd = client.client("stream", name);
    (fd, server.accept(listener))
}

#[test]
fn a_socket_that_is_gone_is_known_with_whom_it_talked() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut daemon = Daemon::start(&world);
    let begun = now();
    let (mut server, mut client) = (odd_victim(&world), world.victim());
    let name = world.path_name("x.sock");
    let listener = server.listener("stream", &name, 4);
    // One is closed by the client first, one by the server, one by the client's end, one by the server's; and
    // one is never accepted.
    let pairs = [(); 4].map(|()| connection(&mut server, listener, &mut client, &name));
    let waits = client.client("stream", &name);
    let inodes = pairs.map(|(fd, accepted)| (client.inode(fd), server.inode(accepted)));
    let (of_listener, of_waiting) = (server.inode(listener), client.inode(waits));
    client.close(pairs[0].0);
    server.close(pairs[0].1);
    server.close(pairs[1].1);
    client.close(pairs[1].0);
    client.close(pairs[2].0);
    let pids = [server.pid(), client.pid()];
    let [server_pid, client_pid] = &pids.map(|pid| pid.to_string());
    let before_the_end = now();
    server.kill();
    client.kill();

    // Each end of four connections, the listener, and both ends of what was never accepted.
    let everything = so_many(&daemon, 11, &["--pid", server_pid, "--pid", client_pid]);
    assert_eq!(everything.len(), 11, "{everything:#?}");
    for (of_client, of_server) in inodes {
        for (inode, role, own, other, comm) in [
            (of_client, "client", pids[1], pids[0], ODD),
            (of_server, "server", pids[0], pids[1], "victim"),
        ] {
            let row = row(&everything, inode);
            assert_eq!(row["role"], role, "{row:#}");
            assert_eq!(by(row, "peer"), other, "whose the other end was: {row:#}");
            assert_eq!(bytes(&row["peer.comm"]), comm.as_bytes(), "{row:#}");
            assert_eq!((by(row, "creator"), by(row, "closer")), (json!(pids[1]), json!(own)));
            assert_eq!((by(row, "opener"), &row["end"]), (json!(own), &json!("closed")), "{row:#}");
            assert_eq!(
                (&row["how"], &row["origin"]),
                (
                    &json!("seen"),
                    &if role == "client" { json!("socket") } else { json!("connection") }
                )
            );
            let [created, opened, closed] = ["created", "opened", "closed"].map(|column| {
                row[column].as_str().unwrap_or_else(|| panic!("no {column}: {row:#}"))
            });
            // By milliseconds: what stands in a listing has no more.
            assert!(begun[..19] <= created[..19], "{begun} {row:#}");
            assert!(created <= opened && opened <= closed, "{row:#}");
            assert!(closed[..19] <= now()[..19], "{row:#}");
            assert!(row["lifetime"].is_number() || row["lifetime"].is_string(), "{row:#}");
        }
        let (of_client, of_server) = (row(&everything, of_client), row(&everything, of_server));
        // Which one it was tells at least the end that closed first.
        let ends = [(of_client, of_server), (of_server, of_client)];
        let told: Vec<_> = ends.iter().filter(|(own, _)| !own["peer"].is_null()).collect();
        assert!(!told.is_empty(), "{of_client:#} {of_server:#}");
        assert!(told.iter().all(|(own, other)| own["peer"] == other["inode"]), "{told:#?}");
        assert_eq!(of_server["listener"], of_listener, "{of_server:#}");
        assert_eq!(bytes(&of_server["name"]), name);
    }
    let own = row(&everything, of_listener);
    assert_eq!(
        (&own["state"], by(own, "binder")),
        (&json!("listening"), json!(pids[0])),
        "{own:#}"
    );
    let never = everything.iter().find(|row| row["end"] == "never accepted").expect("the embryo");
    assert_eq!(
        (&never["inode"], by(never, "creator")),
        (&json!(null), json!(pids[1])),
        "{never:#}"
    );
    assert_eq!((by(never, "peer"), &never["peer"]), (json!(pids[1]), &json!(of_waiting)));
    let nobody = row(&everything, of_waiting);
    assert_eq!(
        (by(nobody, "peer"), &nobody["role"]),
        (json!(null), &json!("client")),
        "{nobody:#}"
    );

    // Conditions.
    let count = |filters: &[&str]| gone(&daemon, filters).len();
    let names = format!("{}/x*", world.folder().display());
    assert_eq!(count(&["--name", &names]), 6, "listener and what came through it");
    assert_eq!(count(&["--pid", server_pid]), 6, "made, opened or closed by it");
    assert_eq!(count(&["--pid", client_pid, "--peer", server_pid]), 4);
    assert_eq!(count(&["--peer", "o*<*", "--pid", client_pid]), 4);
    assert_eq!(count(&["--comm", "o*", "--pid", server_pid]), 6);
    assert_eq!(count(&["--comm", "no-such", "--pid", server_pid]), 0);
    assert_eq!(count(&["--type", "dgram", "--pid", server_pid]), 0);
    assert_eq!(count(&["--since", "1h", "--pid", server_pid]), 6);
    assert_eq!(count(&["--until", &begun, "--pid", server_pid]), 0);
    assert_eq!(count(&["--since", &before_the_end, "--name", &names]), 4);
    assert_eq!(count(&["--until", &before_the_end, "--name", &names]), 2);
    assert_eq!(count(&["-Q", "lifetime < 1h and end == closed", "--name", &names]), 5);
    let _nonsense = daemon.run(&["history", "--since", "yesterday"]).ended(USAGE).complains("2h");

    // Events.
    let events = |filters: &[&str]| {
        let arguments = [&["history", "--json", "--events", "--sort", "time.boottime"], filters];
        rows(&daemon.run(&arguments.concat()).done().json())
    };
    let kinds: Vec<_> = events(&["--pid", server_pid]).iter().map(|e| e["event"].clone()).collect();
    assert_eq!(kinds[..3], ["socket", "bind", "listen"], "{kinds:?}");
    assert_eq!(kinds[3..7], ["accept"; 4], "{kinds:?}");
    assert_eq!(kinds.len(), 7 + 4 + 1 + 1, "and what it had is closed: {kinds:?}");
    let connects = events(&["--event", "connect", "--pid", client_pid]);
    assert_eq!(connects.len(), 5);
    assert_eq!(bytes(&connects[0]["name"]), name);

    // The same from the database, once nobody is there to ask.
    let every = all(columns::all());
    let asked = ["history", "--json", "-o", &every, "--pid", server_pid, "--pid", client_pid];
    let listed = |answer: Value| (rows(&answer), answer["matched"].clone());
    let told = listed(daemon.run(&asked).done().json());
    let table = daemon.run(&["history", "--name", &names]).done().stdout;
    assert!(is_safe(&table) && table.contains("o\\x1b\\x0a"), "{table}");
    daemon.stop().done();
    let file = daemon.history().display().to_string();
    let from_file = |arguments: &[&str]| world.ucr.run(&[arguments, &["--file", &file]].concat());
    assert_eq!(listed(from_file(&asked).done().json()), told);
    assert_eq!(from_file(&["history", "--name", &names]).done().stdout, table);
    let wrong = from_file(&["history", "-Q", "inode == x"]).ended(USAGE);
    assert!(!wrong.stderr.contains("the daemon refuses"), "{}", wrong.stderr);
    let none = daemon.run(&asked).ended(FAILED).complains("no daemon answers");
    let _hint = none.complains("hint: `ucr daemon` starts one");
    let _none =
        world.ucr.run(&["history", "--file", "/no/such"]).ended(FAILED).complains("/no/such");
}

/// Makes a socket with a name and closes it again; its inode.
fn pass_by(world: &World, rest: &[u8]) -> u32 {
    let mut victim = world.victim();
    let fd = victim.listener("seqpacket", &world.abstract_name(rest), 1);
    let inode = victim.inode(fd);
    victim.kill();
    inode
}

#[test]
fn what_happened_while_the_daemon_was_down_is_known_when_it_is_back() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut daemon = Daemon::start(&world);
    let names = typed(&world.abstract_name(b"*"));
    let listed = |daemon: &Daemon<'_>| -> Vec<Value> {
        let mut rows = gone(daemon, &["--name", &names]);
        rows.reverse();
        rows.iter().map(|row| row["inode"].clone()).collect()
    };
    let mut expected = vec![pass_by(&world, b"1")];
    // A connection that is older than the next daemon.
    let (mut server, mut client) = (world.victim(), world.victim());
    let listener = server.listener("stream", &world.abstract_name(b"lasting"), 1);
    let (fd, accepted) =
        connection(&mut server, listener, &mut client, &world.abstract_name(b"lasting"));
    let (of_client, of_server) = (client.inode(fd), server.inode(accepted));
    so_many(&daemon, 1, &["--name", &names]);

    daemon.stop().done();
    expected.push(pass_by(&world, b"2"));
    daemon.begin();
    so_many(&daemon, 2, &["--name", &names]);

    daemon.kill();
    expected.push(pass_by(&world, b"3"));
    let client_pid = client.pid();
    client.kill();
    daemon.begin();
    expected.push(pass_by(&world, b"4"));
    so_many(&daemon, 4, &["--name", &names]);
    assert_eq!(listed(&daemon), expected, "each once, in order");
    server.close(accepted);
    let row = so_many(&daemon, 1, &["-Q", &format!("inode == {of_server}")]).remove(0);
    // Which socket it was is forgotten when the peer closes; whose it was is not.
    assert_eq!(
        (by(&row, "peer"), bytes(&row["peer.comm"])),
        (json!(client_pid), b"victim".to_vec())
    );
    assert_eq!(row["role"], "server", "{of_client} {row:#}");
    let answer = daemon.run(&["history", "--since", "1h"]).done();
    // What others did just before the daemon was killed may have gone with it.
    let begins = "missing: what before ";
    let gaps: Vec<_> = answer.stderr.lines().filter(|line| line.contains(begins)).collect();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert!(gaps[0].contains("while nobody kept them"), "{gaps:?}");

    // Who ends tracing as well does not know what comes then, and says so.
    daemon.set("tracing.on_stop", "\"detach\"");
    daemon.reload();
    daemon.stop().done();
    assert!(!world.ucr.pins().exists(), "nothing is attached any more");
    pass_by(&world, b"5");
    daemon.begin();
    let after = pass_by(&world, b"6");
    so_many(&daemon, 5 + 1, &["--name", &names]);
    expected.push(after);
    let listed: Vec<_> = listed(&daemon).into_iter().filter(|inode| *inode != of_server).collect();
    assert_eq!(listed, expected);
    let answer = daemon.run(&["history"]).done();
    let absent = answer.stderr.matches("which happened while nobody kept them").count();
    assert_eq!(absent, 2, "{}", answer.stderr);
    let _text = end(&server, listener);
}
