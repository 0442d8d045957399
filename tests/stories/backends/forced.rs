//! `--backend`: each can be asked for by name, and no other is taken then.

use ucr::tracer::hooks::Backend;
use ucr_tests::{
    Need, World, backends, needs,
    ucr::{DONE, FAILED},
};

use super::{TRACING, objects::Objects};
use crate::world;

/// Runs `ucr` without what the environment of the tests asks for.
fn unforced(world: &World, arguments: &[&str]) -> ucr_tests::Answer {
    let mut command = world.ucr.command(arguments);
    command.env_remove("UCR_BACKEND");
    let output = command.output().expect("start ucr");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    ucr_tests::Answer {
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

#[test]
fn what_features_offers_can_be_attached_and_the_rest_is_refused_with_a_reason() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for backend in TRACING {
        let world = world();
        let before = Objects::now();
        let answer = unforced(&world, &["attach", "--backend", backend.name()]);
        if backends::attachable().contains(&backend) {
            let _named = answer.done().complains(&format!("the {} backend", backend.name()));
            assert_eq!(world.ucr.backend(), backend);
            continue;
        }
        // Which program, and what the kernel said; no other backend in its place.
        let answer = answer.ended(FAILED).complains("load or attach eBPF program");
        let _caused = answer.complains("Operation not permitted");
        assert!(!world.ucr.pins().exists());
        before.are_all_again();
    }
}

#[test]
fn without_a_choice_the_best_is_taken_and_said_why() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let best = backends::attachable().first().expect("a backend");
    let answer = unforced(&world, &["attach"]).done();
    let answer = answer.complains(&format!("with the {} backend", best.name()));
    let is_second = answer.stderr.contains("not with the trampoline backend: ");
    assert_eq!(is_second, *best != Backend::Trampoline, "{}", answer.stderr);
    assert_eq!(world.ucr.backend(), *best);
    let report = world.ucr.run(&["features", "--json"]).done().json();
    assert_eq!(report["backend"], best.name());
}

#[test]
fn the_environment_chooses_as_well_and_the_command_line_has_the_last_word() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let code = |arguments: &[&str]| {
        let mut command = world.ucr.command(arguments);
        let output = command.env("UCR_BACKEND", "snapshot").output().expect("start ucr");
        output.status.code()
    };
    assert_eq!(code(&["attach"]), Some(FAILED));
    assert_eq!(code(&["attach", "--backend", "tracepoint"]), Some(DONE));
    assert_eq!(world.ucr.backend(), Backend::Tracepoint);
}

#[test]
fn a_snapshot_is_nothing_to_attach() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    for verb in ["attach", "trace"] {
        let answer = unforced(&world, &[verb, "--backend", "snapshot"]).ended(FAILED);
        let answer = answer.complains("there is nothing to attach");
        let _hinted = answer.complains("ucr dump --backend snapshot");
        assert!(!world.ucr.pins().exists());
    }
}

#[test]
pub(super) fn a_dump_from_a_snapshot_checks_nothing_and_says_so() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let mut world = world();
    let mut victim = world.victim();
    victim.pair("stream");
    let (pid, image) = (victim.pid().to_string(), world.path("image").display().to_string());
    let dump = ["dump", "--backend", "snapshot", "--pid", &pid, "-o", &image];
    for attached in [false, true] {
        if attached {
            world.ucr.attach_as(Backend::Tracepoint);
        }
        let json = [&dump[..], &["--json"]].concat();
        let report = world.ucr.run(&json).done().json();
        assert_eq!(report["tracing_attached"], false, "{report:#}");
        assert_eq!(report["counts"]["confirmed"], 0, "{report:#}");
        assert_eq!(report["counts"]["only_snapshot"], 2, "{report:#}");
        let _said = world.ucr.run(&dump).done().complains("only the kernel was asked");
        assert!(world.path("image").exists());
        std::fs::remove_file(world.path("image")).expect("remove the image");
    }
}

#[test]
fn another_backend_than_the_one_attached_is_refused_by_name() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for attached in backends::attachable() {
        let mut world = world();
        world.ucr.attach_as(*attached);
        let victim = world.victim();
        let (pid, image) = (victim.pid().to_string(), world.path("image").display().to_string());
        for wanted in TRACING.into_iter().filter(|wanted| wanted != attached) {
            let trace: &[&str] = &["trace", "--backend", wanted.name()];
            let dump: &[&str] = &["dump", "--backend", wanted.name(), "--pid", &pid, "-o", &image];
            for arguments in [trace, dump] {
                let answer = unforced(&world, arguments).ended(FAILED);
                let words = format!(
                    "tracing is attached with the {} backend, not with {}",
                    attached.name(),
                    wanted.name()
                );
                let _hinted = answer.complains(&words).complains("leave --backend out");
            }
        }
        let same = ["dump", "--backend", attached.name(), "--pid", &pid, "-o", &image];
        unforced(&world, &same).done();
        // Where nothing is attached, there is nothing to check against.
        world.ucr.run(&["detach"]).done();
        let _named = unforced(&world, &same).ended(FAILED).complains("not attached");
    }
}
