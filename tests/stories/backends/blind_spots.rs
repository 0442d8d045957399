//! What each backend cannot see. Every line that `ucr features` and `ucr status` list is shown to be true
//! by a story, and what a reconciliation makes of it.

use serde_json::Value;
use ucr::tracer::hooks::Backend;
use ucr_tests::{Need, Perl, backends, needs, outside};

use super::{forced, unseen};
use crate::{
    doors::{compat, datagrams, io_uring, passing},
    internet::blind_spots,
    watched, world,
};

/// A line, and the stories that show it.
type Shown = (&'static str, &'static [fn()]);

const TRACEPOINT: [Shown; 11] = [
    (
        "operations made through io_uring",
        &[io_uring::tracepoints_see_nothing_of_it_until_the_ledger_is_reconciled],
    ),
    (
        "calls by the 32-bit entry (counted as compat)",
        &[compat::tracepoints_count_them_and_see_no_more],
    ),
    (
        "connections that are not accepted yet, until their connect(2) returns",
        &[unseen::a_connection_is_accepted_before_its_connect_is_seen],
    ),
    (
        "names that autobind gives outside connect(2)",
        &[datagrams::a_name_that_the_kernel_gives_is_told_as_such],
    ),
    (
        "that a datagram socket lost its peer, until it connects again",
        &[datagrams::a_send_that_finds_the_peer_gone_ends_the_connection],
    ),
    (
        "a close that is the last only because something in flight or a running call let go later",
        &[unseen::what_was_in_flight_ends_unseen, unseen::what_a_running_call_holds_ends_unseen],
    ),
    (
        "the last close of a socket whose two holders end at the same moment",
        &[unseen::two_holders_that_end_at_once_leave_a_record],
    ),
    (
        "descriptors closed by execve(2) in a process with threads, or where the kernel has no \
         sched_prepare_exec",
        &[unseen::an_exec_among_threads_leaves_records],
    ),
    (
        "a connection that accept(2) took and then could not return (EFAULT)",
        &[unseen::an_accept_that_could_not_return_leaves_a_record],
    ),
    ("SCM_RIGHTS: who passed a descriptor to whom", &[passing::tracepoints_tell_nothing_of_it]),
    (
        "the port that a UDP socket gets when it first sends without bind(2) or connect(2)",
        &[blind_spots::a_port_that_the_kernel_chooses_when_it_sends],
    ),
];

const TRAMPOLINE: [Shown; 6] = [
    (
        "calls that fail before they reach the family (EBADF, EFAULT, EMFILE, ENOTSOCK)",
        &[calls_that_do_not_reach_the_family_fail_unseen],
    ),
    ("the descriptor that a socket was closed under", &[a_close_names_no_descriptor]),
    (
        "descriptor numbers of calls by io_uring or socketcall(2), and those that a receiver of \
         SCM_RIGHTS gets",
        &[
            io_uring::trampolines_see_every_step_of_it,
            io_uring::descriptors_go_through_it_too,
            compat::trampolines_see_them_like_any_other,
            passing::who_passed_which_socket_to_whom_is_told,
        ],
    ),
    (
        "where the kernel has no unix_add_edges: whose queue a descriptor goes into \
         that is sent to an address",
        &[passing::what_is_sent_to_an_address_goes_into_that_queue],
    ),
    (
        "on a preemptible kernel: an event while the same program is interrupted on the same CPU \
         (counted as missed)",
        // No test can bring it about at will; that it is counted is read where the kernel counts.
        &[what_the_kernel_did_not_hand_over_is_counted],
    ),
    (
        "of internet sockets: who passed a descriptor to whom",
        &[blind_spots::nobody_tells_who_passed_an_internet_socket],
    ),
];

/// Of internet sockets, whatever the backend.
const INTERNET: [Shown; 3] = [
    (
        "TCP connections that nobody has accepted yet, and what becomes of a TCP socket after its last \
         close",
        &[blind_spots::a_connection_is_unknown_until_it_is_accepted],
    ),
    (
        "internet sockets that are neither TCP nor UDP (MPTCP, raw, ICMP, SCTP, SMC), and those that the \
         kernel makes for itself",
        &[blind_spots::a_raw_socket_is_not_told_of],
    ),
    (
        "a change of state that comes while another one is told on the same CPU (counted as missed)",
        // No test can bring it about at will either.
        &[what_the_kernel_did_not_hand_over_is_counted],
    ),
];

const SNAPSHOT: [Shown; 1] = [(
    "everything that happened before: there is no history",
    &[forced::a_dump_from_a_snapshot_checks_nothing_and_says_so],
)];

fn lines(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().filter_map(Value::as_str).collect()
}

#[test]
fn every_line_that_is_shown_to_users_has_its_story() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let report = world.ucr.run(&["features", "--json"]).done().json();
    let table = world.ucr.run(&["features"]).done().stdout;
    let offers = report["backends"].as_array().expect("a list");
    let known: [(Backend, &[Shown], &[Shown]); 3] = [
        (Backend::Trampoline, &TRAMPOLINE, &INTERNET),
        (Backend::Tracepoint, &TRACEPOINT, &INTERNET),
        (Backend::Snapshot, &SNAPSHOT, &[]),
    ];
    for (backend, own, common) in known {
        let shown = [own, common].concat();
        let expected: Vec<&str> = shown.iter().map(|(line, _)| *line).collect();
        let offer = offers.iter().find(|offer| offer["backend"] == backend.name());
        assert_eq!(lines(&offer.expect("the backend")["blind_spots"]), expected);
        assert!(shown.iter().all(|(line, stories)| table.contains(line) && !stories.is_empty()));
    }
    for backend in backends::attachable() {
        let world = watched(*backend);
        let status = world.ucr.run(&["status", "--json"]).done().json();
        assert_eq!(lines(&status["blind_spots"]), backend.blind_spots());
        let table = world.ucr.run(&["status"]).done().stdout;
        assert!(backend.blind_spots().iter().all(|line| table.contains(line)), "{table}");
    }
}

/// System call numbers of x86-64.
const BIND: i64 = 49;
const LISTEN: i64 = 50;
const SOCKETPAIR: i64 = 53;
const ACCEPT4: i64 = 288;

#[test]
fn calls_that_do_not_reach_the_family_fail_unseen() {
    if !needs::met(&[Need::Root, Need::Program("perl"), Need::Backend(Backend::Trampoline)]) {
        return;
    }
    let world = watched(Backend::Trampoline);
    let mut perl = Perl::start();
    let fd = perl.number("socket $s, AF_UNIX, SOCK_STREAM, 0; fileno $s");
    let (ebadf, efault, einval, emfile, enotsock) = (9, 14, 22, 24, 88);
    let mut events = world.ucr.follow(&["--pid", &perl.pid().to_string(), "--failed"]);
    perl.ask("$name = pack 'S', 1; $two = pack 'LL', 0, 0; 1");
    assert_eq!(perl.call(BIND, "999, $name, 2"), Err(ebadf));
    assert_eq!(perl.call(BIND, "0, $name, 2"), Err(enotsock));
    assert_eq!(perl.call(BIND, &format!("{fd}, 1, 20")), Err(efault));
    // No descriptor is free: these look for one before they ask the family.
    perl.ask("my $limit = pack 'QQ', 3, 3; syscall 302, 0, 7, $limit, 0");
    assert_eq!(perl.call(SOCKETPAIR, "1, 1, 0, $two"), Err(emfile));
    assert_eq!(perl.call(ACCEPT4, &format!("{fd}, 0, 0, 0")), Err(emfile));
    // This one does reach it. Events come in order: it is the first.
    assert_eq!(perl.call(LISTEN, &format!("{fd}, 1")), Err(einval));
    let event = events.event("anything", |_| true);
    assert_eq!(
        (&event["event"], &event["errno"]),
        (&"listen".into(), &"EINVAL".into()),
        "{event:#}"
    );
    assert_eq!(event["fd"], fd);
}

#[test]
fn a_close_names_no_descriptor() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for backend in backends::attachable() {
        let world = watched(*backend);
        let mut victim = world.victim();
        let fd = victim.socket("stream");
        let inode = victim.inode(fd);
        let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
        victim.close(fd);
        assert_eq!(outside::inode(victim.pid(), fd), None);
        let event = events.next("close");
        assert_eq!(event["socket"]["inode"], inode);
        let shown = if *backend == Backend::Trampoline { Value::Null } else { fd.into() };
        assert_eq!(event["fd"], shown, "{}: {event:#}", backend.name());
    }
}

#[test]
fn what_the_kernel_did_not_hand_over_is_counted() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for backend in backends::attachable() {
        let world = watched(*backend);
        let status = world.ucr.run(&["status", "--json"]).done().json();
        assert!(status["missed"].is_u64(), "{}: {status:#}", backend.name());
    }
}
