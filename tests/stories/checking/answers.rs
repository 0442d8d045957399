//! What is said: whether a dump would succeed, and what of it cannot be known.

use ucr_tests::{
    Need, needs,
    ucr::{DONE, REFUSED},
    victim::{talk, talk_both},
};

use super::check;
use crate::{dumping::dump, world};

#[test]
fn what_would_succeed_does() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.watch();
    let mut victim = world.victim();
    let name = world.path_name("x");
    let listener = victim.listener("stream", &name, 5);
    let client = victim.client("stream", &name);
    let accepted = victim.accept(listener);
    let (a, _) = victim.pair("seqpacket");
    victim.ask(&format!("send {a} waits"));

    let files = || std::fs::read_dir(world.folder()).expect("list").count();
    let before = files();
    let checked = check(&world, &victim, &[]).done();
    let said = &checked.stdout;
    assert!(
        said.starts_with("a dump would succeed: 5 sockets, 5 descriptors, 1 process"),
        "{said}"
    );
    assert!(said.contains("5 confirmed, 0 predate the tracer"), "{said}");
    assert!(said.contains("stopped for ") && said.contains("nothing was written"), "{said}");
    assert_eq!(checked.stderr, "");
    assert_eq!(files(), before, "nothing was written");

    // It says the same of itself, and the dump as well.
    let report = check(&world, &victim, &["--json"]).done().json();
    let image = world.path("image");
    let dumped = dump(&world, &victim, &image, &[]).done().json();
    assert_eq!(report["would_succeed"], true);
    assert_eq!(report["image_bytes"], dumped["image"]["bytes"]);
    for same in ["sockets", "obstacles", "tracing_attached", "counts", "descriptors", "processes"] {
        assert_eq!(report[same], dumped[same], "{same}");
    }
    for nothing in ["obstacles", "disagreements", "unknown"] {
        assert_eq!(report[nothing].as_array().map(Vec::len), Some(0), "{nothing}");
    }
    assert!(report["stopped_ms"].as_f64().is_some_and(|time| time > 0.0), "{report:#}");
    talk_both(&mut victim, client, accepted);
}

#[test]
fn a_conversation_goes_on_and_a_refusal_touches_nothing() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (mut victim, mut other) = (world.victim(), world.victim());
    let name = world.abstract_name(b"");
    let listener = other.listener("stream", &name, 5);
    let client = victim.client("stream", &name);
    let accepted = other.accept(listener);
    victim.ask(&format!("send {client} early"));
    for options in [&[][..], &["--kill"], &["--json"]] {
        let _refused = check(&world, &victim, options).ended(REFUSED);
    }
    assert_eq!(other.ask(&format!("recv {accepted}")), "early");
    talk(&mut victim, client, &mut other, accepted);
}

#[test]
fn nobody_is_ended_by_asking_whether_he_could_be() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let _would = check(&world, &victim, &["--kill"]).done();
    talk_both(&mut victim, a, b);
}

#[test]
fn without_tracing_it_says_what_nobody_knows() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    victim.pair("stream");
    let checked = check(&world, &victim, &[]).done();
    let said = &checked.stdout;
    assert!(said.starts_with("a dump would succeed: 2 sockets"), "{said}");
    assert!(said.contains("nothing was tracked: tracing is not attached"), "{said}");
    assert!(said.contains("unknown: who made them, and when"), "{said}");
    let report = check(&world, &victim, &["--json"]).done().json();
    assert_eq!(report["tracing_attached"], false);
    assert_eq!(report["sockets"][0]["verdict"], "not_tracked");
    assert!(report["unknown"].as_array().is_some_and(|list| list.len() > 3), "{report:#}");

    // Attached and not asked is something else.
    world.ucr.watch();
    let checked = check(&world, &victim, &["--backend", "snapshot"]).done();
    let said = &checked.stdout;
    assert!(said.contains("only the kernel was asked"), "{said}");
    assert!(!said.contains("tracing is not attached"), "{said}");
}

#[test]
fn what_was_tracked_and_the_kernel_disagree_on() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    let listener = victim.listener("stream", &world.abstract_name(b""), 5);
    let inode = victim.inode(listener);
    world.ucr.falsify(inode, |record| record.backlog = 77);

    let refused = check(&world, &victim, &[]).ended(REFUSED);
    let said = &refused.stdout;
    assert!(said.starts_with("a dump would be refused: 1 disagreement; "), "{said}");
    let pid = victim.pid();
    let line = format!(
        "pid {pid} fd {listener} (inode {inode}): conflict; backlog: tracked 77, kernel says 5"
    );
    assert!(said.contains(&line), "{said}");
    assert!(said.contains("ucr reconcile"), "{said}");
    let report = check(&world, &victim, &["--json"]).ended(REFUSED).json();
    assert_eq!(report["would_succeed"], false);
    assert_eq!(report["verify"], "strict");
    assert_eq!(report["disagreements"][0], line);
    for verify in ["warn", "off"] {
        let said = check(&world, &victim, &["--verify", verify]).ended(DONE).stdout;
        assert!(said.starts_with("a dump would succeed"), "{said}");
        assert!(said.contains("as the kernel has it"), "{said}");
    }
}

#[test]
fn what_no_order_of_calls_brings_back() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    // What is queued comes from one that had the name which another one has now.
    let (name, receiver) = (world.abstract_name(b"name"), world.path_name("receiver"));
    let (early, late) = (victim.socket("dgram"), victim.socket("dgram"));
    victim.bind(late, &receiver);
    victim.bind(early, &name);
    victim.ask(&format!("msg send {early} data=78 to={}", ucr_tests::world::hex(&receiver)));
    victim.close(early);
    let again = victim.socket("dgram");
    victim.bind(again, &name);
    let said = check(&world, &victim, &[]).ended(REFUSED).stdout;
    assert!(said.contains("it could not be restored (a socket that has closed had"), "{said}");
    let report = check(&world, &victim, &["--json"]).ended(REFUSED).json();
    assert!(report["not_restorable"].is_string(), "{report:#}");
}
