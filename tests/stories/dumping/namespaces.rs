//! Processes that are known by other numbers where ucr runs.

use std::process::Command;

use ucr_tests::{Need, needs, outside};

use super::{count, socket};
use crate::world;

#[test]
fn in_a_pid_namespace_of_its_own() {
    if !needs::met(&[Need::Root, Need::Program("unshare"), Need::Program("nsenter")]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let (mut victim, pid) = world.victim_in_pid_namespace();
    assert_eq!(victim.pid(), 1, "as it sees itself");
    let name = world.abstract_name(b"");
    let listener = victim.listener("stream", &name, 5);
    let client = victim.client("stream", &name);
    let accepted = victim.accept(listener);
    let child = victim.child(&world.control());
    assert_ne!(child.pid(), pid);
    let (a, b) = victim.pair("seqpacket");

    let image = world.path("image").display().to_string();
    let ucr = world.ucr.command(&["dump", "--json", "--tree", "--pid=1", "-o", &image]);
    let mut inside = Command::new("nsenter");
    inside.arg(format!("--target={pid}")).args(["--pid", "--mount", "--"]);
    inside.arg(ucr.get_program()).args(ucr.get_args());
    inside.env("UCR_PIN_DIR", world.ucr.pins());
    let output = inside.output().expect("run nsenter");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));

    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["processes"], 2);
    assert_eq!(count(&report, "confirmed"), 5, "{report:#}");
    for fd in [listener, client, accepted, a, b] {
        let inode = outside::inode(pid, fd).expect("a socket");
        let holder = &socket(&report, inode)["descriptors"][0];
        assert_eq!((&holder["pid"], &holder["fd"]), (&1.into(), &fd.into()), "{report:#}");
    }
    // Three of them were inherited.
    let listener = outside::inode(pid, listener).expect("a socket");
    assert_eq!(socket(&report, listener)["descriptors"][1]["pid"], child.pid());
    let shown = world.ucr.run(&["show", "--json", &image]).done().json();
    let pids: Vec<_> = shown["processes"].as_array().expect("a list").iter().collect();
    assert_eq!((&pids[0]["pid"], &pids[1]["pid"]), (&1.into(), &child.pid().into()));

    // From outside it is the same process under another number.
    let pid = pid.to_string();
    let report =
        world.ucr.run(&["dump", "--json", "--tree", "--pid", &pid, "-o", &image]).done().json();
    assert_eq!(count(&report, "confirmed"), 5, "{report:#}");
}
