//! SIGHUP: what can change changes, what cannot is named, and what is wrong changes nothing.

use std::fs;

use nix::sys::signal::Signal;
use ucr::daemon::{
    client::{Client, ClientError},
    protocol::{About, Refusal},
};
use ucr_tests::{Need, daemon::Daemon, needs, ucr::FAILED, wait};

use super::status;
use crate::world_alone;

#[test]
fn changed_values_hold_from_a_reload_on() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let mut daemon = Daemon::start_with(&world, &[("tracing.reconcile_every", "'0s'")]);
    let pid = daemon.pid();

    daemon.set("control.max_request", "'1KiB'");
    daemon.set("log.level", "'debug'");
    daemon.set("tracing.max_sockets", "1000");
    daemon.set("history.file", "'/nonexistent/elsewhere.db'");
    daemon.reload();
    daemon.says("configuration read again: control.max_request, log.level changed");
    daemon.says("needs a restart: tracing.max_sockets, history.file");
    let client = Client::connect(&daemon.control()).expect("connect to the daemon");
    let filter = Some("x".repeat(2000));
    let about = About::Graph { filter, scope: ucr::tracer::programs::Scope::OwnNamespace };
    let refused = client.ask(about).expect("ask").hear();
    assert!(
        matches!(refused, Err(ClientError::Refused(Refusal::TooLong { limit: 1024 }))),
        "{refused:?}"
    );
    assert!(daemon.history().exists());

    daemon.set("control.max_clients", "1");
    daemon.reload();
    let first = Client::connect(&daemon.control()).expect("connect to the daemon");
    wait::until("the second one to be turned away", || match daemon.status() {
        Err(ClientError::Refused(Refusal::Busy { limit: 1 })) => Some(()),
        _ => None,
    });
    drop(first);
    daemon.set("control.max_clients", "64");
    // This alone is reason enough to begin.
    daemon.set("tracing.reconcile_every", "'1s'");
    daemon.reload();
    daemon.answers();
    let before = status(&daemon).reconciliations;
    wait::until("a reconciliation", || (status(&daemon).reconciliations > before).then_some(()));
    assert_eq!(daemon.pid(), pid);
    assert_eq!(status(&daemon).pid.to_string(), pid.to_string());
}

#[test]
fn a_broken_file_changes_nothing_and_is_told_of() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let daemon = Daemon::start_with(&world, &[("control.max_request", "'2KiB'")]);
    let wrong = ["control.max_request = '1KiB'\ncontrol.max_clients = 0\n", "[control\n"];
    for (text, why) in wrong.into_iter().zip(["control.max_clients = 0", "ucr.toml:1:"]) {
        fs::write(daemon.config(), text).expect("write a configuration");
        daemon.reload();
        daemon.says(why);
        assert!(status(&daemon).pid > 0, "it goes on");
    }
    fs::remove_file(daemon.config()).expect("remove the configuration");
    daemon.reload();
    let said = daemon.said();
    assert_eq!(said.matches("configuration not read again").count(), 3, "{said}");
    assert!(!said.contains("changed"), "{said}");
}

#[test]
fn a_key_that_nobody_knows_keeps_the_daemon_from_starting() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let daemon = Daemon::configured(&world, &[("control.max_client", "7")]);
    let answer = daemon.run_to_its_end().ended(FAILED);
    answer.complains("unknown key control.max_client; is control.max_clients meant?");
    assert!(!daemon.control().exists() && !world.ucr.pins().exists(), "it has begun nothing");
}

#[test]
fn a_reload_in_the_first_moment_does_not_end_it() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let daemon = Daemon::start(&world);
    for _ in 0..50 {
        daemon.signal(Signal::SIGHUP);
    }
    assert!(status(&daemon).pid > 0);
}
