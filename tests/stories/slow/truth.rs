//! The truth test, in short: the ledger is what the kernel has, under a hostile workload; where it is
//! not, that is noticed; and the test leaves nothing behind.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use ucr_tests::{Need, needs, ucr::USAGE, wait};

use crate::{world, world_alone};

const NEEDS: [Need; 2] = [Need::Root, Need::Program("perl")];

fn truth(options: &[&str]) -> Command {
    let mut truth = Command::new(env!("CARGO_BIN_EXE_truth"));
    truth.args(options).stdin(Stdio::null());
    truth
}

/// Whether there is a ledger to be looked at, with the backend that the environment chooses.
fn can_be_found_out() -> bool {
    needs::met(&NEEDS) && env::var_os("UCR_BACKEND").is_none_or(|backend| backend != "snapshot")
}

fn told(output: &Output) -> (Value, String) {
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = serde_json::from_slice(&output.stdout);
    (line.unwrap_or_else(|_| panic!("no line: {complaint}")), complaint)
}

#[test]
fn the_ledger_is_what_the_kernel_has() {
    if !can_be_found_out() {
        return;
    }
    let _world = world_alone();
    let options = ["--seconds", "4", "--at-least", "2000", "--json"];
    let output = truth(&options).output().expect("run truth");
    let (line, complaint) = told(&output);
    let number = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("no {name} in {line}"));
    assert!(output.status.success(), "{line}\n{complaint}");
    assert_eq!((number("missing"), number("stale"), number("wrong")), (0, 0, 0));
    // It was something to look at.
    assert!(number("operations") >= 2000, "{line}");
    assert!(number("checks") > 2 && number("compared") > 20 * number("checks"), "{line}");
    // The bystander's connection that waits for room, in every check.
    assert!(number("unborn") >= number("checks"), "{line}");
    if line["backend"] == "trampoline" {
        let repaired = ["added", "removed", "repaired"].map(|what| format!("reconciled_{what}"));
        assert_eq!(repaired.map(|name| number(&name)), [0, 0, 0]);
    }
}

#[test]
fn a_ledger_that_is_not_is_found_out() {
    if !can_be_found_out() {
        return;
    }
    let _world = world_alone();
    let options = ["--seconds", "1", "--checks-per-second", "20", "--plant", "all", "--json"];
    let output = truth(&options).output().expect("run truth");
    let (line, complaint) = told(&output);
    assert_eq!(output.status.code(), Some(1), "{line}\n{complaint}");
    assert_eq!(line["missing"], 1, "{complaint}");
    // One planted, and one whose cookie was changed.
    assert_eq!(line["stale"], 2, "{complaint}");
    for field in
        ["inode", "type", "state", "name", "peer", "listener", "shutdown", "backlog", "netns"]
    {
        let said = |text: &&str| text.starts_with("wrong") && text.contains(&format!("{field}: "));
        assert!(complaint.lines().any(|text| said(&text)), "{field} in {complaint}");
    }
}

#[test]
fn where_nothing_is_kept_there_is_nothing_to_prove() {
    let status = truth(&["--backend", "snapshot"]).stderr(Stdio::null()).status();
    assert_eq!(status.expect("run truth").code(), Some(USAGE));
}

/// Processes that have this folder among their arguments.
fn processes(folder: &Path) -> Vec<PathBuf> {
    let folder = folder.as_os_str().as_encoded_bytes();
    let all = fs::read_dir("/proc").expect("list processes");
    all.flatten()
        .map(|entry| entry.path())
        .filter(|process| {
            let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
            arguments.split(|byte| *byte == 0).any(|argument| argument == folder)
        })
        .collect()
}

#[test]
fn a_test_that_is_killed_leaves_nothing_behind() {
    if !can_be_found_out() {
        return;
    }
    // A workload that is killed at once is no flood.
    let _world = world();
    // In the best way there is, and in the last.
    for freezer in [&[][..], &["--freezer", "signals"]] {
        let mut started = truth(&["--seconds", "600", "--checks-per-second", "50"])
            .args(freezer)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run truth");
        let mut lines = BufReader::new(started.stderr.take().expect("its complaints")).lines();
        let line = lines.next().expect("a line").expect("text");
        let folder = PathBuf::from(line.rsplit_once(" in ").expect("a folder").1);
        // Foreman, bystander, guard and a few workers.
        wait::until("the workload", || (processes(&folder).len() > 6).then_some(()));
        started.kill().expect("kill truth");
        started.wait().expect("reap truth");
        wait::until("the workload to end", || processes(&folder).is_empty().then_some(()));
        wait::until("the folder to be removed", || (!folder.exists()).then_some(()));
        let name = folder.file_name().expect("a name");
        for hierarchy in ["", "unified", "freezer"] {
            assert!(!Path::new("/sys/fs/cgroup").join(hierarchy).join(name).exists());
        }
    }
}
