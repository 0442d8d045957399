//! `ucr who`: who is on the other end?

use std::{fs, os::unix::fs::symlink};

use serde_json::{Value, json};
use ucr_tests::{
    Answer, Need, Victim, needs, outside,
    ucr::{DONE, FAILED, USAGE},
};

use super::{ODD, Scene, Way, bytes, end, in_every_way, is_safe, now, odd_victim, typed};
use crate::world;

/// The sockets that were found, each with its surroundings.
fn found(scene: &Scene<'_>, target: &str) -> Vec<Value> {
    let answer = scene.json(&["who", target]);
    let answers = answer["answers"].as_array().expect("answers");
    assert_eq!(answers.len(), 1, "{answer:#}");
    assert_eq!(answers[0]["notes"], json!([]), "{answer:#}");
    assert_eq!(answers[0]["tracing_since"].is_string(), scene.is_traced(), "{answer:#}");
    answers[0]["sockets"].as_array().expect("sockets").clone()
}

/// The one that was found.
fn only(scene: &Scene<'_>, target: &str) -> Value {
    let mut found = found(scene, target);
    assert_eq!(found.len(), 1, "{target}: {found:#?}");
    found.remove(0)
}

/// Who holds a socket, as process and descriptor.
fn holders(socket: &Value) -> Vec<(i32, i32)> {
    let number = |value: &Value| value.as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(-1);
    let holders = socket["holders"].as_array().unwrap_or_else(|| panic!("no socket: {socket:#}"));
    holders.iter().map(|held| (number(&held["pid"]), number(&held["fd"]))).collect()
}

/// A socket is a certain one, with its holder.
fn is(socket: &Value, victim: &Victim, fd: i32) {
    assert_eq!(socket["inode"], victim.inode(fd), "{socket:#}");
    assert_eq!(holders(socket), [(victim.pid(), fd)], "{socket:#}");
}

/// The process of a deed, which lies in a stretch of time.
fn done_by(deed: &Value, victim: &Victim, after: &str) -> String {
    let at = deed["at"].as_str().unwrap_or_else(|| panic!("no deed: {deed:#}"));
    assert_eq!(deed["pid"], victim.pid(), "{deed:#}");
    assert!(after <= at && at <= now().as_str(), "{after} {deed:#}");
    at.to_owned()
}

#[test]
fn both_ends_are_told_however_the_socket_is_named() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    in_every_way(|scene| {
        let world = scene.world;
        let begun = now();
        let (mut server, mut client) = (odd_victim(world), world.victim());
        fs::create_dir(world.path("folder")).expect("a folder");
        symlink("folder", world.path("link")).expect("a link");
        let path = world.path_name("folder/x.sock");
        let listener = server.listener("stream", &path, 4);
        let fd = client.client("stream", &path);
        let accepted = server.accept(listener);
        client.ask(&format!("send {fd} four"));

        // Once somebody has asked sock_diag it has a cookie.
        let cookie = outside::seen(client.pid(), fd).cookie;
        let inode = client.inode(fd);
        for target in [end(&client, fd), format!("inode:{inode}"), format!("cookie:{cookie}")] {
            let subject = only(scene, &target);
            let (own, peer) = (&subject["socket"], &subject["peer"]);
            is(own, &client, fd);
            is(peer, &server, accepted);
            assert_eq!(bytes(&own["holders"][0]["comm"]), b"victim");
            assert_eq!(bytes(&peer["holders"][0]["comm"]), ODD.as_bytes(), "{peer:#}");
            assert_eq!((&own["state"], &own["type"]), (&json!("connected"), &json!("stream")));
            assert_eq!(own["name"], json!({"kind": "unnamed", "text": "", "hex": ""}));
            assert_eq!(peer["name"]["kind"], "pathname");
            assert_eq!(bytes(&peer["name"]), path);
            assert_eq!((&own["cookie"], &own["holders"][0]["uid"]), (&json!(cookie), &json!(0)));
            assert_eq!(
                (&peer["receive_bytes"], &peer["receive_count"]),
                (&json!(4), &json!(1)),
                "{peer:#}"
            );
            assert_eq!(peer["peer_credentials_pid"], client.pid(), "{peer:#}");
            for socket in [own, peer] {
                assert_eq!(socket["known"], scene.known(), "{socket:#}");
                if scene.is_traced() {
                    let made = done_by(&socket["created"], &client, &begun);
                    let opener = if socket == own { &client } else { &server };
                    done_by(&socket["opened"], opener, &made);
                } else {
                    assert_eq!(
                        (&socket["created"], &socket["opened"]),
                        (&json!(null), &json!(null))
                    );
                }
            }
            if scene.is_traced() {
                assert_eq!((&own["role"], &peer["role"]), (&json!("client"), &json!("server")));
            }
        }

        let straight = world.path("folder/x.sock").display().to_string();
        let linked = world.path("link/x.sock").display().to_string();
        let pid = server.pid().to_string();
        for target in [&straight, &linked] {
            let subject = only(scene, target);
            let (own, connections) = (&subject["socket"], &subject["connections"]);
            is(own, &server, listener);
            assert_eq!((&own["state"], &own["backlog"]), (&json!("listening"), &json!(4)));
            assert_eq!(connections.as_array().map(Vec::len), Some(1), "{connections:#}");
            is(&connections[0]["server"], &server, accepted);
            is(&connections[0]["client"], &client, fd);
            if scene.is_traced() {
                let made = done_by(&own["created"], &server, &begun);
                let bound = done_by(&own["bound"], &server, &made);
                done_by(&own["opened"], &server, &bound);
            }
        }
        let sockets = found(scene, &pid);
        let mut held: Vec<_> = sockets.iter().flat_map(|one| holders(&one["socket"])).collect();
        held.sort_unstable();
        assert_eq!(held, [(server.pid(), listener), (server.pid(), accepted)], "all that it has");

        let text = scene.ask(&["who", &straight, &end(&client, fd)]).done().stdout;
        assert!(is_safe(&text), "{text:?}");
        for words in [
            format!("stream listening [{}] {straight}", server.inode(listener)),
            format!("1 connection:\n           [{inode}] victim (pid {}, fd {fd})", client.pid()),
            format!("o\\x1b\\x0a\"<&\\\\ (pid {}, fd {accepted}", server.pid()),
            "unread   4 bytes in 1 message".to_owned(),
        ] {
            assert!(text.contains(&words), "no `{words}` in {text}");
        }
        let words = "Tracing is not attached: who made, bound and connected these";
        assert_eq!(text.contains(words), !scene.is_traced(), "{text}");
        let words = format!("by victim (pid {}, user id 0)", client.pid());
        assert_eq!(text.contains(&words), scene.is_traced(), "{text}");
    });
}

#[test]
fn a_file_is_found_whatever_its_socket_calls_it() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    in_every_way(|scene| {
        let mut victim = scene.world.victim();
        let folder = scene.world.folder().display().to_string();
        fs::create_dir(scene.world.path("folder")).expect("a folder");
        symlink("folder", scene.world.path("link")).expect("a link");
        let linked = victim.listener("stream", &scene.world.path_name("link/a"), 1);
        victim.ask(&format!("chdir {folder}/folder"));
        let relative = victim.listener("seqpacket", b"b", 1);
        for (name, fd) in [("a", linked), ("b", relative)] {
            is(&only(scene, &format!("{folder}/folder/{name}"))["socket"], &victim, fd);
            // As whoever asks would write it, not as the daemon would.
            let mut command = scene.command(&["who", &format!("./{name}"), "--json"]);
            command.current_dir(scene.world.path("folder"));
            let answer = ucr_tests::ucr::Started::new(command).finish().done().json();
            is(&answer["answers"][0]["sockets"][0]["socket"], &victim, fd);
        }
        if scene.is_traced() {
            let text = scene.ask(&["who", &end(&victim, relative)]).done().stdout;
            assert!(text.contains(&format!(" b in {folder}/folder\n")), "{text}");
        }
    });
}

#[test]
fn names_may_have_any_bytes() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    in_every_way(|scene| {
        let mut victim = scene.world.victim();
        for rest in [&b"a\0b\n\xff\\"[..], b"", b"-\x1b[31m\xe2\x80\xae"] {
            let name = scene.world.abstract_name(rest);
            let fd = victim.listener("seqpacket", &name, 1);
            let subject = only(scene, &typed(&name));
            is(&subject["socket"], &victim, fd);
            assert_eq!(subject["socket"]["name"]["kind"], "abstract");
            assert_eq!(bytes(&subject["socket"]["name"]), name[1..]);
            let text = scene.ask(&["who", &typed(&name)]).done().stdout;
            assert!(is_safe(&text) && text.contains(&typed(&name)), "{text:?}");
            assert!(text.starts_with("seqpacket listening ["), "{text}");
        }
    });
}

#[test]
fn what_is_older_than_the_tracer_is_marked_so() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for way in [Way::Attached, Way::Daemon] {
        let world = world();
        let (mut server, mut client) = (world.victim(), world.victim());
        let name = world.abstract_name(b"");
        let listener = server.listener("stream", &name, 4);
        let fd = client.client("stream", &name);
        let accepted = server.accept(listener);
        let waits = client.client("stream", &name);
        let scene = Scene::new(&world, way);

        let subject = only(&scene, &typed(&name));
        is(&subject["socket"], &server, listener);
        let connections = subject["connections"].as_array().expect("connections");
        assert_eq!(connections.len(), 2, "{subject:#}");
        for connection in connections {
            let (known, created) =
                (&connection["server"]["known"], &connection["server"]["created"]);
            assert_eq!((known, created), (&json!("predates"), &json!(null)), "{subject:#}");
            if connection["server"]["state"] == "connected" {
                is(&connection["server"], &server, accepted);
                is(&connection["client"], &client, fd);
            } else {
                is(&connection["client"], &client, waits);
            }
        }
        let text = scene.ask(&["who", &end(&client, fd)]).done().stdout;
        assert_eq!(text.matches("known    from before tracing began").count(), 2, "{text}");
        // What comes then is seen.
        let accepted = server.accept(listener);
        let subject = only(&scene, &end(&server, accepted));
        is(&subject["peer"], &client, waits);
        let opened = &subject["socket"]["opened"];
        assert_eq!((&opened["pid"], opened["at"].is_string()), (&json!(server.pid()), true));
    }
}

#[test]
fn a_listener_tells_of_those_who_wait() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    in_every_way(|scene| {
        let (mut server, mut client) = (scene.world.victim(), scene.world.victim());
        let name = scene.world.abstract_name(b"queue");
        let listener = server.listener("stream", &name, 8);
        let [done, waits, gone] = [(); 3].map(|()| client.client("stream", &name));
        let accepted = server.accept(listener);
        client.ask(&format!("send {waits} hello"));
        client.close(gone);

        let subject = only(scene, &end(&server, listener));
        assert_eq!(subject["socket"]["receive_count"], 2, "{subject:#}");
        let connections = subject["connections"].as_array().expect("connections");
        assert_eq!(connections.len(), 3, "{subject:#}");
        let mut seen = [0; 3];
        for connection in connections {
            let (end, other) = (&connection["server"], &connection["client"]);
            assert_eq!(end["known"], scene.known(), "{end:#}");
            if end["state"] == "connected" {
                is(end, &server, accepted);
                is(other, &client, done);
                seen[0] += 1;
                continue;
            }
            assert_eq!(end["state"], "not-accepted", "{end:#}");
            assert_eq!((&end["inode"], holders(end)), (&json!(null), vec![]), "{end:#}");
            assert_eq!(bytes(&end["name"]), name[1..]);
            if scene.is_traced() {
                assert_eq!(end["created"]["pid"], client.pid(), "{end:#}");
            }
            if other.is_null() {
                seen[1] += 1;
            } else {
                is(other, &client, waits);
                assert_eq!(end["receive_bytes"], 5, "{end:#}");
                seen[2] += 1;
            }
        }
        assert_eq!(seen, [1, 1, 1], "{subject:#}");
        let text = scene.ask(&["who", &end(&server, listener)]).done().stdout;
        for words in [
            "queue    2 connections of at most 8 not accepted".to_owned(),
            "3 connections:".to_owned(),
            "  waits    client has closed".to_owned(),
            format!(
                "  waits    [{}] victim (pid {}, fd {waits})",
                client.inode(waits),
                client.pid()
            ),
        ] {
            assert!(text.contains(&words), "no `{words}` in {text}");
        }
        // The one who waits sees that nobody has it yet.
        let subject = only(scene, &end(&client, waits));
        assert_eq!(subject["peer"]["state"], "not-accepted", "{subject:#}");
        let text = scene.ask(&["who", &end(&client, waits)]).done().stdout;
        assert!(text.contains("held by  nobody yet: it waits to be accepted"), "{text}");
    });
}

#[test]
fn a_receiver_tells_of_its_senders() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    in_every_way(|scene| {
        let (mut receiver, mut one, mut other) =
            (scene.world.victim(), scene.world.victim(), scene.world.victim());
        let name = scene.world.abstract_name(b"receiver");
        let fd = receiver.socket("dgram");
        receiver.bind(fd, &name);
        let first = one.client("dgram", &name);
        let second = one.client("dgram", &name);
        let third = other.client("dgram", &name);
        other.ask(&format!("send {third} abc"));
        // One that is not connected to it.
        one.socket("dgram");

        let subject = only(scene, &typed(&name));
        is(&subject["socket"], &receiver, fd);
        assert_eq!((&subject["peer"], &subject["connections"]), (&json!(null), &json!([])));
        let senders = subject["senders"].as_array().expect("senders");
        let mut held: Vec<_> = senders.iter().flat_map(holders).collect();
        held.sort_unstable();
        let mut expected = [(one.pid(), first), (one.pid(), second), (other.pid(), third)];
        expected.sort_unstable();
        assert_eq!(held, expected, "{subject:#}");
        let text = scene.ask(&["who", &typed(&name)]).done().stdout;
        assert!(text.contains("3 sockets connected to it:"), "{text}");
        assert!(text.contains("unread   3 bytes in 1 message"), "{text}");
        // And the other way round.
        is(&only(scene, &end(&other, third))["peer"], &receiver, fd);
    });
}

#[test]
fn all_who_share_a_socket_are_told_and_so_is_that_nobody_has_it() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    in_every_way(|scene| {
        let mut victim = scene.world.victim();
        let (a, b) = victim.pair("stream");
        let mut child = victim.child(&scene.world.control());
        child.close(b);
        child.ask(&format!("dup {a} 40"));
        let subject = only(scene, &end(&victim, a));
        let mut expected = vec![(victim.pid(), a), (child.pid(), a), (child.pid(), 40)];
        expected.sort_unstable();
        assert_eq!(holders(&subject["socket"]), expected, "{subject:#}");
        assert_eq!(holders(&subject["peer"]), [(victim.pid(), b)], "{subject:#}");
        if scene.is_traced() {
            assert_eq!(subject["socket"]["role"], "pair");
        }

        // Only a message has it.
        let (own, other) = victim.pair("stream");
        let inode = victim.inode(other);
        victim.ask(&format!("pass {other} {b}"));
        victim.close(other);
        for target in [end(&victim, own), format!("inode:{inode}")] {
            let subject = only(scene, &target);
            let (flies, peer) = match target.starts_with("inode") {
                true => (&subject["socket"], &subject["peer"]),
                false => (&subject["peer"], &subject["socket"]),
            };
            is(peer, &victim, own);
            assert_eq!((&flies["inode"], &flies["state"]), (&json!(inode), &json!("connected")));
            assert_eq!(holders(flies), [], "{flies:#}");
            assert_eq!(flies["other_references"], 1, "{flies:#}");
        }
        let text = scene.ask(&["who", &format!("inode:{inode}")]).done().stdout;
        assert!(text.contains("held by  no descriptor\n"), "{text}");
        assert!(text.contains("and 1 reference more: a message"), "{text}");

        // Nobody has it any more.
        let (own, other) = victim.pair("seqpacket");
        victim.close(other);
        let subject = only(scene, &end(&victim, own));
        assert_eq!(
            (&subject["socket"]["state"], &subject["peer"]),
            (&json!("peer-closed"), &json!(null)),
            "{subject:#}"
        );
        let text = scene.ask(&["who", &end(&victim, own)]).done().stdout;
        assert!(text.contains("the other end: closed\n"), "{text}");
    });
}

#[test]
fn what_is_not_there_is_a_failure_that_names_it() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    in_every_way(|scene| {
        let mut victim = scene.world.victim();
        let gone = scene.world.victim();
        let pid = gone.pid();
        gone.kill();
        let failed = |target: &str, code: i32, words: &str| -> Answer {
            let answer = scene.ask(&["who", target]).ended(code).complains(words);
            assert_eq!(answer.stdout, "");
            answer
        };
        let _none = failed(&pid.to_string(), FAILED, &format!("look at process {pid}"));
        let none = "there is no unix socket ";
        let own = victim.pid().to_string();
        let _none = failed(&own, FAILED, &format!("{none}{own}"));
        let _none = failed(&format!("{own}:0"), FAILED, &format!("{none}{own}:0"));
        let path = scene.world.path("nothing").display().to_string();
        let _none = failed(&path, FAILED, &format!("{none}{path}"));
        let folder = scene.world.folder().display().to_string();
        let _none = failed(&folder, FAILED, &format!("{none}{folder}"));
        let _none = failed("@no such\\x0aname", FAILED, &format!("{none}@no such\\x0aname"));
        let _none = failed("inode:1", FAILED, &format!("{none}inode:1"));
        let _none = failed("cookie:99999999999", FAILED, "cookie:99999999999");
        let _no_target = failed("nonsense", USAGE, "PID:FD");
        // One of two is told all the same.
        let fd = victim.socket("stream");
        let answer = scene.ask(&["who", &end(&victim, fd), &path]).ended(FAILED).complains(none);
        assert!(answer.stdout.contains("stream unconnected"), "{}", answer.stdout);
        assert_eq!(
            scene.ask(&["who", "--json", &path]).ended(FAILED).json()["answers"][0]["sockets"],
            json!([])
        );
        assert_eq!(scene.ask(&["who", &end(&victim, fd)]).code, Some(DONE));
    });
}
