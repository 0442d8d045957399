//! `ucr ls`: which sockets are there, and who has them?

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    process::Stdio,
};

use nix::pty::{Winsize, openpty};
use serde_json::{Value, json};
use ucr::inspect::columns::DEFAULTS;
use ucr_tests::{
    Need, Victim, World, needs,
    ucr::{Started, USAGE},
    wait,
};

use super::{Scene, bytes, column, in_every_way, is_safe, odd_victim, typed};
use crate::world;

/// Some of each sort.
const EVERY: &str = "+cookie,netns,name,creator.comm,unit,cgroup,user,holders,peer.name";

/// Two processes with one socket of each sort.
struct Cast {
    server: Victim,
    client: Victim,
    /// By what they are.
    inodes: BTreeMap<&'static str, u32>,
    folder: String,
}

impl Cast {
    fn new(world: &World) -> Self {
        let (mut server, mut client) = (odd_victim(world), world.victim());
        let path = world.path_name("a\n\x1b[31mb");
        let listener = server.listener("stream", &path, 4);
        let connected = client.client("stream", &path);
        let accepted = server.accept(listener);
        let waits = client.client("stream", &path);
        let dgram = server.socket("dgram");
        server.bind(dgram, &world.abstract_name(b"\0\xff"));
        let (q1, q2) = client.pair("seqpacket");
        client.ask(&format!("send {q1} eleven-more"));
        // One that only a message has.
        let (own, flies) = client.pair("stream");
        let inode = client.inode(flies);
        client.ask(&format!("pass {flies} {q1}"));
        client.close(flies);
        let inodes = BTreeMap::from([
            ("listener", server.inode(listener)),
            ("accepted", server.inode(accepted)),
            ("dgram", server.inode(dgram)),
            ("connected", client.inode(connected)),
            ("waits", client.inode(waits)),
            ("q1", client.inode(q1)),
            ("q2", client.inode(q2)),
            ("own", client.inode(own)),
            ("flies", inode),
        ]);
        Self { server, client, inodes, folder: world.folder().display().to_string() }
    }

    fn pids(&self) -> [String; 2] {
        [&self.server, &self.client].map(|victim| victim.pid().to_string())
    }

    /// In the order in which they are listed. What waits to be accepted has no number, and is `-`.
    fn these(&self, which: &[&str]) -> Vec<Value> {
        let inode = |which: &&str| self.inodes.get(which).copied();
        let mut inodes: Vec<Option<u32>> = which.iter().map(inode).collect();
        inodes.sort_unstable_by_key(|inode| (inode.is_none(), *inode));
        inodes.into_iter().map(|inode| inode.map_or(Value::Null, Value::from)).collect()
    }
}

fn inodes(scene: &Scene<'_>, filters: &[&str]) -> Vec<Value> {
    let rows = scene.rows(&[&["ls", "-o", "inode"], filters].concat());
    column(&rows, "inode").into_iter().cloned().collect()
}

#[test]
fn each_condition_chooses_what_it_says() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    in_every_way(|scene| {
        let cast = Cast::new(scene.world);
        let [server, client] = &cast.pids();
        let names = format!("{}/a*", cast.folder);
        let abstract_name = typed(&scene.world.abstract_name(b"*"));
        let own = fs::metadata("/proc/self/ns/net").expect("our namespace").ino().to_string();
        let of_server = ["listener", "accepted", "dgram"];
        let flies = format!("inode == {}", cast.inodes["flies"]);
        let cases: &[(&[&str], &[&str])] = &[
            (&["--pid", server], &of_server),
            (&["--pid", client], &["connected", "waits", "q1", "q2", "own"]),
            (&["--pid", server, "--pid", client, "--type", "seqpacket"], &["q1", "q2"]),
            (&["--pid", server, "--comm", "[o]?*<*"], &of_server),
            (&["--pid", server, "--comm", "victim"], &[]),
            (&["--name", &names], &["listener", "accepted", "-"]),
            (&["--name", &abstract_name], &["dgram"]),
            (&["--peer", server], &["connected"]),
            (&["--peer", "o*", "--pid", client], &["connected"]),
            (&["--peer", "nobody*", "--peer", client, "--pid", server], &["accepted"]),
            (&["--state", "listening", "--pid", server], &["listener"]),
            (&["--state", "not-accepted", "--name", &names], &["-"]),
            (
                &["--state", "unconnected", "--state", "listening", "--pid", server],
                &["listener", "dgram"],
            ),
            (&["--type", "dgram", "--pid", server], &["dgram"]),
            (&["--user", "root", "--type", "dgram", "--pid", server], &["dgram"]),
            (&["--user", "0", "--type", "dgram", "--pid", server], &["dgram"]),
            (&["--user", "65534", "--pid", server], &[]),
            (&["--cgroup", "/*", "--type", "dgram", "--pid", server], &["dgram"]),
            (&["--cgroup", "/no-such*", "--pid", server], &[]),
            (&["--netns", &own, "--pid", server], &of_server),
            (&["--netns", "1", "--pid", server], &[]),
            // What no descriptor leads to.
            (&["-Q", &flies], &["flies"]),
            (&["-Q", "holders == 0 and state == not-accepted", "--name", &names], &["-"]),
            // Expressions.
            (&["-Q", "recv_q > 1 or type == dgram", "--pid", server], &["dgram"]),
            (&["-Q", "recv_q >= 1", "--pid", server], &["listener"]),
            (&["-Q", "recv_q == 11 && recv_msgs == 2", "--pid", client], &[]),
            (&["-Q", "recv_q >= 12 && recv_msgs == 2", "--pid", client], &["q2"]),
            (&["-Q", "not (peer or name)", "--pid", client], &["waits"]),
            (&["-Q", "!name and peer.comm =~ 'o*'", "--pid", client], &["connected"]),
            (&["-Q", r#"comm == "o\x1b\x0a\"<&\\""#, "--pid", server], &of_server),
            (
                &["-Q", "age < 1h and created > 1h and not age > 1h", "--pid", client],
                if scene.is_traced() { &["connected", "waits", "q1", "q2", "own"] } else { &[] },
            ),
            (
                &["-Q", &format!("known == {} and role == client", scene.known()), "--pid", client],
                if scene.is_traced() { &["connected", "waits"] } else { &[] },
            ),
        ];
        for (filters, expected) in cases {
            assert_eq!(inodes(scene, filters), cast.these(expected), "{filters:?}");
        }
    });
}

#[test]
fn a_listing_can_be_shaped() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    in_every_way(|scene| {
        let cast = Cast::new(scene.world);
        let [server, client] = &cast.pids();
        let both = ["--pid", server, "--pid", client];
        let ls = |more: &[&'static str]| [&["ls"], both.as_slice(), more].concat();
        let rows = scene.rows(&ls(&[]));
        assert_eq!(rows.len(), 8);
        let names = |row: &Value| -> Vec<String> {
            row.as_object().expect("a row").keys().cloned().collect()
        };
        assert_eq!(names(&rows[0]), DEFAULTS);
        let whole = scene.json(&ls(&["-o", "+known,pid", "--limit", "3"]));
        assert_eq!((&whole["matched"], super::rows(&whole).len()), (&json!(8), 3));
        assert!(whole["examined"].as_u64() >= Some(9), "{whole:#}");
        assert_eq!(names(&whole["rows"][0]), [DEFAULTS.as_slice(), &["known", "pid"]].concat());
        assert!(column(&super::rows(&whole), "known").iter().all(|known| **known == scene.known()));

        // Both forms for programs say the same.
        let lines = scene.ask(&ls(&["--jsonl", "-o", EVERY])).done().stdout;
        let lines: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
        assert_eq!(lines, scene.rows(&ls(&["-o", EVERY])));
        let named = lines.iter().find(|row| row["state"] == "listening").expect("the listener");
        assert_eq!(bytes(&named["name"]), scene.world.path_name("a\n\x1b[31mb"));

        // Order.
        let sorted = |by: &'static str| {
            let rows = scene.rows(&ls(&["-o", "inode,pid,recv_q", "--sort", by]));
            let of = |name| column(&rows, name).into_iter().cloned().collect::<Vec<_>>();
            (of("inode"), of("pid"), of("recv_q"))
        };
        let mut expected =
            cast.these(&["listener", "accepted", "dgram", "connected", "waits", "q1", "q2", "own"]);
        assert_eq!(sorted("inode").0, expected);
        expected.reverse();
        assert_eq!(sorted("-inode").0, expected);
        let (_, pids, queues) = sorted("pid,-recv_q");
        let key =
            |(pid, queue): (&Value, &Value)| (pid.as_u64(), std::cmp::Reverse(queue.as_u64()));
        assert!(pids.iter().zip(&queues).map(key).is_sorted(), "{pids:?} {queues:?}");

        // How many of each.
        let counted = scene.rows(&ls(&["--count-by", "type,pid"]));
        let count = |kind: &str, victim: &Victim| {
            let is_it = |row: &&Value| row["type"] == kind && row["pid"] == victim.pid();
            counted.iter().find(is_it).map(|row| row["count"].clone())
        };
        assert_eq!(counted.len(), 4, "{counted:#?}");
        assert_eq!(count("stream", &cast.client), Some(json!(3)));
        assert_eq!(count("stream", &cast.server), Some(json!(2)));
        assert_eq!(count("seqpacket", &cast.client), Some(json!(2)));
        assert_eq!(count("dgram", &cast.server), Some(json!(1)));
        assert_eq!(counted[0]["count"], 3, "the most frequent first");

        // For people.
        let table = scene.ask(&ls(&["--sort", "inode"])).done();
        assert!(is_safe(&table.stdout), "{:?}", table.stdout);
        let lines: Vec<&str> = table.stdout.lines().collect();
        assert_eq!(lines.len(), 9, "{}", table.stdout);
        let heads: Vec<&str> = lines[0].split_whitespace().collect();
        assert_eq!(heads, DEFAULTS.map(str::to_uppercase));
        let owner = format!("o\\x1b\\x0a\"<&\\\\({server}:");
        assert_eq!(
            table.stdout.matches(&owner).count(),
            4,
            "three own and a peer: {}",
            table.stdout
        );
        assert_eq!(table.stdout.matches("/a\\x0a\\x1b[31mb ").count(), 2, "{}", table.stdout);
        let bare = scene.ask(&ls(&["--sort", "inode", "--no-header", "--limit", "2"])).done();
        assert_eq!(bare.stdout.lines().collect::<Vec<_>>().len(), 2);
        let _said = bare.complains("2 of 8 rows are shown (--limit)");
        let columns = scene.ask(&["ls", "--columns"]).done().stdout;
        let known: Vec<_> = columns.lines().filter_map(|line| line.split("  ").next()).collect();
        assert!(
            DEFAULTS.iter().chain(&["creator.comm", "container"]).all(|name| known.contains(name))
        );
    });
}

#[test]
fn what_makes_no_sense_is_pointed_at() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    in_every_way(|scene| {
        let victim = scene.world.victim();
        let pid = victim.pid().to_string();
        let wrong = |arguments: &[&str], words: &[&str]| {
            let mut answer = scene.ask(arguments).ended(USAGE);
            assert_eq!(answer.stdout, "");
            for words in words {
                answer = answer.complains(words);
            }
        };
        let caret = |at: usize| format!("ucr: {:>1$}\n", '^', at + 5);
        for verb in ["ls", "graph", "history"] {
            // Also with more conditions the expression is shown as it was typed.
            let asked = |filter: &str, words: &[&str]| {
                wrong(&[verb, "--pid", &pid, "-Q", filter], words);
            };
            let (column, near) = if verb == "history" {
                ("liftime", "did you mean `lifetime`?")
            } else {
                ("recvq", "did you mean `recv_q`?")
            };
            let filter = format!("not  {column} > 5s");
            asked(&filter, &[&format!("there is no column `{column}`"), &filter, &caret(5), near]);
            asked(
                "inode == 1) or (inode == 2",
                &["`and`, `or` or the end is expected", &caret(10)],
            );
            asked("inode = 5", &["equality is written `==`", &caret(6)]);
            asked("inode ==", &["not the end", &caret(8)]);
            asked("name =~ 'a", &["this quote does not end"]);
            asked("\x1b[31m", &["ucr:     \\x1b[31m\n"]);
        }
        for verb in ["ls", "history"] {
            wrong(&[verb, "-o", "+inod"], &["no column `inod` to show", "did you mean `inode`?"]);
            wrong(&[verb, "--sort", "-nmae"], &["no column `nmae` to sort by", "`name`?"]);
            wrong(&[verb, "--count-by", "typ,name"], &["no column `typ` to count by", "`type`?"]);
        }
        // What shows only once there are sockets.
        for verb in ["ls", "graph"] {
            let words = "column `inode` holds numbers: it cannot be compared with `x`";
            wrong(&[verb, "-Q", "state and inode == x"], &[words, &caret(10)]);
        }
        wrong(&["ls", "--state", "nonsense"], &["not-accepted"]);
        wrong(&["ls", "--json", "--jsonl"], &["cannot be used with"]);
    });
}

#[test]
fn sockets_of_other_network_namespaces_are_listed_if_they_are_asked_for() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    in_every_way(|scene| {
        let (mut here, mut there) = (scene.world.victim(), scene.world.victim());
        there.ask("unshare");
        let name = scene.world.abstract_name(b"");
        let fds = [&mut here, &mut there].map(|victim| victim.listener("stream", &name, 1));
        let (ours, theirs) = (here.inode(fds[0]), there.inode(fds[1]));
        let waits = there.client("stream", &name);
        let typed = typed(&name);
        assert_eq!(inodes(scene, &["--name", &typed]), [ours]);
        let all = inodes(scene, &["--name", &typed, "--all-netns"]);
        assert_eq!(all, [json!(ours.min(theirs)), json!(ours.max(theirs)), Value::Null]);
        let namespace =
            fs::metadata(format!("/proc/{}/ns/net", there.pid())).expect("its namespace");
        let netns = namespace.ino().to_string();
        assert_eq!(
            inodes(scene, &["--netns", &netns, "--pid", &there.pid().to_string()]),
            [json!(theirs), json!(there.inode(waits))]
        );
        let rows = scene.rows(&["ls", "--netns", &netns, "-o", "netns,state,peer"]);
        assert!(rows.iter().all(|row| row["netns"] == namespace.ino()), "{rows:#?}");
        let embryo =
            json!({"netns": namespace.ino(), "state": "not-accepted", "peer": there.inode(waits)});
        assert!(rows.contains(&embryo), "{rows:#?}");
        // Both have the name, and `who` tells of both.
        let answer = scene.json(&["who", &typed]);
        assert_eq!(answer["answers"][0]["sockets"].as_array().map(Vec::len), Some(2), "{answer:#}");
    });
}

#[test]
fn on_a_terminal_lines_are_as_wide_as_it_is() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let name = world.path_name("a-name-that-is-rather-long-as-names-go");
    victim.listener("stream", &name, 1);
    let pid = victim.pid().to_string();
    let command = |columns: Option<&str>| {
        let mut command = world.ucr.command(&["ls", "--via", "kernel", "--pid", &pid]);
        command.env_remove("COLUMNS");
        command.envs(columns.map(|columns| ("COLUMNS", columns)));
        command
    };
    let name = String::from_utf8(name).expect("text");
    let piped = Started::new(command(None)).finish().done().stdout;
    assert!(piped.contains(&name), "{piped}");

    let size = Winsize { ws_row: 20, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None).expect("a terminal");
    let mut on_terminal = command(None);
    on_terminal.stdout(Stdio::from(pty.slave)).stderr(Stdio::null());
    let mut child = on_terminal.spawn().expect("start ucr");
    // It has the other copy of the terminal.
    drop(on_terminal);
    assert!(wait::for_end(&mut child).success());
    let mut shown = Vec::new();
    // Then there is nobody who could write: EIO.
    let _end = File::from(pty.master).read_to_end(&mut shown);
    let shown = String::from_utf8(shown).expect("text").replace("\r\n", "\n");
    let said = Started::new(command(Some("77"))).finish().done().stdout;
    assert_eq!(shown, said, "as if it had been said");
    assert!(!shown.contains(&name) && shown.contains('…'), "{shown}");
    assert_eq!(shown.lines().map(|line| line.chars().count()).max(), Some(77), "{shown}");
}

#[test]
fn a_reader_who_has_enough_is_no_failure() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    for arguments in [
        ["ls", "-o", EVERY].as_slice(),
        &["ls", "--json"],
        &["ls", "--jsonl"],
        &["ls", "--columns"],
        &["graph"],
        &["who", "1"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = world.ucr.command(arguments);
        command.env("UCR_VIA", "kernel").stdout(writer).stderr(Stdio::piped());
        let answer = command.output().expect("run ucr");
        let said = String::from_utf8_lossy(&answer.stderr);
        assert!(!said.contains("error") && !said.contains("panic"), "{arguments:?}: {said}");
        // Process 1 may have no unix socket.
        assert!(answer.status.success() || arguments[0] == "who", "{arguments:?}: {said}");
    }
}
