//! What the running daemon may do, and what it still can.

use std::fs;

use serde_json::json;
use ucr::daemon::privileges::KEPT;
use ucr_tests::{Need, daemon::Daemon, needs, ucr::NOBODY, wait};

use crate::world_alone;

/// A line of `/proc/PID/status`.
fn line(pid: i32, thread: &str, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status"));
    let status = status.expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.expect(name).trim().to_owned()
}

#[test]
fn it_has_the_capabilities_that_it_needs_and_no_way_to_others() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let daemon = Daemon::start(&world);
    let set = |name: &str, thread: &str| {
        u64::from_str_radix(&line(daemon.pid(), thread, name), 16).expect("a set")
    };
    let kept = KEPT.iter().fold(0, |all, one| all | one.set.bits());
    // As far as this machine let it have them.
    let had = fs::read_to_string("/proc/self/status").expect("our status");
    let had = had.lines().find_map(|line| line.strip_prefix("CapPrm:")).expect("our capabilities");
    let kept = kept & u64::from_str_radix(had.trim(), 16).expect("a set");
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("its threads");
    let mut seen = 0;
    for thread in threads {
        let thread = thread.expect("a thread").file_name().to_string_lossy().into_owned();
        for name in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(set(name, &thread), kept, "{name} of thread {thread}");
        }
        for name in ["CapInh", "CapAmb"] {
            assert_eq!(set(name, &thread), 0, "{name} of thread {thread}");
        }
        assert_eq!(line(daemon.pid(), &thread, "NoNewPrivs"), "1");
        seen += 1;
    }
    assert!(seen >= 3, "who reads the ring buffer, who writes the history, and who answers");
    assert_eq!(line(daemon.pid(), &daemon.pid().to_string(), "Umask"), "0077");
}

#[test]
fn it_tells_of_other_users_and_corrects_what_is_in_other_namespaces() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let settings = [("tracing.reconcile_every", "'1s'")];
    let daemon = Daemon::start_with(&world, &settings);
    let mut nobody = world.victim_as_nobody();
    let (fd, _) = nobody.pair("stream");
    let inode = nobody.inode(fd);
    let mut elsewhere = world.victim();
    elsewhere.ask("unshare");
    let (hidden, _) = elsewhere.pair("stream");
    let hidden = elsewhere.inode(hidden);

    let filter = format!("inode == {inode}");
    let told = daemon.run(&["ls", "--json", "-o", "pid,uid", "-Q", &filter]).done().json();
    assert_eq!(told["rows"], json!([{ "pid": nobody.pid(), "uid": NOBODY }]), "{told:#}");

    // What the ledger has wrong, where only a pass in that namespace can see it.
    world.ucr.falsify(hidden, |record| record.state = 99);
    wait::until("the record to be corrected", || {
        world.ucr.record(hidden).filter(|record| record.state == 1).map(drop)
    });
}
