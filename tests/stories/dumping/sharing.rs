//! Sockets that something else holds as well: a table shared with another process, a message on its
//! way.

use ucr_tests::{Need, Perl, Victim, needs, ucr::REFUSED};

use super::{dump, obstacles::at};
use crate::world;

#[test]
fn a_table_that_another_process_shares_is_refused() {
    if !needs::met(&[Need::Root, Need::Program("perl")]) {
        return;
    }
    let world = world();
    let mut perl = Perl::start();
    let (a, b) = perl.pair();
    // clone(CLONE_FILES | SIGCHLD), and prctl(PR_SET_PDEATHSIG, SIGKILL) in the child.
    let child = perl.number(
        "my $p = syscall(56, 0x400 | 17, 0, 0, 0, 0); \
         if ($p == 0) { syscall(157, 1, 9, 0, 0, 0); sleep 600 while 1 } $p",
    );
    let pid = perl.pid().to_string();
    let image = world.path("image").display().to_string();
    let run = |options: &[&str]| {
        let arguments = ["dump", "--json", "--pid", &pid, "-o", &image];
        world.ucr.run(&[&arguments, options].concat()).ended(REFUSED).json()
    };
    // In the tree there are two processes, and still it is one table.
    for options in [&[][..], &["--tree"]] {
        let report = run(options);
        assert_eq!(at(&report, a)["kind"], "shared_table", "{report:#}");
        assert_eq!((&at(&report, a)["users"], &at(&report, a)["threads"]), (&2.into(), &1.into()));
    }
    assert!(!world.path("image").exists());

    // Its own again, it is no obstacle.
    perl.ask(&format!("kill 'KILL', {child}; waitpid {child}, 0"));
    let _written = world.ucr.run(&["dump", "--pid", &pid, "-o", &image]).done();
    assert_ne!(a, b);
}

#[test]
fn what_is_also_in_a_message_on_its_way_is_refused() {
    if needs::met(&[Need::Root]) {
        in_flight(|_| {});
    }
}

#[test]
fn it_is_refused_in_a_process_with_threads_as_well() {
    if needs::met(&[Need::Root]) {
        // It stands still like the first one: no call of its holds a reference, either.
        in_flight(|victim| {
            victim.ask("count");
        });
    }
}

/// A listener that is sent to another process, and not received.
fn in_flight(begin: impl FnOnce(&mut Victim)) {
    let world = world();
    let mut victim = world.victim();
    begin(&mut victim);
    let (x, y) = victim.pair("stream");
    let mut other = victim.child(&world.control());
    victim.close(y);
    let listener = victim.listener("stream", &world.abstract_name(b""), 5);
    let image = world.path("image");
    victim.ask(&format!("pass {listener} {x}"));
    victim.close(x);
    other.close(x);

    let report = dump(&world, &victim, &image, &[]).ended(REFUSED).json();
    assert_eq!(at(&report, listener)["kind"], "held_elsewhere", "{report:#}");
    assert_eq!(at(&report, listener)["references"], 1);
    assert_eq!(report["obstacles"].as_array().expect("a list").len(), 1, "{report:#}");
    assert!(!image.exists());

    // Received without room for descriptors, it is let go of.
    assert_eq!(other.ask(&format!("recv {y}")), "x");
    let _written = dump(&world, &victim, &image, &[]).done();
}
