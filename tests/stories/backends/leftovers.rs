//! What a tracer has in the kernel, and that it goes: after `detach`, after an `attach` that failed at
//! whatever step, and after one that was killed.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ucr::tracer::{object::PINNED_MAPS, programs::PROGRAMS};
use ucr_tests::{Need, backends, needs, ucr::FAILED, wait};

use super::objects::{Objects, Own};
use crate::world;

/// The kernel keeps so much of a program's name (`BPF_OBJ_NAME_LEN`, with a NUL).
const NAME: usize = 15;

#[test]
fn detach_leaves_no_program_no_map_no_link_and_no_pin() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for backend in backends::chosen() {
        let mut world = world();
        let before = Objects::now();
        world.ucr.attach_as(backend);
        let pins = world.ucr.pins().to_owned();

        let status = world.ucr.run(&["status", "--json"]).done().json();
        let hooks = status["hooks"].as_array().expect("a list of hooks");
        let cut = |name: &str| name.chars().take(NAME).collect::<String>();
        let hooks: BTreeSet<String> = hooks.iter().filter_map(|h| h.as_str()).map(cut).collect();
        let own = Own::pinned_at(&pins);
        let asked: BTreeSet<String> = PROGRAMS.iter().map(|(name, _)| cut(name)).collect();
        let programs: BTreeSet<String> =
            own.programs.values().filter(|name| !asked.contains(*name)).cloned().collect();
        assert_eq!(programs, hooks, "one program for each hook, and no other");
        assert_eq!(own.links.len(), hooks.len(), "each with one link: {:?}", own.links);
        // One is user space's own: no program has it.
        let used = PINNED_MAPS.iter().filter(|name| **name != "LAYOUT").count();
        assert!(own.maps.len() >= used, "{:?}", own.maps);
        for (directory, count) in
            [("maps", PINNED_MAPS.len()), ("links", own.links.len()), ("programs", PROGRAMS.len())]
        {
            assert_eq!(fs::read_dir(pins.join(directory)).expect("the pins").count(), count);
        }

        // All that loads something for itself, beside it.
        let mut victim = world.victim();
        let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
        let fd = victim.socket("stream");
        victim.bind(fd, &world.path_name("socket"));
        events.next("bind");
        world.ucr.run(&["reconcile"]).done();
        world.ucr.run(&["features"]).done();
        let (pid, image) = (victim.pid().to_string(), world.path("image").display().to_string());
        world.ucr.run(&["dump", "--pid", &pid, "-o", &image]).done();
        let same = Own::pinned_at(&pins);
        assert_eq!((same.programs, same.links), (own.programs, own.links));

        // Also what a follower has mapped goes, when it ends.
        world.ucr.run(&["detach"]).done();
        assert!(!pins.exists());
        let _ended = events.signal(Signal::SIGINT);
        before.are_all_again();
    }
}

#[test]
fn a_private_trace_leaves_nothing_however_it_ends() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let before = Objects::now();
        let events = world.ucr.follow(&[]);
        let _ended = events.signal(signal);
        before.are_all_again();
        assert!(!world.ucr.pins().exists());
    }
}

#[test]
fn an_attach_that_runs_out_of_descriptors_at_any_step_leaves_nothing() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for backend in backends::chosen() {
        let world = world();
        let before = Objects::now();
        let mut failures = 0;
        // Each map, program and link takes one, so that each limit is met at another step.
        for limit in (6..).step_by(5) {
            let limited = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
            let ucr = world.ucr.command(&["attach", "--backend", backend.name()]);
            let mut shell = Command::new("sh");
            shell.args(["-c", &limited]).arg(ucr.get_program()).args(ucr.get_args());
            shell.env("UCR_PIN_DIR", world.ucr.pins());
            let output = shell.output().expect("start a shell");
            if output.status.success() {
                break;
            }
            failures += 1;
            let said = String::from_utf8_lossy(&output.stderr);
            // 127: not even its libraries could be opened.
            assert!(matches!(output.status.code(), Some(FAILED | 127)), "{limit}: {said}");
            assert!(!world.ucr.pins().exists(), "{limit}: {said}");
        }
        assert!(failures > 2, "it failed at no more than {failures} steps");
        world.ucr.run(&["detach"]).done();
        before.are_all_again();
    }
}

#[test]
fn an_attach_that_was_killed_is_cleared_away_by_detach() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for backend in backends::chosen() {
        // How far it has come: its maps are there; its first link is; all of them are.
        let last = backend.hooks().last().expect("a hook").program;
        let first = backend.hooks().first().expect("a hook").program;
        let moments = ["maps/LEDGER".to_owned(), format!("links/{first}"), format!("links/{last}")];
        for moment in moments {
            let world = world();
            let before = Objects::now();
            killed_at(&world, &world.ucr.pins().join(&moment), backend.name());
            world.ucr.run(&["detach"]).done();
            assert!(!world.ucr.pins().exists());
            before.are_all_again();
        }
    }
}

/// Starts an attach and kills it once a pin is there.
fn killed_at(world: &ucr_tests::World, pin: &Path, backend: &str) {
    let mut attach = world.ucr.start(&["attach", "--backend", backend]);
    let pid = attach.pid();
    // Looked at without a pause: it goes on meanwhile.
    while !pin.exists() {
        assert!(wait::is_alive(pid), "it ended before {}: {}", pin.display(), attach.complaint());
    }
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill it");
    wait::for_end(attach.child());
}
