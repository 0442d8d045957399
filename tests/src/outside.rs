//! What can be seen of a process's sockets without asking it: `/proc` and sock_diag.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use ucr::{model::SeenSocket, snapshot::diag};

/// The state of a process (one letter, as `ps` shows it), if it is there.
#[must_use]
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, also parentheses.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The number of the system call that a thread is blocked in, if it is.
#[must_use]
pub fn blocked_in(pid: i32, thread: i32) -> Option<i64> {
    let call = fs::read_to_string(format!("/proc/{pid}/task/{thread}/syscall")).ok()?;
    call.split_whitespace().next()?.parse().ok()
}

/// The inode of the socket that a descriptor leads to, if it leads to one.
#[must_use]
pub fn inode(pid: i32, fd: i32) -> Option<u32> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Every descriptor of a process that leads to a socket, with its inode.
///
/// # Panics
/// When the process is gone.
#[must_use]
pub fn sockets(pid: i32) -> BTreeMap<i32, u32> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).expect("list a process's descriptors");
    folder
        .flatten()
        .filter_map(|entry| {
            let fd = entry.file_name().to_str()?.parse().ok()?;
            Some((fd, inode(pid, fd)?))
        })
        .collect()
}

/// What sock_diag says of the socket behind a descriptor.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn seen(pid: i32, fd: i32) -> SeenSocket {
    let inode = inode(pid, fd).expect("a socket");
    let view = diag::unix_sockets().expect("a snapshot");
    view.get(inode).expect("the socket in the snapshot").clone()
}

/// The flags of a descriptor (`F_GETFL` and close-on-exec together), from `/proc/PID/fdinfo`.
///
/// # Panics
/// When there is no such descriptor.
#[must_use]
pub fn flags(pid: i32, fd: i32) -> i32 {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).expect("an open descriptor");
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|octal| i32::from_str_radix(octal.trim(), 8).ok()).expect("its flags")
}

/// What the epolls of a process watch: for each its descriptor, and of what it watches descriptor, events and data.
///
/// # Panics
/// When the process is gone.
#[must_use]
pub fn registrations(pid: i32) -> BTreeSet<(i32, i32, u32, u64)> {
    let folder = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("list a process's descriptors");
    let infos = folder.flatten().filter_map(|entry| {
        let epoll: i32 = entry.file_name().to_str()?.parse().ok()?;
        Some((epoll, fs::read_to_string(entry.path()).ok()?))
    });
    let of = |line: &str| {
        // `tfd:        6 events:       19 data:                6  pos:0 ino:a8f1 sdev:8`
        let mut words = line.split_whitespace();
        let mut next = |name: &str| words.find(|word| *word == name).and_then(|_| words.next());
        let descriptor = next("tfd:")?.parse().ok()?;
        let events = u32::from_str_radix(next("events:")?, 16).ok()?;
        Some((descriptor, events, u64::from_str_radix(next("data:")?, 16).ok()?))
    };
    let mut found = BTreeSet::new();
    for (epoll, info) in infos {
        let watched = info.lines().filter_map(of);
        found.extend(watched.map(|(descriptor, events, data)| (epoll, descriptor, events, data)));
    }
    found
}

/// The children of a process.
///
/// # Panics
/// When it is gone.
#[must_use]
pub fn children(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.expect("the children of a process");
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether some socket of our network namespace has this name (without a leading NUL).
///
/// # Panics
/// When sock_diag does not answer.
#[must_use]
pub fn is_name_taken(name: &[u8]) -> bool {
    let view = diag::unix_sockets().expect("a snapshot");
    view.sockets.values().any(|socket| socket.name.as_bytes() == name)
}
