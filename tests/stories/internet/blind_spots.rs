//! What nobody sees of internet sockets, whatever the backend.

use ucr::tracer::hooks::Backend;
use ucr_tests::{Need, Perl, backends, needs, world::hex};

use super::bound;
use crate::watched;

#[test]
pub(crate) fn a_connection_is_unknown_until_it_is_accepted() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for backend in backends::attachable() {
        let world = watched(*backend);
        let mut victim = world.victim();
        let pid = victim.pid().to_string();
        let (listener, address) = bound(&mut victim, "tcp", "127.0.0.1:0");
        victim.ask(&format!("listen {listener} 7"));
        let mut events = world.ucr.follow(&["--pid", &pid, "--type", "tcp"]);
        let client = victim.number("inet tcp");
        victim.ask(&format!("iconnect {client} {address}"));
        let accepted = victim.accept(listener);
        // Of the end that is accepted the first thing that is told is that.
        let inode = victim.inode(accepted);
        let told = events.event("the accepted end", |event| event["socket"]["inode"] == inode);
        assert_eq!(told["event"], "accept", "{}: {told:#}", backend.name());
    }
}

#[test]
pub(crate) fn a_raw_socket_is_not_told_of() {
    if !needs::met(&[Need::Root, Need::Program("perl")]) {
        return;
    }
    for backend in backends::attachable() {
        let world = watched(*backend);
        let mut perl = Perl::start();
        let mut events = world.ucr.follow(&["--pid", &perl.pid().to_string()]);
        let _raw = perl.number("socket $raw, AF_INET, SOCK_RAW, 1; fileno $raw");
        let udp = perl.number("socket $udp, AF_INET, SOCK_DGRAM, 17; fileno $udp");
        let told = events.event("anything", |_| true);
        assert_eq!((&told["event"], &told["fd"]), (&"socket".into(), &udp.into()), "{told:#}");
        assert_eq!(told["protocol"], "udp");
    }
}

#[test]
pub(crate) fn a_port_that_the_kernel_chooses_when_it_sends() {
    if !needs::met(&[Need::Root, Need::Backend(Backend::Tracepoint)]) {
        return;
    }
    let world = watched(Backend::Tracepoint);
    let mut victim = world.victim();
    let pid = victim.pid().to_string();
    let (_receiver, address) = bound(&mut victim, "udp", "127.0.0.1:0");
    let sender = victim.number("inet udp");
    let mut events = world.ucr.follow(&["--pid", &pid, "--type", "udp"]);
    victim.ask(&format!("isend {sender} {address} {}", hex(b"x")));
    assert_ne!(victim.ask(&format!("iname {sender}")), "0.0.0.0:0");
    victim.close(sender);
    let told = events.event("anything", |_| true);
    assert_eq!(told["event"], "close", "nothing was told of the port: {told:#}");
}

#[test]
pub(crate) fn nobody_tells_who_passed_an_internet_socket() {
    if !needs::met(&[Need::Root, Need::Backend(Backend::Trampoline)]) {
        return;
    }
    let world = watched(Backend::Trampoline);
    let mut victim = world.victim();
    let (from, to) = victim.pair("stream");
    let udp = victim.number("inet udp");
    let inode = victim.inode(udp);
    let mut events = world.ucr.follow(&["--pid", &victim.pid().to_string()]);
    victim.ask(&format!("pass {udp} {from}"));
    let taken = victim.number(&format!("take {to}"));
    assert_eq!(victim.inode(taken), inode);
    victim.close(taken);
    victim.close(udp);
    let told = events.event("what is told of it", |event| event["socket"]["inode"] == inode);
    assert_eq!(told["event"], "close", "{told:#}");
}
