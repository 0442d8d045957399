//! Interfaces have other numbers elsewhere, and the same names.

use ucr_tests::{
    Host, Need, Victim, needs,
    network::ip,
    ucr::REFUSED,
    world::{World, hex},
};

use super::{bound, get, restored, set, take};
use crate::world;

const ADDRESS: &str = "10.99.0.1";
const GROUP: &str = "239.1.2.3";
/// `struct ip_mreqn`: the interface stands behind two addresses.
const INTERFACE: usize = 16;
/// `SO_BINDTOIFINDEX`, `IPV6_UNICAST_IF`.
const BIND: i32 = 62;
const UNICAST: i32 = 76;

/// A host with an interface `near`, whose number is the higher the more others there are, and the one that its cable
/// leads to.
fn host(others: usize) -> ([Host; 2], u32) {
    let (near, far) = (Host::new(), Host::new());
    for number in 0..others {
        near.within(|| ip(&format!("link add other{number} type veth peer name gone{number}")));
    }
    near.cable("near", &far, "far");
    near.address("near", 1);
    far.address("far", 2);
    let number = near.within(|| nix::net::if_::if_nametoindex("near")).expect("its number");
    near.within(|| ip("addr add fe80::99/64 dev near nodad"));
    ([near, far], number)
}

fn scope(victim: &mut Victim, fd: i32) -> String {
    let name = victim.ask(&format!("iname {fd}"));
    name.rsplit_once('%').and_then(|(_, end)| end.split(']').next()).unwrap_or("none").to_owned()
}

fn image(world: &World, number: u32) -> (std::path::PathBuf, [i32; 4]) {
    let mut victim = world.victim();
    let (device, _) = bound(&mut victim, "udp", &format!("{ADDRESS}:0"));
    set(&mut victim, device, libc::SOL_SOCKET, BIND, number.cast_signed());
    let multicast = victim.number("inet udp");
    victim.ask(&format!("ijoin {multicast} {GROUP} {number}"));
    let chosen = [[0; 4], [10, 99, 0, 1], number.to_ne_bytes()].concat();
    let (level, option) = (libc::SOL_IP, libc::IP_MULTICAST_IF);
    victim.ask(&format!("iset {multicast} {level} {option} {}", hex(&chosen)));
    let six = victim.number("inet udp6");
    set(&mut victim, six, libc::SOL_IPV6, UNICAST, number.to_be().cast_signed());
    // Of the link alone.
    let (link, _) = bound(&mut victim, "udp6", &format!("[fe80::99%{number}]:0"));
    assert_eq!(scope(&mut victim, link), number.to_string());
    (take(world, victim), [device, multicast, six, link])
}

#[test]
fn on_another_host_they_are_found_by_their_names() {
    if !needs::met(&[Need::Root, Need::Program("ip")]) {
        return;
    }
    let world = world();
    let (([old, _far], was), ([new, _farther], is)) = (host(0), host(3));
    assert_ne!(was, is, "or nothing is shown");
    old.enter();
    let (image, [device, multicast, six, link]) = image(&world, was);
    new.enter();
    let mut victim = restored(&world, &image);
    let native = |number: u32| hex(&number.to_ne_bytes());
    assert_eq!(get(&mut victim, device, libc::SOL_SOCKET, BIND), native(is));
    assert_eq!(get(&mut victim, six, libc::SOL_IPV6, UNICAST), hex(&is.to_be_bytes()));
    assert_eq!(scope(&mut victim, link), is.to_string());
    let again = world.path("again");
    let _written = crate::dumping::dump(&world, &victim, &again, &[]).done();
    let again = ucr::image::file::read(&again).expect("the image");
    let all = again.sockets.iter().filter_map(|socket| socket.inet.as_deref());
    let joined = all.flat_map(|inet| &inet.memberships).next().expect("the group");
    assert_eq!((joined.interface, joined.group.to_string().as_str()), (is, GROUP));
    let all = again.sockets.iter().filter_map(|socket| socket.inet.as_deref());
    let mut options = all.flat_map(|inet| &inet.options);
    let chosen = options.find(|option| option.number == libc::IP_MULTICAST_IF).expect("set");
    assert_eq!(hex(&chosen.value)[INTERFACE..], native(is));
    let _numbers = multicast;
}

#[test]
fn one_that_is_not_there_is_named_before_anything_is_done() {
    if !needs::met(&[Need::Root, Need::Program("ip")]) {
        return;
    }
    let world = world();
    let ([old, _far], was) = host(0);
    old.enter();
    let (image, _) = image(&world, was);
    let new = Host::new();
    new.enter();
    let image = image.display().to_string();
    let refused = world.ucr.run(&["restore", &image, "--", "true"]).ended(REFUSED);
    let refused = refused.complains("network interface near, which is not here");
    let _said = refused.complains("hint: make one of that name first");
}
