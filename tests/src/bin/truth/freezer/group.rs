//! Where there is no cgroup to be had: the process group is stopped by SIGSTOP.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::wait::until;

/// A process as `/proc/PID/stat` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    state: char,
    parent: i32,
}

/// Reads the part behind the name, which may hold anything, also parentheses.
fn parse(stat: &str, group: Pid) -> Option<Member> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let own_group: i32 = fields.next()?.parse().ok()?;
    (own_group == group.as_raw()).then_some(Member { state, parent })
}

/// The living members of the group.
fn members(group: Pid) -> Result<BTreeMap<i32, Member>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("list the processes")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A thread may stop later than its process's first.
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
            let Some(member) = parse(&stat, group) else { continue };
            if !matches!(member.state, 'Z' | 'X') {
                let tid = task.file_name().to_str().and_then(|name| name.parse().ok());
                found.insert(tid.unwrap_or(pid), member);
            }
        }
    }
    Ok(found)
}

/// What each of them is at, one a line: for when nothing goes on any more.
pub(super) fn account(group: Pid) -> Result<Vec<String>> {
    let of = |tid: i32, file: &str| {
        let text = fs::read_to_string(format!("/proc/{tid}/{file}")).unwrap_or_default();
        text.lines().map(str::trim).collect::<Vec<_>>().join("; ")
    };
    let told = |(tid, member): (i32, Member)| {
        format!(
            "{tid} ({}) child of {} state {} in {}: {} [{}]",
            of(tid, "comm"),
            member.parent,
            member.state,
            of(tid, "wchan"),
            of(tid, "syscall"),
            of(tid, "stack"),
        )
    };
    Ok(members(group)?.into_iter().map(told).collect())
}

/// Whether all of them stand still. One that has called `vfork` is not stopped before its child has
/// executed a program; if the child is, the parent stands as well.
fn all_stopped(members: &BTreeMap<i32, Member>) -> bool {
    members.iter().all(|(tid, member)| match member.state {
        'T' | 't' => true,
        'D' => members.values().any(|child| child.parent == *tid && child.state == 'T'),
        _ => false,
    })
}

/// Stops them; who was just being forked is met in the next round.
pub(super) fn freeze(group: Pid) -> Result<()> {
    let mut before = BTreeMap::new();
    until("all processes are stopped", || {
        signal(group, Signal::SIGSTOP)?;
        let now = members(group)?;
        let is_still = all_stopped(&now) && now == before;
        before = now;
        Ok(is_still)
    })
}

pub(super) fn thaw(group: Pid) -> Result<()> {
    signal(group, Signal::SIGCONT)
}

pub(super) fn end(group: Pid) -> Result<()> {
    until("the workload has ended", || {
        signal(group, Signal::SIGKILL)?;
        Ok(members(group)?.is_empty())
    })
}

fn signal(group: Pid, signal: Signal) -> Result<()> {
    match killpg(group, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).context("send a signal to the workload"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_known_by_its_group() {
        let stat = "42 (a) b) S 7 40 40 0 -1 4194560";
        let member = Member { state: 'S', parent: 7 };
        assert_eq!(parse(stat, Pid::from_raw(40)), Some(member));
        assert_eq!(parse(stat, Pid::from_raw(41)), None);
    }

    #[test]
    fn who_waits_for_a_stopped_child_stands_still() {
        let member = |state, parent| Member { state, parent };
        let stopped = BTreeMap::from([(10, member('T', 1)), (11, member('T', 10))]);
        assert!(all_stopped(&stopped));
        assert!(all_stopped(&BTreeMap::from([(10, member('D', 1)), (11, member('T', 10))])));
        assert!(!all_stopped(&BTreeMap::from([(10, member('D', 1)), (11, member('T', 1))])));
        assert!(!all_stopped(&BTreeMap::from([(10, member('R', 1))])));
    }
}
