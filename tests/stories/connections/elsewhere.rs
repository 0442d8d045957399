//! A connection goes on from another host, to which its address has gone.

use std::net::TcpListener;

use ucr_tests::{Need, needs, network::Removal};

use super::{Scene, Way, can};
use crate::world;

fn story(way: Way, address: &str) {
    if !can() || !needs::met(&[Need::Program("ip")]) {
        return;
    }
    let removal = Removal::new();
    let listener = removal.far.within(|| TcpListener::bind("[::]:0").expect("listen"));
    removal.old.enter();
    let mut scene = Scene::with(world(), way, address.parse().expect("an address"), &listener);
    let (sent, received) = (scene.fill(), scene.fill_victim());
    scene.dump_and_kill();
    removal.unplug_old();
    scene.asks_in_vain();
    assert!(!scene.has_noticed());
    removal.new.within(|| scene.restore());
    removal.plug_new();
    scene.goes_on(sent, received);
}

#[test]
fn full_queues_go_to_another_host() {
    story(Way::Four, "10.99.0.2");
}

#[test]
fn full_queues_go_to_another_host_over_ipv6() {
    story(Way::Six, "fd99::2");
}
