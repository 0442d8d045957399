//! Attach, detach, status.

use ucr_tests::{
    Need, needs,
    ucr::{FAILED, USAGE},
    wait,
};

use crate::world;

#[test]
fn what_is_attached_twice_is_attached_once() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let again = world.ucr.run(&["attach"]).ended(FAILED);
    let pins = world.ucr.pins().display().to_string();
    let again = again.complains("attached already").complains(&pins);
    let _hinted = again.complains("ucr detach");
    // The first one was not disturbed.
    world.ucr.run(&["status"]).done();
    world.ucr.run(&["detach"]).done();
    assert!(!world.ucr.pins().exists());
}

#[test]
fn without_attach_there_is_nothing_to_detach_or_to_show() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    for verb in ["detach", "status"] {
        let answer = world.ucr.run(&[verb]).ended(FAILED);
        let answer = answer.complains("not attached");
        let _named =
            answer.complains(&world.ucr.pins().display().to_string()).complains("ucr attach");
    }
}

#[test]
fn an_attach_that_fails_leaves_nothing() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    // No power of two.
    let _usage = world.ucr.run(&["attach", "--ring-bytes", "5000"]).ended(USAGE);
    // More than a map can have: the kernel refuses when the pin directory is there already.
    let refused = world.ucr.run(&["attach", "--max-sockets", "4294967295"]).ended(FAILED);
    let _named = refused.complains("load the eBPF object");
    assert!(!world.ucr.pins().exists());
    world.ucr.attach();
}

#[test]
fn nobody_may_not_attach_and_learns_what_it_takes() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let answer = world.ucr.run_as_nobody(&["attach"]).ended(FAILED);
    let _hinted = answer.complains("root");
    assert!(!world.ucr.pins().exists());
}

#[test]
fn status_counts_sockets_and_says_since_when() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let status = || world.ucr.run(&["status", "--json"]).done().json();
    let before = status();
    assert_eq!(before["attached"], true);
    let backend = world.ucr.backend();
    assert_eq!(before["backend"], backend.name());
    assert_eq!(before["counters"]["lost"], 0);
    assert!(before["attached_at_ns_since_boot"].as_u64().is_some_and(|at| at > 0));

    let mut victim = world.victim();
    victim.ask("pairs 500");
    let own = || {
        let records = world.ucr.ledger().records().expect("read the ledger");
        let pid = victim.pid().cast_unsigned();
        records.iter().filter(|record| record.creator.pid == pid).count()
    };
    assert_eq!(own(), 1000);
    // Others on this machine come and go meanwhile, also one that comes and goes while `status` counts: look until they
    // hold still for a moment.
    let after =
        wait::until("a status that counts what is in the ledger before and after it", || {
            let count = world.ucr.ledger().len();
            let status = status();
            (status["sockets"] == count && world.ucr.ledger().len() == count).then_some(status)
        });
    assert_eq!(before["attached_at_ns_since_boot"], after["attached_at_ns_since_boot"]);

    let table = world.ucr.run(&["status"]).done();
    assert!(table.stdout.contains(backend.name()), "{}", table.stdout);
}
