//! Processes that cannot be looked at.

use ucr_tests::{
    Need, needs,
    ucr::{FAILED, USAGE},
};

use super::check;
use crate::world;

#[test]
fn a_process_that_is_not_there_or_has_ended() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let zombie = victim.ask("zombie");
    let answer = world.ucr.run(&["check", &zombie]).ended(FAILED);
    drop(answer.complains(&format!("process {zombie} has exited and waits to be reaped")));
    let gone = victim.pid().to_string();
    victim.kill();
    let answer = world.ucr.run(&["check", &gone, "--json"]).ended(FAILED);
    assert_eq!(answer.stdout, "");
    drop(answer.complains(&format!("process {gone} does not exist")));
}

#[test]
fn who_may_not_look_is_told_what_it_takes() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let victim = world.victim();
    let answer = world.ucr.run_as_nobody(&["check", &victim.pid().to_string()]).ended(FAILED);
    drop(answer.complains("error: ").complains("hint: run it as root"));
}

#[test]
fn ourselves_and_what_is_no_process() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let own = std::process::id().to_string();
    let answer = world.ucr.run(&["check", &own, "--tree"]).ended(FAILED);
    drop(answer.complains("hint: run ucr from outside of the tree"));
    for nonsense in ["0", "-1", "redis"] {
        let _usage = world.ucr.run(&["check", nonsense]).ended(USAGE);
    }
    let _usage = world.ucr.run(&["check"]).ended(USAGE);
}

#[test]
fn a_process_without_sockets_has_nothing_in_its_way() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let victim = world.victim();
    let said = check(&world, &victim, &[]).done().stdout;
    assert!(
        said.starts_with("a dump would succeed: 0 sockets, 0 descriptors, 1 process"),
        "{said}"
    );
}
