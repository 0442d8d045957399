//! What is attached in place of another program, where a kernel has inlined the function that this one
//! hangs on, or does not have it yet.

use ucr::tracer::hooks::{Backend, Need as HookNeed};
use ucr_tests::{Need, needs, ucr::FAILED};

use super::{datagrams, embryos, passing};
use crate::world;

/// What stands in for what.
fn stand_ins() -> Vec<(&'static str, &'static str)> {
    let hooks = Backend::Trampoline.hooks().iter();
    hooks
        .filter_map(|hook| match hook.need {
            HookNeed::InPlaceOf(first) | HookNeed::PreferablyInPlaceOf(first) => {
                Some((hook.program, first))
            }
            HookNeed::Required | HookNeed::Optional | HookNeed::With(_) => None,
        })
        .collect()
}

#[test]
fn what_stands_in_for_a_hook_does_its_work() {
    if !needs::met(&[Need::Root, Need::Backend(Backend::Trampoline)]) {
        return;
    }
    let mut world = world();
    let without: Vec<&str> =
        stand_ins().into_iter().flat_map(|(_, first)| ["--without", first]).collect();
    world.ucr.attach_with(Backend::Trampoline, &without);
    let status = world.ucr.run(&["status", "--json"]).done().json();
    let attached: Vec<_> = status["hooks"].as_array().expect("hooks").iter().collect();
    for (second, first) in stand_ins() {
        assert!(
            attached.contains(&&second.into()) && !attached.contains(&&first.into()),
            "{first}"
        );
    }
    datagrams::loses_its_peer(&world, Backend::Trampoline);
    embryos::take_what_waits_with_them(&world, false);
    passing::pass_and_take(&world);
    passing::send_to_an_address(&world, false);
}

#[test]
fn what_nothing_stands_in_for_is_not_left_out() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    for (backend, hook) in [(Backend::Trampoline, "unix_bind"), (Backend::Tracepoint, "sys_exit")] {
        let words = ["attach", "--backend", backend.name(), "--without", hook];
        let answer = world.ucr.run(&words).ended(FAILED);
        // A kernel that has no trampolines says so first.
        if ucr_tests::backends::attachable().contains(&backend) {
            let _named = answer.complains(&format!("{hook} was not to be attached"));
        }
        assert!(!world.ucr.pins().exists());
    }
    let answer = world.ucr.run(&["attach", "--without", "nonesuch"]).ended(2);
    let _listed = answer.complains("possible values").complains("unix_release_sock");
}
