//! What a program has set on its sockets is set again: sizes beyond the limits, filters.

use std::fs;

use ucr_tests::{Need, Victim, needs, world::hex};

use super::{bring_back, take};
use crate::world;

const SO_SNDBUF: i32 = 7;
const SO_RCVBUF: i32 = 8;
const SO_DETACH_FILTER: i32 = 27;
const SO_SNDBUFFORCE: i32 = 32;
const SO_RCVBUFFORCE: i32 = 33;
const SO_LOCK_FILTER: i32 = 44;

fn set(victim: &mut Victim, fd: i32, option: i32, value: i32) {
    victim.ask(&format!("setopt {fd} {option} {}", hex(&value.to_ne_bytes())));
}

#[test]
fn buffers_beyond_the_limits_come_back() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let limit = |name: &str| -> i32 {
        let text = fs::read_to_string(format!("/proc/sys/net/core/{name}")).expect("a sysctl");
        text.trim().parse().expect("a number")
    };
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let (send, receive) = (limit("wmem_max") + 12_345, limit("rmem_max") + 54_321);
    set(&mut victim, a, SO_SNDBUFFORCE, send);
    set(&mut victim, b, SO_RCVBUFFORCE, receive);
    let mut victim = bring_back(&world, &take(&world, victim));
    let doubled = |size: i32| hex(&(2 * size).to_ne_bytes());
    assert_eq!(victim.ask(&format!("getopt {a} {SO_SNDBUF}")), doubled(send));
    assert_eq!(victim.ask(&format!("getopt {b} {SO_RCVBUF}")), doubled(receive));
}

#[test]
fn filters_filter_again_and_locks_hold() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (from, to) = victim.pair("dgram");
    let (open, _) = victim.pair("seqpacket");
    victim.ask(&format!("filter {to} 2"));
    set(&mut victim, to, SO_LOCK_FILTER, 1);
    victim.ask(&format!("filter {open} 0"));
    let mut victim = bring_back(&world, &take(&world, victim));
    victim.ask(&format!("send {from} hello"));
    assert_eq!(victim.ask(&format!("recv {to}")), "he", "cut by the filter");
    let zero = hex(&0i32.to_ne_bytes());
    let detach = |fd| format!("setopt {fd} {SO_DETACH_FILTER} {zero}");
    assert_eq!(victim.tell(&detach(to)), Err("EPERM".to_owned()), "locked");
    victim.ask(&detach(open));
}
