//! `ucr features`: it says what it found out, and never fails for lack of a feature.

use std::collections::BTreeSet;

use serde_json::Value;
use ucr_tests::{Answer, Need, needs};

use crate::world;

/// The names of the features, each of them once, each with what was found.
fn names(report: &Value) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for feature in report["features"].as_array().expect("a list") {
        let name = feature["name"].as_str().expect("text");
        assert!(names.insert(name), "{name} twice");
        let support = feature["support"].as_str().expect("text");
        assert!(["supported", "unsupported", "unknown"].contains(&support), "{feature}");
        let detail = feature["detail"].as_str().expect("text");
        assert!(support == "supported" || !detail.is_empty(), "{name} without a reason");
        assert!(!feature["purpose"].as_str().expect("text").is_empty());
    }
    names
}

#[test]
fn root_and_nobody_are_told_of_the_same_features() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let as_root = world.ucr.run(&["features", "--json"]).done().json();
    let as_nobody = world.ucr.run_as_nobody(&["features", "--json"]).done().json();
    let known = names(&as_root);
    assert_eq!(known, names(&as_nobody));
    for name in [
        "BTF",
        "bpf file system",
        "ring buffer",
        "tp_btf",
        "iter/unix",
        "iter/task_file",
        "fentry",
        "fexit",
        "BPF LSM",
        "kernel memory",
        "sock_diag unix",
        "sock_diag tcp",
        "sock_diag udp",
        "pidfd_getfd",
        "TCP_REPAIR",
        "connection lock",
        "CAP_BPF",
        "CAP_SYS_PTRACE",
    ] {
        assert!(known.contains(name), "{name}");
    }

    let support = |report: &Value, name: &str| {
        let features = report["features"].as_array().expect("a list");
        let found = features.iter().find(|feature| feature["name"] == name);
        found.expect("the feature")["support"].as_str().expect("text").to_owned()
    };
    let has_trampolines =
        ["fentry", "fexit"].iter().all(|name| support(&as_root, name) == "supported");
    let best = if has_trampolines { "trampoline" } else { "tracepoint" };
    assert_eq!(as_root["backend"], best, "{as_root:#}");
    // Nobody may load programs: then it cannot be known whether the kernel would take them.
    assert_eq!(as_nobody["backend"], "snapshot", "{as_nobody:#}");
    assert!(as_nobody["reason"].as_str().expect("text").contains("tp_btf"), "{as_nobody:#}");
    assert_eq!(support(&as_root, "tp_btf"), "supported");
    // Root is refused by the kernel, not for want of permission: everything can be found out.
    for name in known {
        assert_ne!(support(&as_root, name), "unknown", "{as_root:#}");
    }
    assert_eq!(support(&as_nobody, "tp_btf"), "unknown");
    assert_eq!(support(&as_nobody, "CAP_BPF"), "unsupported");
    assert!(!world.ucr.pins().exists());
}

#[test]
fn people_see_the_same_in_a_table() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let report = world.ucr.run(&["features", "--json"]).done().json();
    let shown = |answer: Answer, backend: &str| {
        let table = answer.done().stdout;
        for name in names(&report) {
            let rows = table.lines().filter(|line| line.trim_start().starts_with(name));
            assert!(rows.count() >= 1, "{name} in {table}");
        }
        assert!(table.contains(&format!("backend {backend}")), "{table}");
    };
    shown(world.ucr.run(&["features"]), report["backend"].as_str().expect("text"));
    shown(world.ucr.run_as_nobody(&["features"]), "snapshot");
}
