//! The other end is on another host, as far as one machine can have that: in a network namespace of its own.

use std::net::TcpListener;

use ucr_tests::{Host, Need, needs};

use super::{Scene, Way, can};
use crate::world;

fn story(way: Way, address: &str) {
    if !can() || !needs::met(&[Need::Program("ip")]) {
        return;
    }
    let (near, far) = Host::pair();
    let listener = far.within(|| TcpListener::bind("[::]:0").expect("listen"));
    near.enter();
    let address = address.parse().expect("an address");
    let mut scene = Scene::with(world(), way, address, &listener);
    let (sent, received) = (scene.fill(), scene.fill_victim());
    scene.dump_and_kill();
    scene.asks_in_vain();
    assert!(!scene.has_noticed());
    scene.restore();
    scene.goes_on(sent, received);
}

#[test]
fn the_other_end_is_in_another_one() {
    story(Way::Four, "10.99.0.2");
}

#[test]
fn the_other_end_is_in_another_one_over_ipv6() {
    story(Way::Six, "fd99::2");
}

#[test]
fn the_other_end_is_in_another_one_over_ipv4_by_a_socket_of_ipv6() {
    story(Way::Mapped, "10.99.0.2");
}
