//! Random worlds, dumped, restored and dumped again: what comes back is what was there.

use std::process::{Command, Output, Stdio};

use ucr_tests::{Need, needs, ucr::USAGE};

use crate::world;

fn worlds(options: &[&str]) -> Output {
    let mut worlds = Command::new(env!("CARGO_BIN_EXE_worlds"));
    worlds.args(options).stdin(Stdio::null()).output().expect("run worlds")
}

/// What chance begins with here: the same worlds each time, so that a failure is of the change that is
/// tested. `cargo xtask worlds` takes others each time.
const SEED: &str = "20261124";

/// Tries so many; none may come back as another one.
fn all_come_back(count: &str) {
    if !needs::met(&[Need::Root]) {
        return;
    }
    // Its own sockets are few; what others do does not matter to them.
    let _world = world();
    let output = worlds(&["--count", count, "--seed", SEED, "--verbose"]);
    let told = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    // The seed is among it.
    eprintln!("{complaint}");
    let wanted = format!("worlds={count} equal={count} refused=0 failed=0");
    assert_eq!(told.lines().last(), Some(wanted.as_str()), "{complaint}");
    assert!(output.status.success());
}

#[test]
fn two_hundred_come_back_as_they_were() {
    all_come_back("200");
}

/// The same for a machine that is slow.
#[test]
fn a_few_come_back_as_they_were() {
    all_come_back("12");
}

#[test]
fn a_difference_is_found_and_told_as_a_story() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let _world = world();
    // In each second image the listeners are said to have another backlog.
    let options = ["--count", "20", "--seed", "1", "--untraced", "--failures", "1", "--jobs", "1"];
    let output = worlds(&[&options[..], &["--plant"]].concat());
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains(" refused=0 failed=1"), "{told}");
    let lines: Vec<&str> = complaint.lines().map(str::trim).collect();
    let begin =
        lines.iter().position(|line| line.starts_with("A world that is not traced (--seed"));
    let end =
        lines.iter().position(|line| *line == "Then the images differ:").expect("a difference");
    // A socket, its name, listening; it takes no more.
    let story = &lines[begin.expect("a story") + 1..end];
    assert_eq!(story.len(), 3, "{complaint}");
    for (line, word) in story.iter().zip(["socket(", "bind [", "listen at ["]) {
        assert!(line.contains(word), "{line}");
    }
    assert!(lines[end + 1].contains("role: Listening"), "{}", lines[end + 1]);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    assert_eq!(worlds(&["--count", "many"]).status.code(), Some(USAGE));
}
