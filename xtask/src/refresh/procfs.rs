//! What can be seen of a tree of processes in `/proc`, whatever ucr says of it.

use std::{collections::BTreeMap, fs, path::Path};

/// The sockets of a process and all below it: each descriptor, by process and number, with what it leads to.
/// What has gone meanwhile is left out.
pub(super) fn sockets(root: i32) -> BTreeMap<(i32, String), String> {
    let mut sockets = BTreeMap::new();
    for pid in tree(root) {
        let Ok(folder) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for entry in folder.flatten() {
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            let link = link.display().to_string();
            if link.starts_with("socket:") {
                sockets.insert((pid, entry.file_name().display().to_string()), link);
            }
        }
    }
    sockets
}

/// A process and all below it.
fn tree(root: i32) -> Vec<i32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        found.extend(children(pid));
        at += 1;
    }
    found
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let of_thread = |thread: &Path| fs::read_to_string(thread.join("children"));
    let lists = threads.flatten().filter_map(|thread| of_thread(&thread.path()).ok());
    let pids = lists.flat_map(|list| {
        list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
    });
    pids.collect()
}
