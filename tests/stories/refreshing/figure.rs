//! What of a process is to be as it was.

use std::{collections::BTreeSet, fs};

use ucr_tests::outside;

/// What of a process has to be as it was, line by line: descriptors (of sockets, that there is one), event polls,
/// mappings, the limit of descriptors.
pub(super) fn figure(pid: i32) -> BTreeSet<String> {
    let mut figure = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten() {
        let what = fs::read_link(entry.path()).expect("a link").display().to_string();
        let what = if what.starts_with("socket:") { "a socket" } else { &what };
        let fd: i32 = entry.file_name().to_str().and_then(|fd| fd.parse().ok()).expect("a number");
        figure.insert(format!("{fd}: {what}, {:o}", outside::flags(pid, fd)));
    }
    let watched = outside::registrations(pid);
    figure.extend(watched.iter().map(|watched| format!("watched: {watched:x?}")));
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).expect("read");
    figure.extend(read("maps").lines().map(str::to_owned));
    let limit = |line: &&str| line.starts_with("Max open files");
    figure.extend(read("limits").lines().find(limit).map(str::to_owned));
    figure
}

/// Which signals each thread blocks.
pub(super) fn blocked(pid: i32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("threads").flatten();
    let blocked = threads.filter_map(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("SigBlk"))?;
        Some(format!("{}: {line}", thread.file_name().display()))
    });
    blocked.collect()
}
