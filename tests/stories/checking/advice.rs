//! What is in the way is named with what to do about it, and doing that helps.

use ucr_tests::{Need, needs, ucr::REFUSED};

use super::{at, check};
use crate::{dumping::dump, world};

#[test]
fn a_peer_outside_is_named_and_what_to_do_about_it_helps() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (mut victim, mut other) = (world.victim(), world.victim());
    let name = world.path_name("outside");
    let listener = other.listener("stream", &name, 5);
    let client = victim.client("stream", &name);
    let accepted = other.accept(listener);

    let refused = check(&world, &victim, &[]).ended(REFUSED);
    let said = &refused.stdout;
    assert!(said.starts_with("a dump would be refused: 1 obstacle; found: 1 socket, "), "{said}");
    let (pid, theirs) = (victim.pid(), other.pid());
    let place = format!("pid {pid} (victim) fd {client} (inode {}): ", victim.inode(client));
    let holder = format!("is held by pid {theirs} (victim) fd {accepted}, which is not dumped");
    assert!(said.contains(&place) && said.contains(&holder), "{said}");
    let shown = String::from_utf8(name).expect("text");
    let hint = format!(
        "dump pid {theirs} as well (--tree of a common parent), or say --external \
         {shown}=reconnect|dangling|keep"
    );
    assert!(said.contains(&format!("hint: {hint}")), "{said}");
    let report = check(&world, &victim, &["--json"]).ended(REFUSED).json();
    let obstacle = at(&report, client);
    assert_eq!(obstacle["kind"], "external_peer");
    assert_eq!(obstacle["comm"], "victim");
    assert_eq!(obstacle["hint"], hint);
    assert_eq!(obstacle["holders"][0]["pid"], theirs);

    // The dump says the same, and every way out is one.
    let image = world.path("image");
    let _same =
        dump(&world, &victim, &image, &[]).ended(REFUSED).complains(&format!("hint: {hint}"));
    for policy in ["reconnect", "dangling", "keep"] {
        let rule = format!("{shown}={policy}");
        let _would = check(&world, &victim, &["--external", &rule]).done();
        let _does = dump(&world, &victim, &image, &["--external", &rule]).done();
    }
    // What is kept would end with the process.
    let keep = format!("{shown}=keep");
    let report = check(&world, &victim, &["--external", &keep, "--kill", "--json"]);
    let report = report.ended(REFUSED).json();
    assert_eq!(at(&report, client)["kind"], "nobody_keeps");
}

#[test]
fn a_name_of_its_own_is_shown_beside_the_place() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let name = world.abstract_name(b"-own");
    let listener = victim.listener("stream", &name, 5);
    let child = victim.child(&world.control());
    let refused = check(&world, &victim, &[]).ended(REFUSED);
    let own = format!("(inode {}, name @", victim.inode(listener));
    assert!(refused.stdout.contains(&own), "{}", refused.stdout);
    let hint = format!("hint: dump pid {} as well", child.pid());
    assert!(refused.stdout.contains(&hint), "{}", refused.stdout);
    let report = check(&world, &victim, &["--json"]).ended(REFUSED).json();
    let hex = ucr_tests::world::hex(&name);
    assert_eq!(at(&report, listener)["socket_name"]["hex"], hex.get(2..).expect("no NUL"));
    // Seen from the whole tree nothing is outside.
    let _would = check(&world, &victim, &["--tree"]).done();
}

#[test]
fn a_packet_socket_is_in_the_way_until_it_is_closed() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    victim.pair("stream");
    let packet = victim.socket("packet");
    let report = check(&world, &victim, &["--json"]).ended(REFUSED).json();
    let obstacle = at(&report, packet);
    assert_eq!(obstacle["kind"], "family");
    let pid = victim.pid();
    let hint = obstacle["hint"].as_str().expect("a hint");
    assert!(hint.contains(&format!("have pid {pid} close it before the dump")), "{hint}");
    let text = obstacle["text"].as_str().expect("text");
    assert!(text.contains("a packet socket (AF_PACKET, raw, protocol 0)"), "{text}");
    victim.close(packet);
    let _would = check(&world, &victim, &[]).done();
}

#[test]
fn a_dump_gives_one_hint_for_each_kind() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (mut victim, mut other) = (world.victim(), world.victim());
    for name in [&b"a"[..], b"b", b"c"] {
        let name = world.abstract_name(name);
        let listener = other.listener("stream", &name, 5);
        victim.client("stream", &name);
        other.accept(listener);
    }
    victim.socket("packet");
    let refused = dump(&world, &victim, &world.path("image"), &[]).ended(REFUSED);
    let said = &refused.stderr;
    assert_eq!(said.matches("cannot dump").count(), 4, "{said}");
    assert_eq!(said.matches("hint: ").count(), 2, "{said}");
    assert!(said.contains("(2 more like it: `ucr check` has a hint for each)"), "{said}");
    // There, each has its own.
    let checked = check(&world, &victim, &[]).ended(REFUSED);
    assert_eq!(checked.stdout.matches("hint: ").count(), 4, "{}", checked.stdout);
}
