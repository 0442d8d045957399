//! `ucr trace`: who may follow, what is shown of all that happens, and how it ends.

use std::process::Stdio;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ucr_tests::{Need, needs, outside, ucr::FAILED, wait};

use super::inode;
use crate::world;

#[test]
fn without_attach_it_traces_by_itself_and_leaves_nothing() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
    let fd = victim.socket("stream");
    assert_eq!(inode(&events.next("socket")["socket"]), u64::from(victim.inode(fd)));
    assert!(!world.ucr.pins().exists());
    let answer = events.signal(Signal::SIGINT).done();
    assert!(answer.stderr.contains("lost"), "{}", answer.stderr);
    assert!(!world.ucr.pins().exists());
}

#[test]
fn a_second_follower_is_refused_and_told_who_is_first() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let first = world.ucr.follow(&[]);
    let second = world.ucr.run(&["trace"]).ended(FAILED);
    let _named = second.complains(&format!("process {}", first.pid()));
    let _ended = first.signal(Signal::SIGTERM).done();
    // The place is free at once.
    let _third = world.ucr.follow(&[]);
}

#[test]
fn an_interrupt_ends_it_with_a_summary() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
    victim.pair("stream");
    events.next("socketpair");
    let answer = events.signal(Signal::SIGINT).done();
    assert!(answer.stderr.contains("1 events, 0 lost"), "{}", answer.stderr);
}

#[test]
fn a_follower_that_stood_still_says_for_how_long_it_has_seen_nothing() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
    victim.pair("stream");
    events.next("socketpair");

    let follower = Pid::from_raw(events.pid());
    kill(follower, Signal::SIGSTOP).expect("stop the follower");
    wait::until("the end of its lease", || {
        let status = world.ucr.run(&["status", "--json"]).done().json();
        status["follower"].is_null().then_some(())
    });
    victim.pair("dgram");
    kill(follower, Signal::SIGCONT).expect("let the follower go on");
    let answer = events.signal(Signal::SIGINT).done();
    let answer = answer.complains("no events were written, since this follower");
    // Others may have filled the buffer as long as its lease ran.
    assert!(answer.stderr.contains("ucr: 1 events, "), "{}", answer.stderr);
}

#[test]
fn a_count_ends_it_as_well() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let pid = victim.pid().to_string();
    let mut events = world.ucr.follow(&["--pid", &pid, "--count", "3"]);
    for _ in 0..5 {
        victim.socket("stream");
    }
    let answer = events.finish().done();
    assert_eq!(answer.stdout.lines().count(), 3, "{}", answer.stdout);
}

#[test]
fn filters_select() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    let pid = victim.pid().to_string();
    let wanted = world.abstract_name(b"-wanted");
    let other = world.abstract_name(b"-other");
    let act = |victim: &mut ucr_tests::Victim| {
        for (kind, name) in [("stream", &other), ("seqpacket", &wanted)] {
            let fd = victim.listener(kind, name, 1);
            victim.close(fd);
        }
        victim.pair("dgram");
    };
    let netns = std::fs::read_link("/proc/self/ns/net").expect("our network namespace");
    let netns = netns.to_string_lossy().replace(|c: char| !c.is_ascii_digit(), "");
    let cases: [(&[&str], &[&str]); 6] = [
        (&["--name", "@*-wanted"], &["bind", "listen", "close"]),
        (&["--type", "dgram"], &["socketpair"]),
        (&["--event", "bind", "--event", "listen"], &["bind", "listen", "bind", "listen"]),
        (&["--comm", "vict*", "--event", "socketpair"], &["socketpair"]),
        (&["--netns", &netns, "--event", "listen"], &["listen", "listen"]),
        (&["--event", "close", "--type", "stream", "--type", "seqpacket"], &["close", "close"]),
    ];
    for (filters, kinds) in cases {
        let count = kinds.len().to_string();
        let all = [&["--pid", pid.as_str(), "--count", &count], filters].concat();
        let mut events = world.ucr.follow(&all);
        act(&mut victim);
        let shown = events.finish().done().stdout;
        let shown: Vec<String> = shown
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
            .map(|event| event["event"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(shown, kinds, "{filters:?}");
    }
    // And nobody else's.
    let mut events = world.ucr.follow(&["--comm", "no-such-*"]);
    act(&mut victim);
    assert!(events.seen().is_empty());
    kill(Pid::from_raw(events.pid()), Signal::SIGINT).expect("signal");
    assert_eq!(events.finish().done().stdout, "");
}

#[test]
fn a_pattern_that_is_none_is_a_usage_error() {
    let world = world();
    for arguments in [["trace", "--name", "[x"], ["trace", "--pid", "x"], ["trace", "--event", "x"]]
    {
        let _usage = world.ucr.run(&arguments).ended(ucr_tests::ucr::USAGE);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    let mut command = world.ucr.command(&["trace", "--json", "--pid"]);
    let errors = tempfile::NamedTempFile::new().expect("a file");
    command.arg(victim.pid().to_string()).stdout(Stdio::piped());
    command.stderr(errors.reopen().expect("the file"));
    let mut child = command.spawn().expect("start ucr trace");
    wait::until("it to follow", || {
        std::fs::read_to_string(errors.path()).ok()?.contains("following").then_some(())
    });
    drop(child.stdout.take());
    // The first write after the pipe broke ends it.
    while outside::state(i32::try_from(child.id()).expect("a pid")).is_some_and(|s| s != 'Z') {
        let fd = victim.socket("stream");
        victim.close(fd);
    }
    let status = wait::for_end(&mut child);
    let said = std::fs::read_to_string(errors.path()).expect("what it said");
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn people_are_shown_names_that_cannot_harm_a_terminal() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let mut victim = world.victim();
    let pid = victim.pid().to_string();
    let trace = world.ucr.start(&["trace", "--pid", &pid, "--event", "bind", "--count", "1"]);
    wait::until("it to follow", || trace.complaint().contains("following").then_some(()));
    let fd = victim.socket("stream");
    victim.bind(fd, &world.abstract_name(b"\x1b[2J\n\xff"));
    let answer = trace.finish().done();
    assert!(answer.stdout.contains("\\x1b[2J\\x0a\\xff"), "{}", answer.stdout);
    assert!(!answer.stdout.contains('\u{1b}'), "{}", answer.stdout);
}
