//! Names of all kinds stand on both ends of every connection again.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use ucr_tests::{Need, World, needs, outside, victim::talk};

use super::{bring_back, take};
use crate::{dumping::dump, world};

/// A listener, a bound client and what was accepted; dumped, restored, looked at from inside and
/// from outside.
fn round_trip(world: &World, kind: &str, name: &[u8], client_name: &[u8]) {
    let mut victim = world.victim();
    let listener = victim.listener(kind, name, 11);
    let client = victim.socket(kind);
    victim.bind(client, client_name);
    victim.connect(client, name);
    let accepted = victim.accept(listener);
    let nameless = victim.client(kind, name);
    let second = victim.accept(listener);

    let image = take(world, victim);
    let mut back = bring_back(world, &image);
    let pid = back.pid();

    assert_eq!(back.name(listener), name);
    assert_eq!(back.name(accepted), name);
    assert_eq!(back.peer_name(client), name);
    assert_eq!(back.name(client), client_name);
    assert_eq!(back.peer_name(accepted), client_name);
    assert_eq!(back.name(nameless), b"");
    assert_eq!(back.peer_name(second), b"");
    assert_eq!(outside::seen(pid, listener).send_queue, 11, "the backlog");
    for (client, server) in [(client, accepted), (nameless, second)] {
        assert_eq!(outside::seen(pid, client).peer, Some(back.inode(server)));
        talk_within(&mut back, client, server);
    }

    // It is a listener, not a picture of one.
    let mut stranger = world.victim();
    let fd = stranger.client(kind, name);
    let fresh = back.accept(listener);
    talk(&mut stranger, fd, &mut back, fresh);
}

fn talk_within(victim: &mut ucr_tests::Victim, a: i32, b: i32) {
    for (from, to) in [(a, b), (b, a)] {
        victim.ask(&format!("send {from} from-{from}"));
        assert_eq!(victim.ask(&format!("recv {to}")), format!("from-{from}"));
    }
}

#[test]
fn abstract_names_of_any_bytes() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut longest = world.abstract_name(b"-longest");
    longest.resize(108, 0xff);
    round_trip(&world, "stream", &world.abstract_name(b"\0a\n\xff\0"), &longest);
}

#[test]
fn abstract_names_of_seqpacket_sockets() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut longest = world.abstract_name(b"-longest");
    longest.resize(108, 0);
    round_trip(&world, "seqpacket", &longest, &world.abstract_name(b"-client"));
}

#[test]
fn paths_of_any_bytes_up_to_108() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut longest = world.path_name("p");
    longest.resize(108, b'a');
    let mut odd = world.path_name("odd ");
    odd.extend_from_slice(b"\n\xff\x1b[2J");
    round_trip(&world, "stream", &longest, &odd);
    // The files stand again, too.
    for name in [longest, odd] {
        use std::os::unix::{ffi::OsStrExt as _, fs::FileTypeExt as _};
        let file = fs::metadata(std::ffi::OsStr::from_bytes(&name)).expect("the socket file");
        assert!(file.file_type().is_socket());
    }
}

#[test]
fn relative_paths_are_bound_where_they_were_bound() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    fs::create_dir(world.path("deep")).expect("a folder");
    let mut victim = world.victim();
    victim.ask(&format!("chdir {}", world.path("deep").display()));
    let listener = victim.listener("stream", b"./rel", 3);
    victim.ask("chdir /");
    let image = take(&world, victim);
    let mut back = bring_back(&world, &image);
    assert_eq!(back.name(listener), b"./rel");
    let mut stranger = world.victim();
    stranger.client("stream", &world.path_name("deep/rel"));
    back.accept(listener);
}

#[test]
fn a_relative_path_whose_file_is_gone_is_known_again_after_a_restore() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    fs::create_dir(world.path("deep")).expect("a folder");
    let mut victim = world.victim();
    victim.ask(&format!("chdir {}", world.path("deep").display()));
    let gone = victim.socket("dgram");
    victim.bind(gone, b"rel");
    fs::remove_file(world.path("deep/rel")).expect("remove a socket file");
    let directory = |image: &std::path::Path| {
        let image = ucr::image::file::read(image).expect("read an image");
        let bound = image.sockets[0].name.clone().expect("a name");
        assert_eq!(bound.file, Some(ucr::image::SocketFile::Deleted));
        String::from_utf8(bound.directory.expect("a directory")).expect("text")
    };
    let image = take(&world, victim);
    assert_eq!(directory(&image), world.path("deep").display().to_string());
    // Nobody saw it being bound, neither the first time nor the second.
    let back = bring_back(&world, &image);
    let again = world.path("again");
    let _written = dump(&world, &back, &again, &[]).done();
    assert_eq!(directory(&again), world.path("deep").display().to_string());
}

#[test]
fn a_file_s_mode_and_one_that_was_deleted() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let open = world.path_name("open");
    let deleted = world.path_name("deleted");
    let first = victim.listener("stream", &open, 3);
    let second = victim.listener("stream", &deleted, 3);
    fs::set_permissions(world.path("open"), Permissions::from_mode(0o1640)).expect("set a mode");
    fs::remove_file(world.path("deleted")).expect("delete");
    let image = take(&world, victim);
    let mut back = bring_back(&world, &image);
    assert_eq!((back.name(first), back.name(second)), (open, deleted));
    let mode = fs::metadata(world.path("open")).expect("the socket file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o1640);
    assert!(!world.path("deleted").exists());
}

#[test]
fn numbers_and_flags_are_as_before() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    victim.ask("limit 4096");
    let (a, b) = victim.pair("stream");
    victim.ask(&format!("dup {a} 2000"));
    victim.ask(&format!("dupcloexec {b} 1500"));
    victim.ask(&format!("nonblock {b}"));
    victim.close(a);
    let lonely = victim.socket("seqpacket+nonblock");
    let before = outside::sockets(victim.pid());
    let flags: Vec<i32> =
        before.keys().map(|fd| outside::flags(victim.pid(), *fd) & !NOT_KEPT).collect();

    let image = take(&world, victim);
    let back = bring_back(&world, &image);
    let after = outside::sockets(back.pid());
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert_eq!(after[&b], after[&1500], "two descriptors of one socket");
    assert_eq!(outside::seen(back.pid(), 2000).peer, Some(after[&b]));
    let now: Vec<i32> =
        after.keys().map(|fd| outside::flags(back.pid(), *fd) & !NOT_KEPT).collect();
    assert_eq!(now, flags);
    // Close-on-exec would not have survived: the program is told instead.
    let environment = fs::read(format!("/proc/{}/environ", back.pid())).expect("its environment");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(environment.contains("UCR_CLOEXEC_FDS=1500\0"), "{environment}");
    assert!(after.contains_key(&lonely));
}

/// Close-on-exec.
const NOT_KEPT: i32 = 0o2_000_000;

#[test]
fn connections_outlive_a_listener_that_is_gone() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let name = world.abstract_name(b"");
    let listener = victim.listener("stream", &name, 3);
    let client = victim.client("stream", &name);
    let accepted = victim.accept(listener);
    victim.close(listener);
    let image = take(&world, victim);
    let mut back = bring_back(&world, &image);
    assert_eq!(back.peer_name(client), name);
    assert_eq!(back.name(accepted), name);
    talk_within(&mut back, client, accepted);
    // Nobody listens under that name now, as before.
    let mut stranger = world.victim();
    let fd = stranger.socket("stream");
    let refused = stranger.tell(&format!("connect {fd} {}", ucr_tests::world::hex(&name)));
    assert_eq!(refused, Err("ECONNREFUSED".to_owned()));
}

#[test]
fn what_was_shut_down_is_shut_down() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    victim.ask(&format!("shutdown {a} write"));
    let image = take(&world, victim);
    let mut back = bring_back(&world, &image);
    assert_eq!(back.tell(&format!("send {a} x")), Err("EPIPE".to_owned()));
    assert_eq!(back.ask(&format!("recv {b}")), "", "the end");
    back.ask(&format!("send {b} still"));
    assert_eq!(back.ask(&format!("recv {a}")), "still");
}

#[test]
fn a_dump_of_what_was_restored_says_the_same() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    let name = world.abstract_name(b"");
    let listener = victim.listener("stream", &name, 3);
    let client = victim.client("stream", &name);
    victim.accept(listener);
    victim.pair("seqpacket");
    let image = take(&world, victim);
    let back = bring_back(&world, &image);
    let again = world.path("again");
    let report = dump(&world, &back, &again, &[]).done().json();
    assert_eq!(report["counts"]["confirmed"], 5, "ucr's own calls were seen live: {report:#}");
    let shown = |image: &std::path::Path| {
        world.ucr.run(&["show", "--json", image.to_str().expect("text")]).done().json()
    };
    let (first, second) = (shown(&image), shown(&again));
    assert_eq!(first["connections"], second["connections"]);
    for (a, b) in first["sockets"]
        .as_array()
        .expect("a list")
        .iter()
        .zip(second["sockets"].as_array().expect("a list"))
    {
        for field in ["type", "role", "backlog", "bound", "status_flags", "shutdown", "options"] {
            assert_eq!(a[field], b[field], "{field} of {a}");
        }
    }
    assert!(listener < client);
}
