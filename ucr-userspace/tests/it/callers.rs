//! Calls made by processes with the saved pids: what the sockets show, and that nobody is left.

use std::collections::BTreeSet;
use std::fs;
use std::mem::ManuallyDrop;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::wait::{WaitPidFlag, waitpid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use ucr::image::*;
use ucr::model::*;
use ucr::restore::execute::{Execution, execute};
use ucr::restore::plan::plan;
use ucr::restore::plan::step::Step;
use ucr::restore::verify::{observe, other_pids};
use ucr::restore::workers::{Unavailable, Workers};

use crate::execution::{differences, open_descriptors};
use crate::support::*;

/// Pids that nobody has, and hardly anybody gets meanwhile.
fn free_pids(count: usize) -> Vec<Pid> {
    let highest = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    let highest: i32 = highest.trim().parse().unwrap();
    let free = (300..highest).rev().filter(|pid| !Path::new(&format!("/proc/{pid}")).exists());
    free.map(Pid).take(count).collect()
}

fn comm_of(pid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok()
}

/// Those children of this process that make calls for it, zombies among them.
fn callers() -> BTreeSet<i32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let children: Vec<String> = tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .collect();
    let pids = children.iter().flat_map(|list| list.split_whitespace());
    let pids = pids.filter_map(|pid| pid.parse().ok());
    pids.filter(|pid| comm_of(*pid).is_some_and(|comm| comm.trim() == "ucr: caller")).collect()
}

fn root_only(directory: &Path) -> PathBuf {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
    directory.join("x")
}

/// More pids than live at one time, each more than once, under all sorts of ids.
fn crowd(directory: &Path) -> Image {
    let pids = free_pids(70);
    let mut who =
        pids.iter().cycle().zip(1000u32..).map(|(pid, id)| {
            (Credentials { pid: *pid, uid: id, gid: id + 1 }, vec![id + 2, id + 3])
        });
    let mut next = || who.next().unwrap();
    let mut b = Builder::new();
    let name = path_name(root_only(directory), present(0o600));
    let listener = b.listener(SocketType::Stream, name.clone());
    let (by, groups) = next();
    let listening = b.get(listener);
    (listening.listener_credentials, listening.groups) = (Some(by), Some(groups));
    for _ in 0..60 {
        let (client, server) = b.accepted(SocketType::Stream, Some(listener), name.clone(), None);
        let (one, other) = b.pair(SocketType::Seqpacket);
        for index in [client, server, one] {
            let (by, groups) = next();
            let socket = b.get(index);
            (socket.peer_credentials, socket.groups) = (Some(by), Some(groups));
        }
        let like = b.get(one).clone();
        let other = b.get(other);
        (other.peer_credentials, other.groups) = (like.peer_credentials, like.groups);
    }
    // Without groups, and without any.
    let (a, c) = b.pair(SocketType::Dgram);
    for index in [a, c] {
        b.get(index).peer_credentials = Some(next().0);
        b.get(index).groups = Some(Vec::new());
    }
    b.get(c).peer_credentials = b.get(a).peer_credentials;
    b.0
}

#[test]
fn many_pids_are_shown_as_saved_and_nobody_is_left() {
    let _alone = alone();
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let directory = tempfile::tempdir().unwrap();
    let image = crowd(directory.path());
    let descriptors = open_descriptors();
    let restored = execute(&plan(&image).unwrap(), &image, Execution::default()).unwrap();
    assert_eq!(callers(), BTreeSet::new());
    assert_eq!(restored.workers().unavailable().len(), 0);
    assert_eq!(differences(&image, &restored), []);
    let observed = observe(&image, &restored, None).unwrap();
    let unavailable = restored.workers().unavailable();
    assert!(other_pids(&image, &observed, unavailable).is_empty());
    for (saved, seen) in image.sockets.iter().zip(&observed) {
        let wanted = saved.peer_credentials.or(saved.listener_credentials);
        let seen = seen.as_ref().unwrap();
        assert_eq!((seen.details.credentials, &seen.details.groups), (wanted, &saved.groups));
    }
    drop(restored);
    assert_eq!(open_descriptors(), descriptors);
}

#[test]
fn a_fault_at_any_step_leaves_no_caller() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let mut b = Builder::new();
    let pids = free_pids(4);
    let name = path_name(root_only(directory.path()), present(0o600));
    let listener = b.listener(SocketType::Stream, name.clone());
    let (client, server) = b.accepted(SocketType::Stream, Some(listener), name, None);
    let (pair, _) = b.pair(SocketType::Stream);
    for (index, pid) in [client, server, pair].into_iter().zip(&pids) {
        b.get(index).peer_credentials = Some(Credentials { pid: *pid, uid: 7, gid: 8 });
    }
    b.get(listener).listener_credentials = Some(Credentials { pid: pids[3], uid: 9, gid: 9 });
    let (plan, descriptors) = (plan(&b.0).unwrap(), open_descriptors());
    for step in 0..=plan.steps.len() {
        let how = Execution { fail_before: Some(step), ..Execution::default() };
        let error = execute(&plan, &b.0, how).unwrap_err();
        assert!(error.left.is_empty(), "{error}");
        assert_eq!(callers(), BTreeSet::new());
        assert_eq!(open_descriptors(), descriptors);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_pid_that_is_held_exists_until_it_is_let_go() {
    let _alone = alone();
    let mut workers = Workers::default();
    let pids = free_pids(70);
    let (held, others) = pids.split_first().unwrap();
    let hold = workers.hold(*held).unwrap();
    let is_there = |pid: &Pid| comm_of(pid.0).is_some();
    for pid in others {
        drop(workers.hold(*pid).unwrap());
        assert!(is_there(pid) && is_there(held));
    }
    assert_eq!(pids.iter().filter(|pid| is_there(pid)).count(), 64, "no more at one time");
    drop(hold);
    workers.end();
    assert_eq!(callers(), BTreeSet::new());
    // Whoever is there anyway needs nobody.
    let one = workers.hold(Pid(1));
    assert!(one.is_ok());
    assert!(matches!(workers.unavailable().get(&Pid(1)), Some(Unavailable::Taken(Some(_)))));
    assert_eq!(workers.hold(Pid(i32::MAX)).unwrap_err(), Unavailable::TooHigh);
}

/// As when ucr is killed: nobody tells the callers to end.
#[test]
fn callers_end_with_whoever_started_them() {
    let _alone = alone();
    let pids = free_pids(2);
    let started = pids.clone();
    let thread = std::thread::spawn(move || {
        let mut workers = ManuallyDrop::new(Workers::default());
        let (a, b) = (started[0], started[1]);
        workers.hold(a).unwrap();
        // One that has changed its ids.
        let by = Some(Credentials { pid: b, uid: 12, gid: 13 });
        let identity = ucr::restore::plan::step::Identity::of(
            &socket(SocketType::Stream, Role::Connected),
            by,
        );
        let pair = ucr::sys::worker::Call::Pairs(libc::SOCK_STREAM, 1);
        workers.make(identity.as_ref(), pair).unwrap().by
    });
    assert_eq!(thread.join().unwrap(), pids[1]);
    for pid in pids {
        let raw = rustix::process::Pid::from_raw(pid.0).unwrap();
        let process = pidfd_open(raw, PidfdFlags::empty()).unwrap();
        let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        assert_eq!(poll(&mut ended, Some(&minute)).unwrap(), 1, "it lives on");
        let flags = WaitPidFlag::__WALL;
        let ended = waitpid(nix::unistd::Pid::from_raw(pid.0), Some(flags)).unwrap();
        let nix::sys::wait::WaitStatus::Signaled(_, signal, _) = ended else { panic!("{ended:?}") };
        assert_eq!(signal, nix::sys::signal::Signal::SIGKILL);
    }
}

/// Pairs that look alike are made several at a time: each is still the one that it should be, and none is left
/// when that ends in the middle.
#[test]
fn pairs_that_are_made_in_one_go_are_kept_apart() {
    let _alone = alone();
    let pids = free_pids(2);
    let mut b = Builder::new();
    let kinds = [
        (SocketType::Stream, pids[0], 7),
        (SocketType::Stream, pids[0], 8),
        (SocketType::Seqpacket, pids[0], 8),
        (SocketType::Seqpacket, pids[1], 8),
    ];
    // More than are made in one go, and more than one thread reads back.
    for (count, (socket_type, pid, uid)) in [600, 37, 16, 33].into_iter().zip(kinds) {
        for _ in 0..count {
            let (one, other) = b.pair(socket_type);
            for index in [one, other] {
                b.get(index).peer_credentials = Some(Credentials { pid, uid, gid: 9 });
            }
        }
    }
    let (image, descriptors) = (b.0, open_descriptors());
    let plan = plan(&image).unwrap();
    let restored = execute(&plan, &image, Execution::default()).unwrap();
    assert_eq!(differences(&image, &restored), []);
    let observed = observe(&image, &restored, None).unwrap();
    assert_eq!(observed.len(), image.sockets.len());
    assert!(other_pids(&image, &observed, restored.workers().unavailable()).is_empty());
    for (saved, seen) in image.sockets.iter().zip(&observed) {
        assert_eq!(seen.as_ref().unwrap().details.credentials, saved.peer_credentials);
    }
    drop(restored);
    for step in [1, 15, 16, 17, 600, 640] {
        let how = Execution { fail_before: Some(step), ..Execution::default() };
        let error = execute(&plan, &image, how).unwrap_err();
        assert!(error.left.is_empty(), "{error}");
        assert_eq!(callers(), BTreeSet::new());
        assert_eq!(open_descriptors(), descriptors);
    }
}

/// Clients connect several at a time: each is still accepted as the one that it should be, no backlog is too
/// small, each sees whoever listened then, and none is left when that ends in the middle.
#[test]
fn clients_that_connect_in_one_go_are_kept_apart() {
    let _alone = alone();
    let pids = free_pids(4);
    let directory = tempfile::tempdir().unwrap();
    let mut b = Builder::new();
    let path = path_name(directory.path().join("x"), present(0o600));
    let by = |n: usize| Some(Credentials { pid: pids[n % 4], uid: 7, gid: 9 });
    for (backlog, name) in [
        (0, abstract_name(b"ucr-test-none")),
        (1, abstract_name(b"ucr-test-one")),
        (9, abstract_name(b"ucr-test-nine")),
        (100, path),
    ] {
        let listener = b.listener(SocketType::Stream, name.clone());
        b.get(listener).role = Role::Listening { backlog };
        b.get(listener).listener_credentials = by(3);
        for n in 0..60 {
            let own = abstract_name(format!("ucr-test-own-{backlog}-{n}").as_bytes());
            let own = (n % 3 == 0).then_some(own);
            let (client, server) =
                b.accepted(SocketType::Stream, Some(listener), name.clone(), own);
            // Others listen and others connect, each for some time.
            b.get(client).peer_credentials = by(n / 25);
            b.get(server).peer_credentials = by(n / 35);
            b.get(client).status_flags = if n % 2 == 0 { libc::O_NONBLOCK } else { 0 };
        }
    }
    // Through a listener that has gone.
    let gone = abstract_name(b"ucr-test-gone");
    for _ in 0..40 {
        b.accepted(SocketType::Seqpacket, None, gone.clone(), None);
    }
    let (image, descriptors) = (b.0, open_descriptors());
    let plan = plan(&image).unwrap();
    let restored = execute(&plan, &image, Execution::default()).unwrap();
    assert_eq!(differences(&image, &restored), []);
    let observed = observe(&image, &restored, None).unwrap();
    assert!(other_pids(&image, &observed, restored.workers().unavailable()).is_empty());
    for (saved, seen) in image.sockets.iter().zip(&observed) {
        let wanted = saved.peer_credentials.or(saved.listener_credentials);
        let seen = seen.as_ref().unwrap();
        assert!(wanted.is_none() || seen.details.credentials == wanted, "{seen:?}");
    }
    drop(restored);
    let is_connect = |step: &Step| matches!(step, Step::Connect { .. });
    let connects = (0..).zip(&plan.steps).filter(|(_, step)| is_connect(step));
    for (step, _) in connects.step_by(7) {
        let how = Execution { fail_before: Some(step), ..Execution::default() };
        let error = execute(&plan, &image, how).unwrap_err();
        assert!(error.left.is_empty(), "{error}");
        assert_eq!(callers(), BTreeSet::new());
        assert_eq!(open_descriptors(), descriptors);
    }
    // As many as there is room for, but no more than that.
    let most = plan.steps.chunk_by(|a, b| is_connect(a) == is_connect(b));
    let most: BTreeSet<_> = most.filter(|run| is_connect(&run[0])).map(<[Step]>::len).collect();
    assert!(most.contains(&9) && most.last() == Some(&16), "{most:?}");
}
